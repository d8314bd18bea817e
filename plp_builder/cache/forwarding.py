"""Blobs that an export brings into one layout are in another one at once, by hard links.

BuildKit exports the image, and right after it the cache, to which it sends no blob that is there.
From the moment when the image's last layer has got its name to the first look for one of the cache
it takes some 10 ms (seen with 0.32.2). What comes too late is sent, nothing more.
"""

from __future__ import annotations

import os
from contextlib import suppress
from pathlib import Path
from threading import Event, Thread

from plp_builder.oci import layout

_INGEST = "ingest"
"""Where containerd's content store, which buildctl writes with, has what is not yet whole."""

_IDLE = 0.02
_AT_WORK = 0.002
"""Seconds between two looks, while nothing is written and while something is."""


class Forwarding:
    """Watches the layout ``source`` in a thread of its own until `end`, which must be called.

    Only what comes meanwhile is put into ``target``: that the daemon has just sent it shows that it
    has not lost it.
    """

    def __init__(self, source: Path, target: Path) -> None:
        self._source = source / layout.BLOBS
        self._ingest = source / _INGEST
        self._target = target / layout.BLOBS
        self._linked: set[str] = set()
        self._over = Event()
        self._thread: Thread | None = None
        # No directory yet, or no further thread: everything is sent.
        with suppress(OSError, RuntimeError):
            self._seen = set(os.listdir(self._source))  # noqa: PTH208 - names are wanted
            thread = Thread(target=self._run, name="forwarding", daemon=True)
            thread.start()
            self._thread = thread

    def end(self) -> frozenset[str]:
        """The names of all blobs that were put there; may be called again."""
        self._over.set()
        if self._thread:
            self._thread.join()
        return frozenset(self._linked)

    def _run(self) -> None:
        # Where no links can be made, none is tried again.
        with suppress(OSError):
            while not self._over.wait(_AT_WORK if self._is_at_work() else _IDLE):
                self._look()

    def _is_at_work(self) -> bool:
        with suppress(OSError):
            return bool(os.listdir(self._ingest))  # noqa: PTH208 - names are wanted
        return False

    def _look(self) -> None:
        """Put there what is new."""
        new = set(os.listdir(self._source)) - self._seen  # noqa: PTH208 - names are wanted
        for name in new:
            self._seen.add(name)
            with suppress(FileExistsError):
                os.link(self._source / name, self._target / name)
                self._linked.add(name)
