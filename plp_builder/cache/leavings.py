"""What a killed daemon leaves in its root that no later one removes.

Parts of blobs (as large as layers), and what runc was given for a step. All else that a kill leaves
is in the daemon's books, where its bound holds.

The tree is the daemon's user's, who may have put links into it: none is followed.
"""

from __future__ import annotations

import os
from contextlib import suppress
from pathlib import Path

from plp_builder.cache.files import open_below

_INGEST = "content", "ingest"
_EXECUTOR = ("executor",)
_DIRECTORY = os.O_RDONLY | os.O_DIRECTORY | os.O_NOFOLLOW | os.O_CLOEXEC
_OF_ALL_STEPS = frozenset({"resolv.conf", "runc-log.json"})


def remove_leavings(root: Path) -> None:
    """Remove them, while no daemon is at work in ``root``. Never raises."""
    try:
        workers = os.listdir(root)  # noqa: PTH208 - names are all that is wanted
    except OSError:
        return
    for worker in workers:
        for names in (_INGEST, _EXECUTOR):
            with suppress(OSError):
                _empty(open_below(root, worker, *names), depth=2)


def _empty(place: int, depth: int) -> None:
    """Remove what lies in an open directory, and close it; what lies deeper stays."""
    try:
        for name in os.listdir(place):
            if name in _OF_ALL_STEPS:
                continue
            with suppress(OSError):
                try:
                    os.unlink(name, dir_fd=place)
                except IsADirectoryError:
                    if depth > 1:
                        _empty(os.open(name, _DIRECTORY, dir_fd=place), depth - 1)
                    os.rmdir(name, dir_fd=place)
    finally:
        os.close(place)
