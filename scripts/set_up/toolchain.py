"""BuildKit, RootlessKit and the tests' tools, built from their Go modules once a version."""

from __future__ import annotations

import os
import re
import shutil
import tempfile
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from pathlib import Path

from scripts.set_up.go import Go
from scripts.set_up.step import ROOT, SetupError, cache_home, content_key, lock, run, step

_BUILDKIT = "github.com/moby/buildkit"
_LINKER_FLAGS = "-s -w"
_FLAGS = ("-trimpath", "-buildvcs=false", "-mod=readonly")


@dataclass(frozen=True, slots=True)
class Module:
    """A Go module of toolchain/, the place of its programs, the dependency that names it.

    ``duration`` is about how long building it takes on two cores, in words.
    """

    title: str
    path: Path
    destination: Path
    main: str
    duration: str = "a minute"
    tests_only: bool = False

    def go_mod(self) -> str:
        """The text of its go.mod."""
        return (self.path / "go.mod").read_text()

    def version(self) -> str:
        """The required version of the main dependency, such as ``v0.32.2``."""
        found = re.search(rf"^\s*{re.escape(self.main)} (v\S+)", self.go_mod(), re.MULTILINE)
        if found is None:
            raise SetupError(f"{self.path / 'go.mod'} does not require {self.main}")
        return found[1]

    def packages(self) -> tuple[str, ...]:
        """The import paths of its ``tool`` lines."""
        text = self.go_mod()
        block = re.search(r"^tool \((.*?)^\)", text, re.MULTILINE | re.DOTALL)
        if block:
            return tuple(block[1].split())
        return tuple(re.findall(r"^tool (\S+)", text, re.MULTILINE))

    def linker_flags(self) -> str:
        """Strip, and tell BuildKit its version as upstream's own builds do."""
        if self.main != _BUILDKIT:
            return _LINKER_FLAGS
        return f"{_LINKER_FLAGS} -X {_BUILDKIT}/version.Version={self.version()}"

    def go_line(self) -> tuple[int, ...]:
        """The lowest Go version that its go.mod allows."""
        found = re.search(r"^go (\d+(?:\.\d+)*)", self.go_mod(), re.MULTILINE)
        return tuple(map(int, found[1].split("."))) if found else (0,)


MODULES = (
    Module(
        "BuildKit, current", ROOT / "toolchain", ROOT / "bin", _BUILDKIT, duration="3 to 6 minutes"
    ),
    Module(
        "BuildKit, older",
        ROOT / "toolchain/compat",
        ROOT / "bin/compat",
        _BUILDKIT,
        duration="3 to 6 minutes",
        tests_only=True,
    ),
    Module(
        "Test tools",
        ROOT / "toolchain/tools",
        ROOT / "bin",
        "github.com/google/go-containerregistry",
        duration="2 to 4 minutes",
        tests_only=True,
    ),
    # PyPI has no wheel of it: its source package downloads a program while it is installed.
    Module(
        "Linter of workflows",
        ROOT / "toolchain/lint",
        ROOT / "bin",
        "github.com/rhysd/actionlint",
        duration="half a minute",
        tests_only=True,
    ),
)


def needed(*, tests: bool) -> tuple[Module, ...]:
    """The modules that a build needs, or with ``tests`` those of the tests as well."""
    return tuple(module for module in MODULES if tests or not module.tests_only)


def lowest_go(modules: Iterable[Module] = MODULES) -> tuple[int, ...]:
    """The lowest Go version that builds every one of ``modules``."""
    return max(module.go_line() for module in modules)


def _environment(go: Go, environ: Mapping[str, str]) -> dict[str, str]:
    return {
        **environ,
        "PATH": f"{go.path.parent}:{environ.get('PATH', os.defpath)}",
        "CGO_ENABLED": "0",
        "GOTOOLCHAIN": "local",
        "GOWORK": "off",
    }


def _programs(directory: Path, module: Module) -> tuple[Path, ...]:
    return tuple(directory / package.rpartition("/")[2] for package in module.packages())


def _build(go: Go, module: Module, target: Path) -> None:
    work = Path(tempfile.mkdtemp(prefix=".making-", dir=target.parent))
    try:
        run(
            [
                go.path,
                "build",
                *_FLAGS,
                "-ldflags",
                module.linker_flags(),
                "-o",
                f"{work}/",
                *module.packages(),
            ],
            cwd=module.path,
            env=_environment(go, os.environ),
        )
        absent = [path.name for path in _programs(work, module) if not path.is_file()]
        if absent:
            raise SetupError(f"go build made no {', '.join(absent)}")
        for program in _programs(work, module):
            program.chmod(0o755)
        work.chmod(0o755)
        work.rename(target)
    finally:
        shutil.rmtree(work, ignore_errors=True)


def _is_same(left: Path, right: Path) -> bool:
    try:
        one, other = left.stat(), right.stat()
    except FileNotFoundError:
        return False
    return (one.st_dev, one.st_ino) == (other.st_dev, other.st_ino) or (
        one.st_size,
        one.st_mtime_ns,
    ) == (other.st_size, other.st_mtime_ns)


def place(source: Path, target: Path) -> None:
    """Put a program at ``target``: a hard link, or a copy where no link can be made."""
    if _is_same(source, target):
        return
    target.parent.mkdir(mode=0o755, parents=True, exist_ok=True)
    work = target.with_name(f".{target.name}.{os.getpid()}")
    work.unlink(missing_ok=True)
    try:
        work.hardlink_to(source)
    except OSError:
        shutil.copy2(source, work)
    work.replace(target)


def install(go: Go, modules: Iterable[Module]) -> None:
    """Fill bin/ with the programs of ``modules``, building those not built before."""
    for module in modules:
        with step(f"{module.title} {module.version()}") as current:
            key = content_key(
                module.path / "go.mod",
                module.path / "go.sum",
                module.linker_flags(),
                " ".join(_FLAGS),
                go.version,
            )
            target = cache_home() / "toolchain" / f"{module.version()}-{key}"
            current.outcome = "there"
            if not target.is_dir():
                current.begin(f"building it, about {module.duration} the first time")
                with lock(target.with_name(f".{target.name}.lock")):
                    if not target.is_dir():
                        _build(go, module, target)
                        current.outcome = "built"
            for program in _programs(target, module):
                place(program, module.destination / program.name)
