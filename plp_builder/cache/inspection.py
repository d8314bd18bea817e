"""Which entries of the portable cache this build can use, and what in it is damaged."""

from __future__ import annotations

import os
import stat
from collections.abc import Callable
from pathlib import Path

from plp_builder.cache import index
from plp_builder.cache.files import random_name, remove
from plp_builder.cache.verification import Record, verify
from plp_builder.errors import ArchiveInvalid
from plp_builder.oci import layout
from plp_builder.oci.layout import BlobDamaged
from plp_builder.oci.model import Descriptor
from plp_builder.tuples import NamedTuple

MAX_OTHERS = 3


class Inspection(NamedTuple):
    """What was found.

    ``imports`` are the usable entries, ``own`` whether this image's is among them, and ``needed``
    all blobs that they reach. ``damage`` has a line for each thing that is wrong; ``sound`` are
    the entries to keep then, and ``damaged_paths`` what has to be put aside.
    """

    imports: tuple[Descriptor, ...] = ()
    needed: tuple[Descriptor, ...] = ()
    damage: tuple[str, ...] = ()
    sound: tuple[Descriptor, ...] = ()
    damaged_paths: tuple[Path, ...] = ()
    own: bool = False


def inspect(directory: Path, tag: str, record: Record, *, check: Callable[[], None]) -> Inspection:
    """Look at the entry of ``tag``, or at the newest others where there is none yet.

    An own entry alone is enough: the others only help an image that was never built before,
    and each costs its verification and its import.
    """
    misplaced = [
        path
        for path in (directory / "blobs", directory / layout.BLOBS)
        if os.path.lexists(path) and not stat.S_ISDIR(path.lstat().st_mode)
    ]
    if misplaced:
        return Inspection(
            damage=tuple(f"{path.name} is not a directory" for path in misplaced),
            damaged_paths=(misplaced[0], directory / layout.INDEX),
        )
    found = index.read(directory)
    if found.problems:
        return Inspection(
            damage=found.problems,
            sound=found.entries,
            damaged_paths=(directory / layout.INDEX,),
        )
    own = [entry for entry in found.entries if index.tag_of(entry) == tag]
    chosen = own or list(reversed(found.entries))[:MAX_OTHERS]
    inspected = _inspect_entries(directory, found.entries, chosen, record, check)
    return inspected._replace(own=bool(own))


def put_aside(directory: Path, found: Inspection, aside: Path, *, first: bool) -> None:
    """Move what is damaged to the directory ``aside``, and keep the sound entries.

    Only the latest damage is kept there, so that it cannot grow. Raises OSError.
    """
    if first:
        remove(aside)
    for path in found.damaged_paths:
        if not os.path.lexists(path):
            continue
        try:
            aside.mkdir(parents=True, exist_ok=True)
            path.rename(aside / random_name(f"{path.name}."))
        except OSError:
            remove(path)
    index.write(directory, found.sound)


def _inspect_entries(
    directory: Path,
    entries: tuple[Descriptor, ...],
    chosen: list[Descriptor],
    record: Record,
    check: Callable[[], None],
) -> Inspection:
    needed: dict[str, Descriptor] = {}
    damage: list[str] = []
    paths: list[Path] = []
    dropped: set[str] = set()
    for entry in chosen:
        problems: list[ArchiveInvalid] = []
        try:
            reached = [node.descriptor for node in layout.reachable(directory, entry)]
            problems.extend(verify(directory, reached, record, check=check))
        except ArchiveInvalid as problem:
            problems.append(problem)
        else:
            needed.update((descriptor.digest, descriptor) for descriptor in reached)
        if problems:
            dropped.add(index.tag_of(entry))
            damage.extend(problem.what for problem in problems)
            paths.extend(
                layout.blob_path(directory, problem.digest)
                for problem in problems
                if isinstance(problem, BlobDamaged)
            )
    return Inspection(
        tuple(chosen),
        tuple(needed.values()),
        tuple(damage),
        tuple(entry for entry in entries if index.tag_of(entry) not in dropped),
        tuple(paths),
    )
