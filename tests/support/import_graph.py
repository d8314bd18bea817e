"""Which module imports which, read from the source by ast: nothing is imported for it."""

from __future__ import annotations

import ast
from collections.abc import Iterator
from enum import Enum
from pathlib import Path
from typing import NamedTuple


class When(Enum):
    """``START``: as soon as the module is imported; ``LATER``: inside a function;
    ``NEVER``: below ``if TYPE_CHECKING``, for annotations alone."""

    START = "start"
    LATER = "later"
    NEVER = "never"


class Import(NamedTuple):
    """One imported module, by its full name, and when it happens."""

    name: str
    when: When


class Module(NamedTuple):
    """One source file. ``name`` is dotted; a package has its own name, without ``__init__``."""

    name: str
    tree: ast.Module
    imports: tuple[Import, ...]

    @property
    def room(self) -> str:
        """The first name below the package: ``cache`` of ``plp_builder.cache.portable``."""
        return (*self.name.split("."), "")[1]


def read(*packages: Path) -> dict[str, Module]:
    """Every module of the packages at those paths, by name; ValueError on a relative import."""
    sources = {}
    for package in packages:
        for path in sorted(package.rglob("*.py")):
            parts = path.relative_to(package.parent).with_suffix("").parts
            sources[".".join(part for part in parts if part != "__init__")] = path
    known = frozenset(sources)
    modules = {}
    for name, path in sources.items():
        tree = ast.parse(path.read_text(encoding="utf-8"), filename=str(path))
        modules[name] = Module(name, tree, tuple(_imports(tree, known, When.START)))
    return modules


def at_start(modules: dict[str, Module], name: str) -> frozenset[str]:
    """All that an import of ``name`` brings with it, directly and by way of other modules.

    Of modules outside ``modules`` only the names are known, not what they import themselves.
    """
    seen: set[str] = set()
    waiting = [name]
    while waiting:
        current = waiting.pop()
        if current in seen:
            continue
        seen.add(current)
        if "." in current:
            waiting.append(current.rpartition(".")[0])
        if current in modules:
            waiting += [i.name for i in modules[current].imports if i.when is When.START]
    return frozenset(seen - {name})


def uses_of(module: Module, library: str) -> frozenset[str]:
    """The names that ``module`` takes from a library: ``os.environ`` or ``from os import environ``.

    The library under another name (``import os as system``) counts like itself.
    """
    aliases = {library}
    used: set[str] = set()
    for node in ast.walk(module.tree):
        if isinstance(node, ast.Import):
            aliases |= {a.asname for a in node.names if a.name == library and a.asname}
        elif isinstance(node, ast.ImportFrom) and node.module == library:
            used |= {alias.name for alias in node.names}
    for node in ast.walk(module.tree):
        match node:
            case ast.Attribute(value=ast.Name(id=name), attr=used_name) if name in aliases:
                used.add(used_name)
    return frozenset(used)


def _imports(node: ast.AST, known: frozenset[str], when: When) -> Iterator[Import]:
    for child in ast.iter_child_nodes(node):
        if isinstance(child, ast.Import):
            yield from (Import(alias.name, when) for alias in child.names)
        elif isinstance(child, ast.ImportFrom):
            if child.level or child.module is None:
                raise ValueError("a relative import")
            for alias in child.names:
                full = f"{child.module}.{alias.name}"
                yield Import(full if full in known else child.module, when)
        elif isinstance(child, ast.If) and _is_type_checking(child.test):
            for statement in child.body:
                yield from _imports(ast.Module([statement], []), known, When.NEVER)
            for statement in child.orelse:
                yield from _imports(ast.Module([statement], []), known, when)
        elif isinstance(child, ast.FunctionDef | ast.AsyncFunctionDef | ast.Lambda):
            later = When.LATER if when is When.START else when
            yield from _imports(child, known, later)
        else:
            yield from _imports(child, known, when)


def _is_type_checking(test: ast.expr) -> bool:
    return (isinstance(test, ast.Name) and test.id == "TYPE_CHECKING") or (
        isinstance(test, ast.Attribute) and test.attr == "TYPE_CHECKING"
    )
