"""The entries of the portable cache: one for each image, the one used last at the end."""

from __future__ import annotations

import json
import os
import stat
from contextlib import suppress
from pathlib import Path

from plp_builder.cache.files import remove, replace_durably
from plp_builder.errors import ArchiveInvalid
from plp_builder.oci import layout
from plp_builder.oci.archive import REF_NAME
from plp_builder.oci.model import (
    INDEX_TYPE,
    Descriptor,
    descriptor_members,
    document,
    parse_descriptor,
)
from plp_builder.tuples import NamedTuple


class Entries(NamedTuple):
    """The entries that can be used, and what is wrong with the others."""

    entries: tuple[Descriptor, ...] = ()
    problems: tuple[str, ...] = ()


def tag_of(entry: Descriptor) -> str:
    """Whose entry it is."""
    return entry.annotations.get(REF_NAME, "")


def read(directory: Path) -> Entries:
    """The entries in a layout's index.json; none where there is none. Raises OSError."""
    path = directory / layout.INDEX
    try:
        index = document(layout.read_small(path, layout.INDEX), layout.INDEX)
    except FileNotFoundError:
        return Entries()
    except ArchiveInvalid as error:
        return Entries(problems=(error.what,))
    except OSError as error:
        if os.path.lexists(path) and not stat.S_ISREG(path.lstat().st_mode):
            return Entries(problems=(f"{layout.INDEX} is not a regular file",))
        raise error from None
    values = index.get("manifests") if isinstance(index, dict) else None
    if not isinstance(values, list):
        return Entries(problems=(f"{layout.INDEX} has no list of manifests",))
    found: dict[str, Descriptor] = {}
    problems: list[str] = []
    for number, value in enumerate(values):
        try:
            entry = parse_descriptor(value, f"entry {number} of {layout.INDEX}")
            layout.blob_path(directory, entry.digest)
        except ArchiveInvalid as error:
            problems.append(error.what)
            continue
        found.pop(tag_of(entry), None)
        found[tag_of(entry)] = entry
    return Entries(tuple(found.values()), tuple(problems))


def write(directory: Path, entries: tuple[Descriptor, ...]) -> None:
    """Make these the entries, atomically. Raises OSError."""
    index = {
        "schemaVersion": 2,
        "mediaType": INDEX_TYPE,
        "manifests": [descriptor_members(entry) for entry in entries],
    }
    replace_durably(directory / layout.INDEX, json.dumps(index, separators=(",", ":")).encode())


def mark(directory: Path) -> None:
    """See that the file is there that makes the directory an OCI layout. Raises OSError."""
    path = directory / layout.LAYOUT
    with suppress(OSError, ArchiveInvalid):
        if layout.read_small(path, layout.LAYOUT) == layout.LAYOUT_CONTENT:
            return
    if path.is_dir():
        remove(path)
    replace_durably(path, layout.LAYOUT_CONTENT)
