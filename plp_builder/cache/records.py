"""Whether a daemon keeps records of builds that it has to be told to forget.

BuildKit records each build with all that its steps have printed, maybe a secret, and with its
build arguments. Having it forget takes a process, which is long beside a small build, and a record
in which nothing of the kind stands may wait for that of another build.
"""

from __future__ import annotations

from contextlib import suppress
from pathlib import Path

from plp_builder.cache import notes

MOST = 10
"""Records that may wait."""
_UNKNOWN = "?"
_LONGEST = 3


class Records:
    """From the beginning of a build; ``place`` is the file between builds, beside the state.

    As long as a build goes on it says that nothing is known, and so it does when that is killed.
    Raises nothing.
    """

    def __init__(self, place: Path) -> None:
        self._place = place
        self._waiting = MOST

    def begin(self, *, empty: bool) -> None:
        """Before a daemon is at work; ``empty`` is whether its state begins with nothing."""
        self._waiting = 0 if empty else self._read()
        self._write(_UNKNOWN)

    @property
    def due(self) -> bool:
        """Whether there are too many, or may be ones that cannot wait."""
        return self._waiting >= MOST

    def not_harmless(self) -> None:
        """In this build's record something may stand that must not wait."""
        self._waiting = MOST

    def forgotten(self) -> None:
        """The daemon has none any more."""
        self._waiting = -1

    def keep(self, *, more: bool = True) -> None:
        """The build has ended. If one ``more`` was made and not forgotten, nothing stands in it."""
        self._waiting += more
        self._write(str(self._waiting))

    def _read(self) -> int:
        try:
            (text,) = notes.read(self._place, 1)
        except FileNotFoundError:
            return 0
        except OSError:
            return MOST
        return int(text) if text.isdigit() and len(text) <= _LONGEST else MOST

    def _write(self, text: str) -> None:
        with suppress(OSError):
            self._place.write_bytes(notes.text(text))
