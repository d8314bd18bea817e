"""What the portable cache keeps when it has grown beyond its bound."""

from __future__ import annotations

import os
from collections.abc import Callable
from contextlib import suppress
from pathlib import Path

from plp_builder.cache import index
from plp_builder.cache.files import open_below
from plp_builder.errors import ArchiveInvalid
from plp_builder.oci import layout
from plp_builder.oci.model import Descriptor
from plp_builder.tuples import NamedTuple

MAX_ENTRIES = 64


class Plan(NamedTuple):
    """The entries to keep with the names of all their blobs, and what was found damaged."""

    entries: tuple[Descriptor, ...]
    blobs: frozenset[str]
    damage: tuple[str, ...] = ()
    dropped: tuple[Descriptor, ...] = ()


def plan(
    directory: Path,
    entries: tuple[Descriptor, ...],
    max_size: int,
    *,
    check: Callable[[], None],
) -> Plan:
    """Keep the newest ``entries`` (the last ones) whose blobs fit ``max_size`` bytes together.

    A blob that several share counts once. One that does not fit by itself is dropped alone:
    it would only push out all others. Entries whose blobs are not all there are dropped too.
    """
    kept: list[Descriptor] = []
    dropped: list[Descriptor] = []
    sizes: dict[str, int] = {}
    damage: list[str] = []
    full = False
    for entry in reversed(entries):
        check()
        try:
            own = _sizes(directory, entry)
        except ArchiveInvalid as error:
            damage.append(error.what)
            continue
        full = full or len(kept) == MAX_ENTRIES
        if not full and sum(own.values()) <= max_size:
            together = sizes | own
            full = sum(together.values()) > max_size
            if not full:
                kept.append(entry)
                sizes = together
                continue
        dropped.append(entry)
    kept.reverse()
    return Plan(tuple(kept), frozenset(sizes), tuple(damage), tuple(dropped))


def disk_usage(directory: Path) -> int:
    """The bytes of all blobs that lie in the layout, needed or not."""
    with os.scandir(directory / layout.BLOBS) as blobs:
        return sum(blob.stat(follow_symlinks=False).st_size for blob in blobs)


def remove_others(directory: Path, blobs: frozenset[str]) -> None:
    """Delete every blob but these. Only right while no other build can add any.

    Never through a link, which may have come since the cache was looked at. Raises OSError.
    """
    place = open_below(directory, *layout.BLOBS.parts)
    try:
        for name in os.listdir(place):  # noqa: PTH208 - a descriptor, not a path
            if name not in blobs:
                with suppress(OSError):
                    os.unlink(name, dir_fd=place)
    finally:
        os.close(place)


def newest_last(entries: tuple[Descriptor, ...], own: Descriptor) -> tuple[Descriptor, ...]:
    """``entries`` with ``own`` in place of the one of its tag, as the newest."""
    others = (entry for entry in entries if index.tag_of(entry) != index.tag_of(own))
    return (*others, own)


def _sizes(directory: Path, entry: Descriptor) -> dict[str, int]:
    sizes: dict[str, int] = {}
    for node in layout.reachable(directory, entry):
        layout.blob_status(directory, node.descriptor)
        sizes[node.descriptor.digest.encoded] = node.descriptor.size
    return sizes
