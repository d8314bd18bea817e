"""The way of a build's staged export back into the portable cache."""

from __future__ import annotations

import os
from collections.abc import Iterable
from contextlib import suppress
from pathlib import Path

from plp_builder.cache import index, pruning
from plp_builder.cache.files import TEMPORARY, open_below, remove
from plp_builder.cache.lock import LockNotFreeError, try_lock
from plp_builder.cache.staging import (
    PREFIX,
    Check,
    Staged,
    Warn,
    damaged,
    discard,
    held,
    not_usable,
    share,
)
from plp_builder.cache.verification import Record, verify
from plp_builder.errors import ArchiveInvalid, CacheDamaged, CacheNotUsable
from plp_builder.oci import layout
from plp_builder.oci.model import Descriptor

_DIRECTORY = os.O_RDONLY | os.O_DIRECTORY | os.O_NOFOLLOW | os.O_CLOEXEC


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


def take(staged: Staged, source: Path, warn: Warn) -> bool:
    """Have an export to the layout ``source`` look like one to the staging directory.

    Whether there was one: BuildKit ignores a failed export, and may have nothing to export.
    """
    try:
        own = _own(staged, index.read(source).entries)
        if own is None:
            return False
        share(source, staged.directory, [node.descriptor for node in layout.reachable(source, own)])
        index.write(staged.directory, (own,))
    except ArchiveInvalid as error:
        warn(CacheDamaged("BuildKit's export of the cache is not sound", why=[error.what]))
        return False
    except OSError as error:
        warn(not_usable(f"This build could not be kept in the cache {staged.layout}", error))
        return False
    return True


def used(staged: Staged, *, check: Check, warn: Warn) -> None:
    """Note that the image's entry was used, though nothing is new; then discard. Raises as `keep`.

    So that the entries of images that are built all the time are not the first to go.
    """
    try:
        with held(staged.layout, exclusive=True, check=check, warn=warn):
            entries = index.read(staged.layout).entries
            own = _own(staged, entries)
            if own and own is not entries[-1]:
                index.write(staged.layout, pruning.newest_last(entries, own))
    except (OSError, LockNotFreeError) as error:
        warn(not_usable(f"The cache {staged.layout} cannot be kept in order", error))
    finally:
        discard(staged)


def _keep(staged: Staged, max_size: int, check: Check, warn: Warn) -> None:
    exported = index.read(staged.directory).entries
    own = _own(staged, exported)
    if own is None:
        _tell_failed_export(staged, exported, warn)
        return
    needed = tuple(node.descriptor for node in layout.reachable(staged.directory, own))
    # What was linked is known already, and so is the image, which was verified before.
    for damage in verify(staged.directory, needed, Record.read(staged.directory), check=check):
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


def _own(staged: Staged, entries: Iterable[Descriptor]) -> Descriptor | None:
    return next((entry for entry in entries if index.tag_of(entry) == staged.tag), None)


def _tell_failed_export(staged: Staged, images: tuple[Descriptor, ...], warn: Warn) -> None:
    """BuildKit ignores a failed export of the cache, but leaves what it had begun."""
    there = staged.there | {
        node.descriptor.digest.encoded
        for image in images
        for node in layout.reachable(staged.directory, image)
    }
    begun = [
        name
        for place in (staged.directory / "ingest", staged.directory / layout.BLOBS)
        if place.is_dir()
        for name in os.listdir(place)  # noqa: PTH208 - names are all that is wanted
        if name not in there
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
        elif name.startswith(PREFIX):
            with suppress(OSError):
                descriptor = os.open(directory / name, _DIRECTORY)
                try:
                    if try_lock(descriptor):
                        remove(directory / name)
                finally:
                    os.close(descriptor)
