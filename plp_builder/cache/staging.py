"""A build's own view of the portable cache, and the way back into it.

A build never lets BuildKit write into the layout itself. It gets a staging directory of its
own with hard links to the blobs that it may import, so that no other build's pruning can
disturb it. The image is exported into it first, then the cache, and what is there already is not
sent. What the build adds is merged under a lock (`merging`). Whatever goes wrong here costs a
warning and time, never the build.
"""

from __future__ import annotations

import errno
import os
from collections.abc import Callable, Iterable, Sequence
from contextlib import AbstractContextManager, suppress
from pathlib import Path

from plp_builder.cache.files import TEMPORARY, random_name, remove
from plp_builder.cache.inspection import Inspection, inspect, put_aside
from plp_builder.cache.lock import LockNotFreeError, locked, try_lock
from plp_builder.cache.verification import Record
from plp_builder.errors import ArchiveInvalid, CacheDamaged, CacheNotUsable, Failure
from plp_builder.oci import layout
from plp_builder.oci.copying import copy
from plp_builder.oci.model import Descriptor, Digest
from plp_builder.tuples import NamedTuple

LAYOUT = "buildkit"
DAMAGED = "damaged"

PREFIX = ".staging-"
"""Of the names of staging directories."""

_LOCK = ".lock"
_DIRECTORY = os.O_RDONLY | os.O_DIRECTORY | os.O_NOFOLLOW | os.O_CLOEXEC
_MAX_DAMAGE = 10_000
_MAX_DAMAGE_LINES = 5

Check = Callable[[], None]
Warn = Callable[[Failure], None]


class Import(NamedTuple):
    """An entry for BuildKit to import: a layout directory and a digest in it."""

    path: Path
    digest: Digest


class Staged(NamedTuple):
    """A build's own view of the cache: what to import, and the directory to export to.

    ``directory`` is an OCI layout without an index; BuildKit makes one with ``tag`` in it.
    ``blobs`` are all that the imports need, ``own`` is whether there is an entry of this image,
    ``there`` the names of the blobs in ``directory`` that BuildKit has not exported there itself.
    """

    layout: Path
    directory: Path
    tag: str
    imports: tuple[Import, ...]
    blobs: tuple[Descriptor, ...]
    own: bool
    there: frozenset[str]
    lock: int


def prepare(cache: Path, tag: str, *, check: Check, warn: Warn) -> Staged | None:
    """Stage the cache below the directory ``cache`` for a build of the image ``tag``.

    None means to build without it; a warning has said why. ``check`` is called often and may
    raise, which is the only exception that gets out of here.
    """
    directory = cache / LAYOUT
    try:
        directory.mkdir(parents=True, exist_ok=True)
        with held(directory, exclusive=False, check=check, warn=warn):
            record = Record.read(directory)
            found = inspect(directory, tag, record, check=check)
            if not found.damage:
                record.write(directory)
                return _stage(directory, tag, found, record)
        with held(directory, exclusive=True, check=check, warn=warn):
            return _prepare_damaged(cache, directory, tag, check, warn)
    except (OSError, LockNotFreeError) as error:
        warn(not_usable(f"The cache in {directory} cannot be used; this build is cold", error))
        return None


def add(staged: Staged, source: Path, descriptors: Sequence[Descriptor]) -> Staged:
    """Put these blobs of the layout ``source`` into the staging directory: see `share`.

    So that the export of the cache does not send them.
    """
    share(source, staged.directory, descriptors)
    with suppress(OSError):
        return staged._replace(there=names(staged.directory))
    return staged


def share(source: Path, target: Path, descriptors: Iterable[Descriptor]) -> None:
    """Put these blobs of one layout into another, by hard links or by copies.

    BuildKit sends no blob that is there. What cannot be put there will be sent. Raises nothing.
    """
    with suppress(OSError):
        (target / layout.BLOBS).mkdir(parents=True, exist_ok=True)
    put = []
    for descriptor in descriptors:
        with suppress(OSError, ArchiveInvalid):
            layout.blob_status(source, descriptor)
            _put(
                layout.blob_path(source, descriptor.digest),
                layout.blob_path(target, descriptor.digest),
            )
            put.append(descriptor.digest.encoded)
    recognize(source, target, put)


