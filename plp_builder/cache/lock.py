"""A lock between builds that share a directory, waited for with patience but not for ever."""

from __future__ import annotations

import errno
import fcntl
import os
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from pathlib import Path

PATIENCE = 60.0
QUIET = 2.0

_FLAGS = os.O_NOFOLLOW | os.O_CLOEXEC
_READ_ONLY = {errno.EACCES, errno.EPERM, errno.EROFS}
_FIRST_PAUSE = 0.005
_LONGEST_PAUSE = 0.1


class LockNotFreeError(Exception):
    """Another process held the lock for longer than the patience."""


@contextmanager
def locked(
    path: Path,
    *,
    exclusive: bool,
    check: Callable[[], None],
    waiting: Callable[[], None],
    patience: float = PATIENCE,
) -> Iterator[None]:
    """Hold the lock file ``path``, shared or exclusive, within the context.

    ``check`` is called while waiting and may raise; ``waiting`` once after `QUIET` seconds.
    A lock file that can only be read will do: flock(2) asks for no more.
    Raises LockNotFreeError after ``patience`` seconds, OSError where there can be no lock file.
    """
    descriptor = _open(path)
    try:
        _wait(descriptor, fcntl.LOCK_EX if exclusive else fcntl.LOCK_SH, check, waiting, patience)
        yield
    finally:
        os.close(descriptor)


def try_lock(descriptor: int) -> bool:
    """Lock an open file or directory exclusively, at once or not at all."""
    with suppress(OSError):
        fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
        return True
    return False


def _open(path: Path) -> int:
    try:
        return os.open(path, os.O_RDWR | os.O_CREAT | _FLAGS, 0o666)
    except OSError as error:
        if error.errno not in _READ_ONLY:
            raise
    return os.open(path, os.O_RDONLY | os.O_NONBLOCK | _FLAGS)


def _wait(
    descriptor: int,
    kind: int,
    check: Callable[[], None],
    waiting: Callable[[], None],
    patience: float,
) -> None:
    begin = time.monotonic()
    pause = _FIRST_PAUSE
    told = False
    while True:
        with suppress(BlockingIOError):
            fcntl.flock(descriptor, kind | fcntl.LOCK_NB)
            return
        waited = time.monotonic() - begin
        if waited > patience:
            raise LockNotFreeError
        if waited > QUIET and not told:
            told = True
            waiting()
        check()
        time.sleep(pause)
        pause = min(2 * pause, _LONGEST_PAUSE)
