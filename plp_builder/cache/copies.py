"""The copies of a build's directories that a kept daemon has, as far as they can be trusted."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path

from plp_builder.cache import context
from plp_builder.cache.context_store import Known, Made


class Copies:
    """Looked at before the first solve that reads ``directories``, noted after the last one.

    ``record`` is the file that remembers them, next to the daemon's root; ``warm`` whether the
    daemon has any; ``own`` are paths that the builder itself writes, maybe within a directory.
    ``doubt`` says why the daemon has to forget them first, "" if it need not; ``unchanged`` is
    whether the directories are what they were when the last build began, and ``made`` the image
    that it made of them, if no solve is needed to know it.
    """

    def __init__(
        self, record: Path, directories: Mapping[str, Path], own: Sequence[Path], *, warm: bool
    ) -> None:
        """Look. Raises OSError."""
        self._record = record
        self._directories = directories
        self._own = own
        self._before = context.take(directories, own)
        known = context.read(record) if warm else Known({})
        self.doubt = self._before.doubt(known)
        self._known = None if self.doubt else known
        self.unchanged = not self.doubt and self._before.is_last(known)
        self.made = known.made if known and self.unchanged else None
        self._began: int | None = None

    def begin(self) -> None:
        """A solve is to begin: until `note` nothing is remembered. Raises OSError."""
        self._record.unlink(missing_ok=True)
        self._began = context.clock()

    def note(self, made: Made | None = None) -> None:
        """Remember what the daemon may have copied, and what was ``made``. Never raises OSError.

        Without a solve all is as it was.
        """
        if self._began is None:
            return
        after = context.take(self._directories, self._own)
        if learned := context.learn(self._known, self._before, after, self._began, made):
            learned.write(self._record)
