"""Small files that a user names: whole, and without waiting for what is none."""

from __future__ import annotations

import os
import stat
from pathlib import Path


class NotReadable(Exception):
    """Why a file cannot be used, as what follows its name; ``missing`` if it is not there."""

    def __init__(self, reason: str, *, missing: bool = False) -> None:
        super().__init__(reason)
        self.missing = missing


def read(path: Path, limit: int) -> bytes:
    """The content of a regular file of at most ``limit`` bytes. Raises NotReadable."""
    try:
        # A FIFO would wait for its writer, a device never end.
        number = os.open(path, os.O_RDONLY | os.O_NONBLOCK | os.O_CLOEXEC)
        with open(number, "rb") as file:  # noqa: PTH123 - a descriptor, not a path
            if not stat.S_ISREG(os.fstat(number).st_mode):
                raise NotReadable("is no regular file")
            content = file.read(limit + 1)
    except OSError as error:
        raise not_readable(error) from None
    if len(content) > limit:
        raise NotReadable(f"is larger than {limit >> 20} MiB")
    return content


def not_readable(error: OSError) -> NotReadable:
    """What the system says, as NotReadable."""
    missing = isinstance(error, FileNotFoundError)
    return NotReadable(f"cannot be read: {error.strerror}", missing=missing)
