"""A build's own view of the portable cache, and the way back into it.

A build never lets BuildKit write into the layout itself. It gets a staging directory of its
own with hard links to the blobs that it may import, so that no other build's pruning can
disturb it and the export sends only what is new. What the build adds is merged under a lock.
Whatever goes wrong here costs a warning and time, never the build.
"""

from __future__ import annotations

import errno
import os
from collections.abc import Callable, Sequence
from contextlib import AbstractContextManager, suppress
from pathlib import Path
from typing import NamedTuple

from plp_builder.cache import index, pruning
from plp_builder.cache.files import TEMPORARY, open_below, random_name, remove
from plp_builder.cache.inspection import inspect, put_aside
from plp_builder.cache.lock import LockNotFreeError, locked, try_lock
from plp_builder.cache.verification import Record, verify
from plp_builder.errors import ArchiveInvalid, CacheDamaged, CacheNotUsable, Failure
from plp_builder.oci import layout
from plp_builder.oci.model import Descriptor, Digest

LAYOUT = "buildkit"
DAMAGED = "damaged"

_LOCK = ".lock"
_STAGING = ".staging-"
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
    """

    layout: Path
    directory: Path
    tag: str
    imports: tuple[Import, ...]
    linked: frozenset[str]
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
                return _stage(directory, tag, found.imports, found.needed)
        with held(directory, exclusive=True, check=check, warn=warn):
            return _prepare_damaged(cache, directory, tag, check, warn)
    except (OSError, LockNotFreeError) as error:
        warn(not_usable(f"The cache in {directory} cannot be used; this build is cold", error))
        return None


def keep(staged: Staged, *, max_size: int, check: Check, warn: Warn) -> None:
    """Merge what a successful build exported, within ``max_size`` bytes; then discard.

    As with `prepare`, only what ``check`` raises gets out.
    """
    try:
        _keep(staged, max_size, check, warn)
    except ArchiveInvalid as error:
        warn(CacheDamaged("BuildKit's export of the cache is not sound", why=[error.what]))
    except (OSError, LockNotFreeError) as error:
        warn(not_usable(f"This build could not be kept in the cache {staged.layout}", error))
    finally:
        discard(staged)


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
    return _stage(directory, tag, found.imports, found.needed)


def _stage(
    directory: Path, tag: str, imports: tuple[Descriptor, ...], needed: tuple[Descriptor, ...]
) -> Staged:
    """Under the lock, so that nobody takes the new directory for a leftover."""
    staging = directory / random_name(_STAGING)
    blobs = staging / layout.BLOBS
    try:
        blobs.mkdir(parents=True)
        lock = os.open(staging, _DIRECTORY)
    except OSError:
        remove(staging)
        raise
    try_lock(lock)
    linked: set[str] = set()
    source = staging
    try:
        for descriptor in needed:
            name = descriptor.digest.encoded
            os.link(layout.blob_path(directory, descriptor.digest), blobs / name)
            linked.add(name)
    except OSError:
        # No hard links here, or not to this owner's files: import from the cache itself,
        # and let BuildKit export everything again.
        for name in linked:
            (blobs / name).unlink()
        linked.clear()
        source = directory
    found = tuple(Import(source, entry.digest) for entry in imports)
    return Staged(directory, staging, tag, found, frozenset(linked), lock)


def _keep(staged: Staged, max_size: int, check: Check, warn: Warn) -> None:
    exported = index.read(staged.directory).entries
    own = next((entry for entry in exported if index.tag_of(entry) == staged.tag), None)
    if own is None:
        _tell_failed_export(staged, warn)
        return
    needed = tuple(node.descriptor for node in layout.reachable(staged.directory, own))
    new = [blob for blob in needed if blob.digest.encoded not in staged.linked]
    for damage in verify(staged.directory, new, Record({}), check=check):
        raise damage
    with held(staged.layout, exclusive=True, check=check, warn=warn):
        record = Record.read(staged.layout)
        _merge_blobs(staged, needed, record)
        before = index.read(staged.layout).entries
        entries = pruning.newest_last(before, own)
        if entries != before or pruning.disk_usage(staged.layout) > max_size:
            _keep_entries(staged, entries, max_size, record, check, warn)
        index.mark(staged.layout)
        record.write(staged.layout)
        _remove_leftovers(staged.layout)


def _tell_failed_export(staged: Staged, warn: Warn) -> None:
    """BuildKit ignores a failed export of the cache, but leaves what it had begun."""
    begun = [
        name
        for place in (staged.directory / "ingest", staged.directory / layout.BLOBS)
        if place.is_dir()
        for name in os.listdir(place)  # noqa: PTH208 - names are all that is wanted
        if name not in staged.linked
    ]
    if begun:
        warn(
            CacheNotUsable(
                "BuildKit could not write its cache, so this build is not kept",
                hint=f"Make room in {staged.layout.parent}, or set PLP_CACHE_STRATEGY=off.",
            )
        )


def _merge_blobs(staged: Staged, needed: tuple[Descriptor, ...], record: Record) -> None:
    """Move the blobs in, but leave those that are there and known to be right.

    Into an open directory, so that a link that came since `prepare` leads nowhere.
    """
    (staged.layout / layout.BLOBS).mkdir(parents=True, exist_ok=True)
    place = open_below(staged.layout, *layout.BLOBS.parts)
    try:
        for descriptor in needed:
            name = descriptor.digest.encoded
            with suppress(ArchiveInvalid):
                if record.holds(name, layout.blob_status(staged.layout, descriptor)):
                    continue
            target = layout.blob_path(staged.layout, descriptor.digest)
            if target.is_dir():
                remove(target)
            os.replace(
                layout.blob_path(staged.directory, descriptor.digest), name, dst_dir_fd=place
            )
            record.add(name, os.stat(name, dir_fd=place, follow_symlinks=False))
    finally:
        os.close(place)


def _keep_entries(
    staged: Staged,
    entries: tuple[Descriptor, ...],
    max_size: int,
    record: Record,
    check: Check,
    warn: Warn,
) -> None:
    plan = pruning.plan(staged.layout, entries, max_size, check=check)
    # Index first, blobs then: a crash in between leaves blobs too many, never too few.
    index.write(staged.layout, plan.entries)
    pruning.remove_others(staged.layout, plan.blobs)
    record.keep_only(plan.blobs)
    if plan.damage:
        warn(damaged(staged.layout, plan.damage, "was put aside"))
    if any(index.tag_of(entry) == staged.tag for entry in plan.dropped):
        warn(
            CacheNotUsable(
                f"This build's layers alone are larger than the cache may be ({max_size} bytes)",
                hint="Raise PLP_CACHE_MAX_SIZE, or set PLP_CACHE_MODE=min.",
            )
        )


def _remove_leftovers(directory: Path) -> None:
    """What killed builds left. Temporary files are only made under the lock that we hold."""
    for name in os.listdir(directory):  # noqa: PTH208 - names are all that is wanted
        if name.startswith(TEMPORARY):
            remove(directory / name)
        elif name.startswith(_STAGING):
            with suppress(OSError):
                descriptor = os.open(directory / name, _DIRECTORY)
                try:
                    if try_lock(descriptor):
                        remove(directory / name)
                finally:
                    os.close(descriptor)


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
