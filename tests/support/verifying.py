"""Archives for the verification: what it makes of them, and good ones with something changed."""

from __future__ import annotations

import io
import json
from collections.abc import Callable

import pytest

from plp_builder.errors import ArchiveInvalid
from plp_builder.oci.archive import Archive, verify
from tests.support import layouts
from tests.support.layouts import Files, Json

GOOD = layouts.tar_of(layouts.image_files())
END = len(GOOD.rstrip(b"\0"))
"""Behind it, a good archive has nothing but zeros."""


def check(data: bytes) -> Archive:
    return verify(io.BytesIO(data))


def refuse(data: bytes, reason: str) -> ArchiveInvalid:
    with pytest.raises(ArchiveInvalid, match=reason) as refused:
        check(data)
    return refused.value


def changed_manifest(change: Callable[[Json], None]) -> bytes:
    """An archive whose manifest was changed, with digests that are right again."""
    files: Files = {}
    entry = layouts.add_image(files)
    manifest = json.loads(files.pop("blobs/sha256/" + entry["digest"][7:]))
    change(manifest)
    entry = layouts.add_json(files, manifest, layouts.MANIFEST)
    return layouts.tar_of(layouts.finish(files, entry))


def changed_config(change: Callable[[Json], None]) -> bytes:
    """The same for the configuration of its image."""
    files: Files = {}
    entry = layouts.add_image(files)
    manifest = json.loads(files.pop("blobs/sha256/" + entry["digest"][7:]))
    config = json.loads(files.pop("blobs/sha256/" + manifest["config"]["digest"][7:]))
    change(config)
    manifest["config"] = layouts.add_json(files, config, layouts.CONFIG)
    entry = layouts.add_json(files, manifest, layouts.MANIFEST)
    return layouts.tar_of(layouts.finish(files, entry))
