"""Small steps in a directory that several builds share."""

from __future__ import annotations

import os
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import BinaryIO

TEMPORARY = ".tmp-"

_DIRECTORY = os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC
_NEW = os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_CLOEXEC


def random_name(prefix: str) -> str:
    """A name that nobody else uses."""
    return prefix + os.urandom(8).hex()


def open_below(directory: Path, *names: str) -> int:
    """A descriptor of the directory below ``directory``, none of ``names`` being a link.

    Raises OSError.
    """
    descriptor = os.open(directory, _DIRECTORY)
    for name in names:
        above = descriptor
        try:
            descriptor = os.open(name, _DIRECTORY | os.O_NOFOLLOW, dir_fd=above)
        finally:
            os.close(above)
    return descriptor


@contextmanager
def replacing(path: Path, mode: int = 0o666) -> Iterator[BinaryIO]:
    """A file that takes the place of ``path`` in the end, or not at all if anything is raised.

    ``mode`` is subject to the umask. Nothing waits for the disk. Raises OSError.
    """
    temporary = path.with_name(random_name(TEMPORARY))
    try:
        with os.fdopen(os.open(temporary, _NEW, mode), "wb") as file:
            yield file
        temporary.replace(path)
    except BaseException:
        with suppress(OSError):
            temporary.unlink(missing_ok=True)
        raise


def replace_durably(path: Path, data: bytes) -> None:
    """Write ``path`` whole, or leave it as it was; it survives a power cut afterwards.

    Raises OSError.
    """
    with replacing(path) as file:
        file.write(data)
        file.flush()
        os.fsync(file.fileno())


def remove(path: Path) -> None:
    """Remove a file, a link or a whole directory, as far as that is possible."""
    if path.is_symlink() or not path.is_dir():
        with suppress(OSError):
            path.unlink()
        return
    for parent, directories, files in os.walk(path, topdown=False):
        for name in (*files, *directories):
            child = Path(parent, name)
            with suppress(OSError):
                if child.is_symlink() or name in files:
                    child.unlink()
                else:
                    child.rmdir()
    with suppress(OSError):
        path.rmdir()
