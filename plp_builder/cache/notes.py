"""Small notes between builds: files of a few lines, one value each.

Read before the daemon starts, which is why they are no JSON.
"""

from __future__ import annotations

import os
import stat
from pathlib import Path

_LONGEST = 64 * 1024
"""Bytes."""
_READ = os.O_RDONLY | os.O_NONBLOCK | os.O_NOFOLLOW | os.O_CLOEXEC


def read(path: Path, lines: int) -> tuple[str, ...]:
    """The lines of a note; as many empty ones for what is none of so many lines.

    Raises OSError where it cannot be read.
    """
    nothing = ("",) * lines
    descriptor = os.open(path, _READ)
    with open(descriptor, "rb") as file:  # noqa: PTH123 - a descriptor, not a path
        if not stat.S_ISREG(os.fstat(descriptor).st_mode):
            return nothing
        data = file.read(_LONGEST + 1)
    try:
        found = tuple(data.decode("ascii").split("\n"))
    except UnicodeDecodeError:
        return nothing
    return found[:-1] if len(found) == lines + 1 and not found[-1] else nothing


def line(value: object) -> str:
    """``value`` as it is read again, in characters of ASCII and without a line's end."""
    return ascii(str(value))[1:-1]


def text(*values: object) -> bytes:
    """A note of these values."""
    return "".join(f"{line(value)}\n" for value in values).encode()
