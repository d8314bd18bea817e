"""How large a daemon's state may have become, told by the free space of its disk.

The daemon itself knows better, but asking it takes a process, which is long beside a small build.
What others free meanwhile hides growth: so it is asked once in a while all the same, and it holds
to its bound by itself in builds that take minutes.
"""

from __future__ import annotations

import os
from contextlib import suppress
from pathlib import Path

from plp_builder.cache import notes

_BUILDS = 10
"""Builds after which the daemon is asked in any case."""
_MARGIN = 2
"""A state that may fill this part of its bound, as a divisor, is asked about in every build."""


class Growth:
    """From the beginning of a build; ``record`` is the file between builds, beside the state.

    Raises nothing.
    """

    def __init__(self, record: Path) -> None:
        self._record = record
        self._size, self._builds, self._free = -1, 0, -1

    def begin(self, *, empty: bool) -> None:
        """Before a daemon is at work; ``empty`` is whether its state begins with nothing.

        A build that is killed leaves no record: what it has made, nobody knows.
        """
        self._size, self._builds = (0, 0) if empty else _read(self._record)
        with suppress(OSError):
            self._record.unlink(missing_ok=True)
        self._free = _free(self._record.parent)

    def is_harmless(self, bound: int) -> bool:
        """Whether the state is surely well below ``bound`` bytes; False where that is not known."""
        if self._builds >= _BUILDS or self._size < 0 or self._free < 0:
            return False
        size = self._size + max(0, self._free - _free(self._record.parent))
        if size * _MARGIN >= bound:
            return False
        self._size, self._builds = size, self._builds + 1
        return True

    def measured(self, size: int) -> None:
        """The daemon has told the ``size`` of its state, in bytes."""
        self._size, self._builds = size, 0

    def keep(self) -> None:
        """Leave what is known to the next build."""
        if self._size < 0:
            return
        with suppress(OSError), self._record.open("xb") as file:
            file.write(notes.text(self._size, self._builds))


def _read(record: Path) -> tuple[int, int]:
    """Bytes and builds; -1 bytes for what is not known."""
    try:
        size, builds = map(int, notes.read(record, 2))
    except (OSError, ValueError):
        return -1, 0
    return size, builds


def _free(place: Path) -> int:
    try:
        found = os.statvfs(place)
    except OSError:
        return -1
    return found.f_bfree * found.f_frsize
