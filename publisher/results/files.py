"""Writing what other programs read: a file as a whole, or lines behind what is there."""

from __future__ import annotations

import os
import stat
from contextlib import suppress
from pathlib import Path

MODE = 0o644


def put(path: Path, text: str) -> None:
    """Let ``path`` hold ``text``: an ordinary file whole or not at all. Raises OSError.

    What is there already and cannot be replaced (a device, a pipe, a link, a file that is a mount
    of its own, as Kubernetes' termination log) is written to as it is.
    """
    try:
        there = path.lstat()
    except FileNotFoundError:
        there = None
    if there is not None and not stat.S_ISREG(there.st_mode):
        _write(path, text, os.O_TRUNC)
        return
    try:
        _replace(path, text)
    except OSError:
        if there is None:
            raise
        _write(path, text, os.O_TRUNC)


def append(path: Path, text: str) -> None:
    """Write ``text`` behind what ``path`` holds; it is made if missing. Raises OSError."""
    _write(path, text, os.O_APPEND | os.O_CREAT)


def remove(path: Path) -> None:
    """Take an ordinary file away, so that nobody reads an older run's. Raises OSError."""
    with suppress(FileNotFoundError):
        if stat.S_ISREG(path.lstat().st_mode):
            path.unlink()


def _replace(path: Path, text: str) -> None:
    temporary = path.parent / f".{path.name[:100]}.{os.urandom(8).hex()}"
    descriptor = os.open(temporary, os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_NOFOLLOW, 0o600)
    try:
        with open(descriptor, "w", encoding="utf-8") as file:  # noqa: PTH123 - a descriptor
            file.write(text)
            file.flush()
            os.fchmod(descriptor, MODE)
            os.fsync(descriptor)
        temporary.replace(path)
    except BaseException:
        with suppress(OSError):
            temporary.unlink()
        raise


def _write(path: Path, text: str, flags: int) -> None:
    # A pipe that nobody reads must not hold the run up.
    flags |= os.O_WRONLY | os.O_NONBLOCK | os.O_NOCTTY | os.O_CLOEXEC
    descriptor = os.open(path, flags, MODE)
    with open(descriptor, "w", encoding="utf-8") as file:  # noqa: PTH123 - a descriptor
        file.write(text)
