"""What the malformed archives are made from, and the ways to change it."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping

from tests.support import layouts
from tests.support.archives import END, docker_save, member, packed
from tests.support.layouts import Files, Json

Make = Callable[[], bytes]

SCHEMA1 = "application/vnd.docker.distribution.manifest.v1+prettyjws"
NOWHERE = "sha256:" + "0" * 64


def _tar_of(*names: str) -> bytes:
    """Some file's bytes as a layer: a tar of empty files."""
    return b"".join(member(name) for name in names) + END


LAYERS = (_tar_of("one"), _tar_of("two"), _tar_of("one"))


def good() -> bytes:
    """The archive that most cases are made from. It is not refused."""
    return packed(layouts.image_files(tags=["app:1"]))


def docker_good() -> bytes:
    """The same of Docker's old form, with a layer that occurs twice and so is a link."""
    return docker_save(LAYERS)


def with_members(*members: bytes) -> Make:
    """A good archive with more members in front."""
    return lambda: b"".join(members) + good()


def replaced(name: str, data: bytes) -> Make:
    return lambda: packed(layouts.image_files() | {name: data})


def with_changes(document: Json, changes: Mapping[str, object]) -> Json:
    """The document with these members; what is None is gone."""
    merged = {**document, **changes}
    return {name: value for name, value in merged.items() if value is not None}


def record(key: str, value: str) -> bytes:
    text = f" {key}={value}\n".encode()
    length = len(text) + 1
    while len(str(length)) + len(text) != length:
        length += 1
    return str(length).encode() + text


def name_of(descriptor: Json) -> str:
    return "blobs/" + str(descriptor["digest"]).replace(":", "/")


def index_of(files: Files, entries: Iterable[Json]) -> Json:
    document = {"schemaVersion": 2, "mediaType": layouts.INDEX, "manifests": list(entries)}
    return layouts.add_json(files, document, layouts.INDEX)
