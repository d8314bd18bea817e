"""Blobs that an export brings into one layout are in another one at once, by hard links.

BuildKit exports the image, and right after it the cache, to which it sends no blob that is there.
From the moment when the image's last blob has got its name to the first look for one of the cache
it takes some 10 ms (seen with 0.21.1 and 0.32.2). What comes too late is sent, nothing more.
"""

from __future__ import annotations

import os
from contextlib import suppress
from pathlib import Path
from threading import Event, Thread

from plp_builder.oci import layout

_BEFORE = 0.02
_MEANWHILE = 0.002
"""Seconds between two looks, before the first blob and from then on."""


class Forwarding:
    """Watches the layout ``source`` in a thread of its own until `end`, which must be called.

    Blobs that are in it already are not put into ``target``.
    """

    def __init__(self, source: Path, target: Path) -> None:
        self._source = source / layout.BLOBS
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
        pause = _BEFORE
        # Where no links can be made, none is tried again.
        with suppress(OSError):
            while not self._over.wait(pause):
                if self._look():
                    pause = _MEANWHILE

    def _look(self) -> bool:
        """Put there what is new; whether anything is."""
        new = set(os.listdir(self._source)) - self._seen  # noqa: PTH208 - names are wanted
        for name in new:
            self._seen.add(name)
            with suppress(FileExistsError):
                os.link(self._source / name, self._target / name)
                self._linked.add(name)
        return bool(new)
