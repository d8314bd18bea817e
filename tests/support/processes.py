"""Seeing the processes that a builder leaves behind."""

from __future__ import annotations

import contextlib
import ctypes
import os
import time
from collections.abc import Callable, Iterable
from dataclasses import dataclass
from pathlib import Path
from typing import TypeVar

Found = TypeVar("Found")

_PR_SET_CHILD_SUBREAPER = 36

own: set[int] = set()
"""The pids that the tests themselves started and still need: never a build's leftovers."""


@dataclass(frozen=True, slots=True)
class Process:
    """A process as /proc shows it."""

    pid: int
    parent: int
    state: str
    command: str


def adopt_orphans() -> None:
    """Let processes whose parent ended become children of this one, so that they are found."""
    libc = ctypes.CDLL(None, use_errno=True)
    if libc.prctl(_PR_SET_CHILD_SUBREAPER, 1, 0, 0, 0):
        raise OSError(ctypes.get_errno(), "prctl(PR_SET_CHILD_SUBREAPER)")


def _read(pid: int) -> Process | None:
    try:
        # The name in parentheses may itself hold spaces and parentheses.
        name, _, rest = Path(f"/proc/{pid}/stat").read_text(errors="replace").rpartition(") ")
        line = Path(f"/proc/{pid}/cmdline").read_text(errors="replace").replace("\0", " ")
    except (FileNotFoundError, ProcessLookupError):
        return None
    state, parent = rest.split()[:2]
    return Process(pid, int(parent), state, line.strip() or name.partition("(")[2])


def processes() -> dict[int, Process]:
    """All processes of this machine that this process can see, by pid."""
    found = (_read(int(path.name)) for path in Path("/proc").iterdir() if path.name.isdigit())
    return {process.pid: process for process in found if process is not None}


def below(ancestors: Iterable[int]) -> dict[int, Process]:
    """The living processes among ``ancestors`` and all that descend from them."""
    known = processes()
    wanted = set(ancestors)
    grown = True
    while grown:
        more = {pid for pid, process in known.items() if process.parent in wanted}
        grown = not more <= wanted
        wanted |= more
    return {pid: known[pid] for pid in wanted if pid in known and known[pid].state != "Z"}


def children() -> set[int]:
    """The pids of this process's own children, adopted ones among them."""
    own = os.getpid()
    return {process.pid for process in processes().values() if process.parent == own}


def marked(marker: str) -> dict[int, Process]:
    """The living processes whose environment holds the text ``marker``."""
    wanted = marker.encode()
    found = {}
    for pid, process in processes().items():
        with contextlib.suppress(OSError):
            if wanted in Path(f"/proc/{pid}/environ").read_bytes() and process.state != "Z":
                found[pid] = process
    return found


def reap(pids: Iterable[int]) -> None:
    """Take the exit status of adopted children that have ended."""
    for pid in pids:
        with contextlib.suppress(ChildProcessError):
            os.waitpid(pid, os.WNOHANG)


def until(look: Callable[[], Found], seconds: float = 10.0) -> Found:
    """What ``look`` returned when it was first true, or last after ``seconds``."""
    deadline = time.monotonic() + seconds
    while not (found := look()) and time.monotonic() < deadline:
        time.sleep(0.02)
    return found


def mounts_below(directory: Path) -> list[str]:
    """The mount points at or under a directory, as this process sees them."""
    table = Path("/proc/self/mountinfo").read_text().splitlines()
    points = [line.split()[4] for line in table]
    return [point for point in points if Path(point).is_relative_to(directory)]
