"""Writing what other programs read: a file as a whole, or lines behind what is there.

A write that fails leaves what was there before.
"""

from __future__ import annotations

import errno
import os
import stat
from contextlib import suppress
from pathlib import Path

MODE = 0o644
MAX_LINKS = 40
MAX_OLD = 1 << 20

_NOT_REPLACEABLE = frozenset({errno.EBUSY, errno.EACCES, errno.EPERM, errno.EROFS, errno.EXDEV})
"""What rename(2) says of a file that is a mount of its own, as Kubernetes' termination log and
what ``docker run -v`` has mounted, and open(2) in a directory that is not ours."""


def target(path: Path) -> Path | None:
    """The ordinary file, there or not, that ``path`` means, by whatever links. Raises OSError.

    None for everything else: a device, a pipe, a directory, and the file behind a descriptor
    (``/dev/stdout``), which whoever opened it goes on writing to.
    """
    for _ in range(MAX_LINKS):
        parent = os.path.realpath(path.parent)
        if (parent + "/").startswith("/proc/"):
            return None
        path = Path(parent, path.name)
        if not path.is_symlink():
            break
        path = Path(parent, path.readlink())
    else:
        raise OSError(errno.ELOOP, os.strerror(errno.ELOOP))
    with suppress(FileNotFoundError):
        return path if stat.S_ISREG(path.lstat().st_mode) else None
    return path


def put(path: Path, text: str) -> None:
    """Let ``path`` hold ``text``: an ordinary file whole or not at all. Raises OSError.

    A link stays one. What cannot be replaced is written to as it is, a device or a pipe as well as
    a file that is a mount of its own.
    """
    file = target(path)
    if file is None:
        append(path, text)
        return
    try:
        _replace(file, text)
    except OSError as error:
        if error.errno not in _NOT_REPLACEABLE or not file.exists():
            raise
        _write_over(file, text.encode())


def append(path: Path, text: str) -> None:
    """Write ``text`` behind what ``path`` holds; it is made if missing. Raises OSError."""
    # A pipe that nobody reads must not hold the run up.
    flags = os.O_WRONLY | os.O_APPEND | os.O_CREAT | os.O_NONBLOCK | os.O_NOCTTY | os.O_CLOEXEC
    descriptor = os.open(path, flags, MODE)
    try:
        before = os.fstat(descriptor)
        try:
            _write(descriptor, text.encode())
        except OSError:
            if stat.S_ISREG(before.st_mode):
                os.ftruncate(descriptor, before.st_size)
            raise
    finally:
        os.close(descriptor)


def remove(path: Path) -> None:
    """Take an ordinary file away, so that nobody reads an older run's. Raises OSError.

    One that cannot be taken away is emptied.
    """
    file = target(path)
    if file is None:
        return
    try:
        file.unlink(missing_ok=True)
    except OSError as error:
        if error.errno not in _NOT_REPLACEABLE:
            raise
        os.truncate(file, 0)


def _replace(path: Path, text: str) -> None:
    temporary = path.parent / f".{path.name[:50]}.{os.urandom(8).hex()}"
    descriptor = os.open(temporary, os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_NOFOLLOW, 0o600)
    try:
        try:
            _write(descriptor, text.encode())
            os.fchmod(descriptor, MODE)
            os.fsync(descriptor)
        finally:
            os.close(descriptor)
        temporary.replace(path)
    except BaseException:
        with suppress(OSError):
            temporary.unlink()
        raise


def _write_over(path: Path, data: bytes) -> None:
    """Let the very file hold ``data``; it never is empty in between, nor cut where it ends."""
    descriptor = os.open(path, os.O_RDWR | os.O_NOFOLLOW | os.O_CLOEXEC)
    try:
        old = os.pread(descriptor, MAX_OLD, 0)
        before = os.fstat(descriptor).st_size
        try:
            _write(descriptor, data)
            os.ftruncate(descriptor, len(data))
            os.fsync(descriptor)
        except OSError:
            with suppress(OSError):
                os.pwrite(descriptor, old, 0)
                os.ftruncate(descriptor, before)
            raise
    finally:
        os.close(descriptor)


def _write(descriptor: int, data: bytes) -> None:
    left = memoryview(data)
    while left:
        left = left[os.write(descriptor, left) :]