def recognize(source: Path, target: Path, encoded: Iterable[str]) -> None:
    """Note in one layout what was verified in another, of files that are the same in both."""
    known = Record.read(source)
    record = Record.read(target)
    for name in encoded:
        with suppress(OSError):
            if known.holds(name, now := (target / layout.BLOBS / name).lstat()):
                record.add(name, now)
    record.write(target)


def _put(source: Path, target: Path) -> None:
    with suppress(OSError):
        os.link(source, target)
        return
    if target.exists():
        return
    temporary = target.with_name(random_name(TEMPORARY))
    try:
        with source.open("rb") as old, temporary.open("xb") as new:
            copy(old.fileno(), new.fileno(), os.fstat(old.fileno()).st_size, 0)
            os.fsync(new.fileno())
        temporary.rename(target)
    finally:
        temporary.unlink(missing_ok=True)


def names(directory: Path) -> frozenset[str]:
    """Of all blobs in a layout, by their names. Raises OSError."""
    return frozenset(os.listdir(directory / layout.BLOBS))  # noqa: PTH208 - names are wanted


def discard(staged: Staged) -> None:
    """Remove the staging directory. Never raises; a second time does nothing."""
    remove(staged.directory)
    with suppress(OSError):
        os.close(staged.lock)


def _prepare_damaged(cache: Path, directory: Path, tag: str, check: Check, warn: Warn) -> Staged:
    """Put aside what is damaged, until what is left is sound. Under the exclusive lock."""
    record = Record.read(directory)
    damage: list[str] = []
    while (found := inspect(directory, tag, record, check=check)).damage:
        if len(damage) > _MAX_DAMAGE:
            raise OSError(errno.EIO, "There is no end of damage", str(directory))
        put_aside(directory, found, cache / DAMAGED, first=not damage)
        damage.extend(found.damage)
    record.write(directory)
    if damage:
        warn(damaged(cache, damage, "was put aside"))
    return _stage(directory, tag, found, record)


def _stage(directory: Path, tag: str, found: Inspection, record: Record) -> Staged:
    """Under the lock, so that nobody takes the new directory for a leftover."""
    staging = directory / random_name(PREFIX)
    blobs = staging / layout.BLOBS
    try:
        blobs.mkdir(parents=True)
        lock = os.open(staging, _DIRECTORY)
    except OSError:
        remove(staging)
        raise
    try_lock(lock)
    source = staging
    try:
        for descriptor in found.needed:
            name = descriptor.digest.encoded
            os.link(layout.blob_path(directory, descriptor.digest), blobs / name)
        record.copy(staging)
    except OSError:
        # No hard links here, or not to this owner's files: import from the cache itself,
        # and let BuildKit export everything again.
        for name in names(staging):
            (blobs / name).unlink()
        source = directory
    imports = tuple(Import(source, entry.digest) for entry in found.imports)
    return Staged(directory, staging, tag, imports, found.needed, found.own, names(staging), lock)


def held(
    directory: Path, *, exclusive: bool, check: Check, warn: Warn
) -> AbstractContextManager[None]:
    """The lock of a layout; as `locked`, and a warning tells of a long wait."""

    def waiting() -> None:
        warn(CacheNotUsable(f"Waiting for another build to leave the cache {directory}", hint=""))

    return locked(directory / _LOCK, exclusive=exclusive, check=check, waiting=waiting)


def damaged(place: Path, damage: Sequence[str], consequence: str) -> CacheDamaged:
    """The warning about what is wrong in ``place``, however much it is."""
    why = list(damage[:_MAX_DAMAGE_LINES])
    if len(damage) > len(why):
        why.append(f"and {len(damage) - len(why)} more")
    return CacheDamaged(
        f"Part of the cache in {place} is damaged and {consequence}",
        why=why,
        hint="Nothing has to be done: what is missing is built again.",
    )


def not_usable(what: str, error: OSError | LockNotFreeError) -> CacheNotUsable:
    """The warning for what the disk or another build refused."""
    if isinstance(error, OSError):
        reason = error.strerror or str(error)
        return CacheNotUsable(
            what, why=[f"{error.filename}: {reason}" if error.filename else reason]
        )
    return CacheNotUsable(what, why=["Another build has not left it for too long"])
