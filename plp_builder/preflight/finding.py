"""What a check found, and how paths and system errors are told."""

from __future__ import annotations

import errno
import os
import stat
from typing import TYPE_CHECKING

from plp_builder.tuples import NamedTuple

if TYPE_CHECKING:
    from typing import BinaryIO


class Finding(NamedTuple):
    """One line of the doctor's table.

    ``ok`` is True when all is well, None for a warning that does not stop a build, and
    False for what surely does. ``hint`` is the next step, empty when there is none.
    """

    name: str
    ok: bool | None
    text: str
    hint: str = ""


def show(path: str | os.PathLike[str]) -> str:
    """A path as text that is safe to print: control characters and stray bytes escaped."""
    text = os.fspath(path)
    return text if text.isprintable() else ascii(text)[1:-1]


def reason(error: OSError) -> str:
    """What the system says, in lower case and without the error number."""
    text = error.strerror or type(error).__name__
    return text[:1].lower() + text[1:]


def open_regular(path: str | os.PathLike[str], *, follow: bool = True) -> BinaryIO:
    """Open a regular file to read it; never waits, as opening a FIFO would.

    Raises OSError, with ENXIO for everything that is no regular file; without ``follow``
    also with ELOOP for a link.
    """
    nofollow = 0 if follow else os.O_NOFOLLOW
    descriptor = os.open(path, os.O_RDONLY | os.O_NONBLOCK | os.O_CLOEXEC | nofollow)
    if not stat.S_ISREG(os.fstat(descriptor).st_mode):
        os.close(descriptor)
        raise OSError(errno.ENXIO, "Not a regular file", os.fspath(path))
    return os.fdopen(descriptor, "rb")
