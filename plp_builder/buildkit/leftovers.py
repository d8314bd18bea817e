"""Processes that build steps leave behind, found and ended.

With the process sandbox, or under a PID namespace of the daemon's, the kernel does this. Only
without the process sandbox can a step's background process live on: it keeps the step's output
open, so that runc never returns and the build hangs, and it outlives the daemon. Such orphans
come to us, because we make ourselves the subreaper (PR_SET_CHILD_SUBREAPER, prctl(2)).
"""

from __future__ import annotations

import json
import os
import signal
import time
from collections.abc import Iterator, Mapping
from contextlib import suppress
from pathlib import Path

_PR_SET_CHILD_SUBREAPER = 36
_STATE_LIMIT = 1 << 20
_ROUNDS = 200
_PAUSE = 0.01
"""Seconds between rounds. Ending one process hands its children to us, so the search is
repeated until it is empty, or until 2 s are over because one hangs in the kernel."""


def adopt_orphans() -> None:
    """Make this process the parent of every orphan below it. Raises OSError."""
    import ctypes

    libc = ctypes.CDLL(None, use_errno=True)
    if libc.prctl(_PR_SET_CHILD_SUBREAPER, 1, 0, 0, 0) != 0:
        raise OSError(ctypes.get_errno(), "prctl(PR_SET_CHILD_SUBREAPER)")


def parents(proc: Path = Path("/proc"), *, ended: bool = False) -> dict[int, int]:
    """Parent of each process that is there, from /proc/PID/stat; zombies only with ``ended``.

    A process whose first thread has ended is a zombie there while its other threads still end
    (a Go program that got SIGKILL), and its children are not yet anybody else's.
    """
    found = {}
    for entry in os.listdir(proc):
        if entry.isdigit():
            try:
                text = (proc / entry / "stat").read_text("utf-8", "replace")
            except OSError:
                continue
            state, parent = text[text.rindex(")") + 2 :].split(" ", 2)[:2]
            if ended or state not in "ZX":
                found[int(entry)] = int(parent)
    return found


def descendants(ancestor: int, tree: Mapping[int, int]) -> set[int]:
    """Every process below ``ancestor``."""
    found: set[int] = set()
    fresh = {ancestor}
    while fresh:
        fresh = {pid for pid, parent in tree.items() if parent in fresh} - found
        found |= fresh
    return found


def hanging(runc_state: Path, tree: Mapping[int, int]) -> set[int]:
    """What still runs of steps whose own process has ended.

    ``runc_state`` is runc's state directory (``$XDG_RUNTIME_DIR/runc``): each running
    container has a ``state.json`` there that names its first process.
    """
    orphans: set[int] = set()
    for first, supervisor in _containers(runc_state, tree):
        if first not in tree:
            orphans |= descendants(supervisor, tree)
    return orphans


def _containers(runc_state: Path, tree: Mapping[int, int]) -> Iterator[tuple[int, int]]:
    """First process and supervising ``runc run`` of each container."""
    try:
        names = os.listdir(runc_state)
    except OSError:
        return
    supervisors = {name: pid for pid in tree for name in [_container_of(pid)] if name}
    for name in names:
        try:
            state = json.loads(_read(runc_state / name / "state.json"))
            first = state["init_process_pid"]
        except (OSError, ValueError, TypeError, KeyError):
            continue
        if isinstance(first, int) and name in supervisors:
            yield first, supervisors[name]


def _read(path: Path) -> bytes:
    """The file's beginning; it lies where the daemon's user could put a link or a pipe."""
    descriptor = os.open(path, os.O_RDONLY | os.O_NOFOLLOW | os.O_NONBLOCK | os.O_CLOEXEC)
    try:
        return os.read(descriptor, _STATE_LIMIT)
    finally:
        os.close(descriptor)


def _container_of(pid: int) -> str:
    """The container that ``runc … run … ID`` supervises, "" for any other process."""
    try:
        arguments = Path(f"/proc/{pid}/cmdline").read_bytes().split(b"\0")[:-1]
    except OSError:
        return ""
    if arguments and b"runc" in os.path.basename(arguments[0]) and b"run" in arguments[1:]:
        return os.fsdecode(arguments[-1])
    return ""


def kill(pids: set[int]) -> None:
    """SIGKILL to each.

    Those of subordinate users, too: who made a user namespace has every capability in it
    (user_namespaces(7)).
    """
    for pid in pids:
        with suppress(ProcessLookupError, PermissionError):
            os.kill(pid, signal.SIGKILL)


def end_all() -> int:
    """End whatever lives below us and reap it; how many there were."""
    ended: set[int] = set()
    for _ in range(_ROUNDS):
        alive = descendants(os.getpid(), parents(ended=True))
        if not alive:
            break
        kill(alive)
        ended |= alive
        time.sleep(_PAUSE)
        reap(alive)
    return len(ended)


def reap(pids: set[int]) -> None:
    """Collect those of ``pids`` that are our own children and have ended."""
    for pid in pids:
        try:
            os.waitpid(pid, os.WNOHANG)
        except ChildProcessError:
            continue
