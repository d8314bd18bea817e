"""The images built last, in the layout beside the daemon's state.

BuildKit exports into it (``type=oci,tar=false``) and sends no blob that is there already, so it
holds what the last images need, and nothing else.
"""

from __future__ import annotations

import errno
import os
from collections.abc import Callable
from contextlib import suppress
from pathlib import Path

from plp_builder.cache import index, pruning
from plp_builder.cache.files import remove
from plp_builder.cache.verification import RECORD, Record
from plp_builder.errors import ArchiveInvalid
from plp_builder.oci import layout
from plp_builder.oci.archive import REF_NAME
from plp_builder.oci.model import Descriptor

LAST = 8
"""Images that are kept: a return to one of them, as after `git switch`, sends nothing."""

_KEY = "plp.asked-for"
_INGEST = "ingest"
_SHARE = 4
"""The part of a cache's bound that older images may take, as a divisor."""


def built(directory: Path) -> Descriptor:
    """The image that a solve has exported into a layout, as BuildKit describes it.

    Raises ArchiveInvalid, OSError.
    """
    entries = index.read(directory).entries
    if not entries:
        raise ArchiveInvalid("BuildKit has left no image in the layout that it exports to")
    return entries[-1]


class Images:
    """The layout of one build, from before the solve until the archive is in its place."""

    def __init__(self, directory: Path) -> None:
        self.directory = directory
        self._before: tuple[Descriptor, ...] = ()
        self.key = ""

    def begin(self, key: str) -> None:
        """Take away the index, so that what the solve writes there is its image. Raises OSError.

        With it goes what killed solves had begun to write. ``key`` tells what the solve asks for.
        """
        self.key = key
        index.mark(self.directory)
        blobs = self.directory / layout.BLOBS
        blobs.mkdir(parents=True, exist_ok=True)
        if not os.access(blobs, os.R_OK | os.W_OK | os.X_OK):
            # BuildKit would fail there, which is no reason for a build to fail.
            raise PermissionError(errno.EACCES, os.strerror(errno.EACCES), str(blobs))
        remove(self.directory / _INGEST)
        self._before = self._before or index.read(self.directory).entries
        with suppress(FileNotFoundError):
            (self.directory / layout.INDEX).unlink()

    @property
    def last(self) -> Descriptor | None:
        """The image built last, as BuildKit described it, if its solve was asked for the same."""
        last = self._before[-1] if self._before else None
        if last is None or last.annotations.get(_KEY) != self.key:
            return None
        annotations = {key: value for key, value in last.annotations.items() if key != _KEY}
        return last._replace(annotations=annotations)

    def doubt(self) -> None:
        """Have every blob read again: some came from a cache that has turned out damaged."""
        remove(self.directory / RECORD)

    def keep(self, top: Descriptor, bound: int, check: Callable[[], None]) -> int:
        """Keep ``top`` and the images before it as far as they fit; the bytes of all their blobs.

        ``bound`` is the whole cache's. Raises OSError, ArchiveInvalid.
        """
        own_names = {REF_NAME: top.digest.encoded, _KEY: self.key}
        tagged = top._replace(annotations={**top.annotations, **own_names})
        entries = pruning.newest_last(self._before, tagged)[-LAST:]
        own = {
            node.descriptor.digest: node.descriptor
            for node in layout.reachable(self.directory, top)
        }
        size = sum(descriptor.size for descriptor in own.values())
        plan = pruning.plan(self.directory, entries, max(bound // _SHARE, size), check=check)
        index.write(self.directory, plan.entries)
        pruning.remove_others(self.directory, plan.blobs)
        record = Record.read(self.directory)
        record.keep_only(plan.blobs)
        record.write(self.directory)
        return pruning.disk_usage(self.directory)
