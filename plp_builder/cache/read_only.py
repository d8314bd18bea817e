"""A cache that can be read but not written, as builds of pull requests are often given.

Such a build imports straight from the layout and exports nothing. BuildKit itself needs only to
read there: its content store makes its directory for ingestion when something is written.
"""

from __future__ import annotations

import os
from collections.abc import Callable
from contextlib import ExitStack, suppress
from pathlib import Path

from plp_builder.cache.inspection import inspect
from plp_builder.cache.lock import LockNotFreeError
from plp_builder.cache.staging import Import, damaged, held, not_usable
from plp_builder.cache.verification import Record
from plp_builder.errors import CacheNotUsable, Failure
from plp_builder.oci import layout
from plp_builder.oci.model import Descriptor
from plp_builder.tuples import NamedTuple


class ReadOnly(NamedTuple):
    """What a build can import from the layout of a cache that keeps nothing of it.

    ``blobs`` are all that the imports need.
    """

    layout: Path
    imports: tuple[Import, ...]
    blobs: tuple[Descriptor, ...]


def is_read_only(directory: Path) -> bool:
    """Whether there is a layout in which nothing can be kept. Never raises."""
    with suppress(OSError):
        places = [place for place in (directory, directory / layout.BLOBS) if place.is_dir()]
        return not all(os.access(place, os.W_OK | os.X_OK) for place in places)
    return False


def read(
    directory: Path, tag: str, *, check: Callable[[], None], warn: Callable[[Failure], None]
) -> ReadOnly | None:
    """What the build of the image ``tag`` can import; one warning says that nothing is kept.

    None, and another warning, where it cannot be read either. ``check`` is called often and may
    raise; nothing else gets out.
    """
    try:
        with ExitStack() as stack:
            # Without a lock file that can be opened, the atomic replacing of the index has to do.
            with suppress(OSError):
                stack.enter_context(held(directory, exclusive=False, check=check, warn=warn))
            found = inspect(directory, tag, Record.read(directory), check=check)
    except (OSError, LockNotFreeError) as error:
        warn(not_usable(f"The cache in {directory} cannot be used; this build is cold", error))
        return None
    warn(cannot_be_written(directory, "imports from it and keeps nothing"))
    if found.damage:
        warn(damaged(directory, found.damage, "is not imported"))
    usable = (entry for entry in found.imports if entry in found.sound)
    imports = tuple(Import(directory, entry.digest) for entry in usable)
    return ReadOnly(directory, imports, found.needed)


def cannot_be_written(directory: Path, consequence: str) -> CacheNotUsable:
    """The warning that goes with it; ``consequence`` is what "this build" does therefore."""
    return CacheNotUsable(
        f"The cache in {directory} cannot be written: this build {consequence}",
        hint=f"If it shall keep its layers, mount the cache writable for uid {os.geteuid()}.",
    )
