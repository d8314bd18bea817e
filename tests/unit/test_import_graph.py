"""Imports go one way, and what starts with every build stays cheap."""

from __future__ import annotations

from pathlib import Path

import pytest

from tests.support.import_graph import Import, Module, When, at_start, read, uses_of

ROOT = Path(__file__).parents[2]
MODULES = read(ROOT / "plp_builder", ROOT / "publisher")
BUILDER = {name: module for name, module in MODULES.items() if name.startswith("plp_builder")}
PUBLISHER = {name: module for name, module in MODULES.items() if name.startswith("publisher")}

FLOORS: tuple[frozenset[str], ...] = (
    frozenset({"program"}),
    frozenset({"__main__"}),
    frozenset({"build"}),
    frozenset({"solving"}),
    frozenset({"caching", "run"}),
    frozenset({"outset"}),
    frozenset({"recalling"}),
    frozenset({"drafting", "tidying", "usage", "version"}),
    frozenset({"cache"}),
    frozenset({"preflight", "buildkit", "solve", "progress", "results", "output"}),
    frozenset({"annotations"}),
    frozenset({"settings", "manual"}),
    frozenset({"reading"}),
    frozenset({"syntax", "process", "oci", "log", "variables", "telling"}),
    frozenset({"redaction"}),
    frozenset({"values", "terminal", "users", "streams", "naming", "phases"}),
    frozenset({"early"}),
    frozenset({"errors", "lazy", "signals", "tuples", ""}),
)
"""From the street down to the ground: a room may use the floors below its own."""

NEIGHBOURS = frozenset({("solve", "preflight"), ("syntax", "oci")})
"""What a room may use on its own floor: the solve request is made from checked paths, and the
syntax of a variable may hold an image reference."""

STDLIB_TOO_DEAR = frozenset(
    {"asyncio", "email", "http", "inspect", "logging", "ssl", "unittest", "urllib.request", "xml"}
)
LEAVES = frozenset(
    {"oci", "process", "log", "errors", ""}
    | {"variables", "reading", "naming", "manual", "telling", "terminal", "values", "streams"}
    | {"users", "lazy", "early", "redaction", "signals", "tuples"}
)
"""What the publisher may use of the builder's package."""

LIBRARIES = {"pydantic": "reading", "pydantic_settings": "reading", "structlog": "log"}
HOT = (
    "errors", "values", "users", "streams", "process", "solve", "annotations", "buildkit", "cache",
    "oci",
)  # fmt: skip

STARTS_PROCESSES = {
    "subprocess": frozenset(
        {"Popen", "run", "call", "check_call", "check_output", "getoutput", "getstatusoutput"}
    ),
    "os": frozenset(
        {"fork", "forkpty", "popen", "posix_spawn", "posix_spawnp", "startfile", "system"}
        | {"execl", "execle", "execlp", "execlpe", "execv", "execve", "execvp", "execvpe"}
        | {"spawnl", "spawnle", "spawnlp", "spawnlpe", "spawnv", "spawnve", "spawnvp", "spawnvpe"}
    ),
}
READS_ENVIRONMENT = frozenset({"environ", "environb", "getenv", "getenvb"})


def floor(room: str) -> int:
    return next(number for number, rooms in enumerate(FLOORS) if room in rooms)


def room_of(name: str) -> str:
    return (*name.split("."), "")[1]


def modules_of(*rooms: str) -> list[Module]:
    return [module for module in BUILDER.values() if module.room in rooms]


def test_every_room_has_a_floor() -> None:
    """A new room must be given its place here before anything can use it."""
    rooms = {module.room for module in BUILDER.values()}
    assert rooms <= frozenset().union(*FLOORS)


@pytest.mark.parametrize("module", BUILDER.values(), ids=lambda module: module.name)
def test_imports_go_down(module: Module) -> None:
    wrong = [
        used.name
        for used in module.imports
        if used.name.partition(".")[0] == "plp_builder"
        and (target := room_of(used.name)) != module.room
        and (module.room, target) not in NEIGHBOURS
        and floor(target) <= floor(module.room)
    ]
    assert wrong == []


@pytest.mark.parametrize("module", BUILDER.values(), ids=lambda module: module.name)
def test_the_builder_never_imports_the_publisher(module: Module) -> None:
    assert not [used for used in module.imports if used.name.partition(".")[0] == "publisher"]


