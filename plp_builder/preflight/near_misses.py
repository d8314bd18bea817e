"""What is there instead of a Dockerfile that was not found."""

from __future__ import annotations

import os
from collections.abc import Iterator
from pathlib import Path

from plp_builder.preflight.finding import show

_MAX_ENTRIES = 2000
_MAX_DEPTH = 2
_SHOWN = 3


_SOURCES = frozenset(
    (
        "bak", "c", "cc", "cpp", "cs", "css", "go", "h", "html", "java", "js", "json", "jsx", "kt",
        "lua", "md", "orig", "php", "py", "pyc", "rb", "rs", "rst", "sh", "swift", "swp", "toml",
        "ts", "tsx", "xml", "yaml", "yml",
    )
)  # fmt: skip
"""How files end that only treat of Dockerfiles."""


def hint(source: Path, context: Path, name: str, *, within: Path | None = None) -> str:
    """The next step when ``name`` is not in ``context``: names the likeliest other files.

    Looks at no more than a few thousand directory entries, two levels deep, below ``within``
    when PLP_DOCKERFILE names that directory, else below the context.
    """
    wanted = "Dockerfile" if within else Path(name).name
    found = sorted(_candidates(within or context, wanted), key=_likeliness)
    if not found:
        return (
            "Put a Dockerfile into the source directory, or set PLP_DOCKERFILE "
            "(and PLP_CONTEXT) to where it is."
        )
    names = [show(os.path.relpath(path, context)) for path in found]
    more = f" (and {len(names) - _SHOWN} more)" if len(names) > _SHOWN else ""
    other = "" if within else _other_context(source, context, name, Path(found[0]))
    return f"found {', '.join(names[:_SHOWN])}{more}: set PLP_DOCKERFILE={names[0]}{other}"


def _other_context(source: Path, context: Path, name: str, found: Path) -> str:
    """A Dockerfile in another directory may be meant to be built from there."""
    if found.parent == context or not found.is_relative_to(source):
        return ""
    also = "" if found.name == name else f" and PLP_DOCKERFILE={show(found.name)}"
    where = show(os.path.relpath(found.parent, source))
    return f", or PLP_CONTEXT={where}{also} if its files are meant from there"


def _likeliness(path: str) -> tuple[int, int, str]:
    base = Path(path).name.lower()
    rank = 0 if base == "dockerfile" else 1 if base == "containerfile" else 2
    return path.count("/"), rank, path


def _candidates(context: Path, wanted: str) -> Iterator[str]:
    for path in _files(context):
        base = Path(path).name.lower()
        if base.endswith(".dockerignore"):
            continue
        if base in {wanted.lower(), "containerfile"} or _looks_like_dockerfile(base):
            yield path


def _looks_like_dockerfile(base: str) -> bool:
    if base.startswith("dockerfile."):
        return not base.endswith("~") and base.rpartition(".")[2] not in _SOURCES
    return base == "dockerfile" or base.endswith(".dockerfile")


def _files(context: Path) -> Iterator[str]:
    left = _MAX_ENTRIES
    directories = [(os.fspath(context), 0)]
    while directories:
        directory, depth = directories.pop(0)
        try:
            with os.scandir(directory) as entries:
                for entry in entries:
                    left -= 1
                    if left < 0:
                        return
                    if entry.is_dir(follow_symlinks=False):
                        if depth < _MAX_DEPTH and not entry.name.startswith("."):
                            directories.append((entry.path, depth + 1))
                    elif entry.is_file():
                        yield entry.path
        except OSError:
            continue