@pytest.mark.parametrize("module", PUBLISHER.values(), ids=lambda module: module.name)
def test_the_publisher_uses_only_leaves_of_the_builder(module: Module) -> None:
    rooms = {
        room_of(used.name)
        for used in module.imports
        if used.name.partition(".")[0] == "plp_builder"
    }
    assert rooms <= LEAVES


@pytest.mark.parametrize("module", modules_of(*HOT), ids=lambda module: module.name)
def test_what_every_build_imports_first_is_cheap(module: Module) -> None:
    """Neither a library nor a dear module of the standard library, not by a detour either."""
    imported = at_start(BUILDER, module.name)
    assert not imported & (STDLIB_TOO_DEAR | set(LIBRARIES))
    assert not {name for name in imported if name.partition(".")[0] in LIBRARIES}


@pytest.mark.parametrize("program", ["plp_builder", "publisher"])
def test_a_program_starts_without_any_library(program: str) -> None:
    """Signals are listened to before anything slow is imported."""
    imported = at_start(MODULES, f"{program}.__main__")
    assert not {name for name in imported if name.partition(".")[0] in LIBRARIES}
    assert not imported & STDLIB_TOO_DEAR


@pytest.mark.parametrize(("library", "room"), LIBRARIES.items())
def test_each_library_has_one_room(library: str, room: str) -> None:
    users = {
        module.room
        for module in MODULES.values()
        for used in module.imports
        if used.name.partition(".")[0] == library
    }
    assert users <= {room}


@pytest.mark.parametrize("module", MODULES.values(), ids=lambda module: module.name)
def test_only_one_module_starts_processes(module: Module) -> None:
    """Constants such as ``subprocess.PIPE`` may be named elsewhere.

    ``nosync`` is a script as well, which becomes the program that it is given; ``namespace`` is
    for a process that has just been forked, and is not yet another program.
    """
    started = {
        f"{library}.{name}"
        for library, names in STARTS_PROCESSES.items()
        for name in uses_of(module, library) & names
    }
    forks = ("process.child", "buildkit.nosync", "buildkit.namespace")
    assert not started or module.name in {f"plp_builder.{name}" for name in forks}


@pytest.mark.parametrize("module", MODULES.values(), ids=lambda module: module.name)
def test_only_main_reads_the_environment(module: Module) -> None:
    assert not uses_of(module, "os") & READS_ENVIRONMENT or module.name.endswith(".__main__")


@pytest.fixture
def sample(tmp_path: Path) -> dict[str, Module]:
    """A package in which everything that the reader must tell apart occurs once."""
    package = tmp_path / "sample"
    (package / "inner").mkdir(parents=True)
    (package / "__init__.py").write_text("import json\n")
    (package / "inner" / "__init__.py").write_text("import ssl\n")
    (package / "inner" / "deep.py").write_text("def f():\n    import asyncio\n")
    (package / "top.py").write_text(
        "from typing import TYPE_CHECKING\n"
        "from sample.inner import deep\n"
        "import os as system\n"
        "if TYPE_CHECKING:\n"
        "    import pydantic\n"
        "try:\n"
        "    import tomllib\n"
        "except ImportError:\n"
        "    pass\n"
        "print(system.environ)\n"
    )
    return read(package)


def test_reader_tells_apart_when_an_import_happens(sample: dict[str, Module]) -> None:
    assert set(sample["sample.top"].imports) == {
        Import("typing", When.START),
        Import("sample.inner.deep", When.START),
        Import("os", When.START),
        Import("pydantic", When.NEVER),
        Import("tomllib", When.START),
    }
    assert sample["sample.inner.deep"].imports == (Import("asyncio", When.LATER),)


def test_reader_follows_imports_and_the_packages_around_them(sample: dict[str, Module]) -> None:
    assert at_start(sample, "sample.top") == {
        "sample",
        "sample.inner",
        "sample.inner.deep",
        "json",
        "ssl",
        "os",
        "tomllib",
        "typing",
    }


def test_reader_sees_through_an_alias(sample: dict[str, Module]) -> None:
    assert uses_of(sample["sample.top"], "os") == {"environ"}
