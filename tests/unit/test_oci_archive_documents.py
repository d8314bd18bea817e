"""Verifying archives: documents and blobs that are not what they should be are refused."""

from __future__ import annotations

import json
import tarfile
from collections.abc import Callable
from functools import partial
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from plp_builder.errors import ArchiveInvalid
from tests.support import layouts
from tests.support.layouts import Files, Json
from tests.support.verifying import changed_config, changed_manifest, check, refuse


def with_index(text: bytes) -> bytes:
    return layouts.tar_of(layouts.image_files() | {"index.json": text})


@pytest.mark.parametrize(
    ("name", "reason"),
    [
        ("index.json", "has no index.json"),
        ("oci-layout", "has no oci-layout"),
    ],
)
def test_a_layout_has_its_files(name: str, reason: str) -> None:
    files = layouts.image_files()
    del files[name]
    refuse(layouts.tar_of(files), reason)


def test_every_blob_is_needed() -> None:
    """Whichever blob of a good archive is left out, it is missed by its digest."""
    files = layouts.image_files()
    blobs = [name for name in files if name.startswith("blobs/")]
    assert len(blobs) == 4
    for name in blobs:
        rest = {key: data for key, data in files.items() if key != name}
        refuse(layouts.tar_of(rest), f"blob sha256:{name[-64:]} is missing")


def test_every_blob_is_hashed() -> None:
    files = layouts.image_files()
    for name in [name for name in files if name.startswith("blobs/")]:
        changed = files | {name: b"?" + files[name][1:]}
        refuse(layouts.tar_of(changed), f"blob sha256:{name[-64:]} has other content")


def test_a_size_that_its_descriptor_does_not_promise_is_refused() -> None:
    def shrink(manifest: Json) -> None:
        manifest["layers"][0]["size"] -= 1

    refuse(changed_manifest(shrink), "promises 8")


@pytest.mark.parametrize(
    ("member", "value", "reason"),
    [
        ("schemaVersion", 1, "schemaVersion"),
        ("mediaType", "text/plain", "media type"),
        ("mediaType", layouts.INDEX, "media type"),
        ("mediaType", 3, "no mediaType"),
        ("config", None, "config"),
        ("config", [], "not a JSON object"),
        ("layers", {}, "no list"),
        ("layers", [3], "not a JSON object"),
        ("layers", [{"digest": "sha256:0", "size": 1, "mediaType": "a"}], "wrong digest"),
        ("layers", [{"digest": f"sha256:{'0' * 64}", "size": -1, "mediaType": "a"}], "size"),
        ("layers", [{"digest": f"sha256:{'0' * 64}", "size": True, "mediaType": "a"}], "size"),
        ("layers", [{"digest": f"sha256:{'0' * 64}", "size": 1.0, "mediaType": "a"}], "size"),
        ("layers", [{"digest": f"sha256:{'0' * 64}", "size": 2**64, "mediaType": "a"}], "size"),
        ("layers", [{"digest": f"sha256:{'0' * 64}", "size": 1}], "no mediaType"),
        (
            "layers",
            [{"digest": f"sha512:{'0' * 128}", "size": 1, "mediaType": "a"}],
            "only sha256 is supported",
        ),
        ("manifests", [], "at once"),
        ("annotations", {"a": 1}, "annotations"),
        ("annotations", {"a": "\ud800"}, "surrogate"),
        ("annotations", [], "annotations"),
    ],
)
def test_a_manifest_that_is_none_is_refused(member: str, value: object, reason: str) -> None:
    refuse(changed_manifest(lambda manifest: manifest.update({member: value})), reason)


def test_layers_that_the_configuration_does_not_know_are_refused() -> None:
    refuse(changed_manifest(lambda manifest: manifest["layers"].pop()), "names 2 layers")


@pytest.mark.parametrize(
    ("text", "reason"),
    [
        (b"", "not valid JSON"),
        (b"{", "not valid JSON"),
        (b"[]", "not a JSON object"),
        (b"\xff\xfe{\0}\0", "not UTF-8"),
        (b"[" * 100_000, "nested too deeply"),
        (b'{"schemaVersion": 2, "manifests": NaN}', "NaN is not JSON"),
        (b'{"schemaVersion": 2, "schemaVersion": 2}', "twice"),
        (b'{"schemaVersion": 2, "manifests": []}', "names no image"),
        (b'{"schemaVersion": 2, "manifests": null}', "names no image"),
        (b'{"schemaVersion": 2, "layers": []}', "at once"),
        (b" " * (4 * 1024 * 1024 + 1), "larger than"),
        (b'{"schemaVersion": 2, "manifests": [{"size": ' + b"9" * 5000 + b"}]}", "not valid JSON"),
    ],
)
def test_an_index_that_is_none_is_refused(text: bytes, reason: str) -> None:
    refuse(with_index(text), reason)


def test_two_images_in_one_archive_are_ambiguous() -> None:
    files: Files = {}
    entries = [layouts.add_image(files, [layer]) for layer in (b"one", b"two")]
    refused = refuse(layouts.tar_of(layouts.finish(files, *entries)), "names 2 images")
    assert {entry["digest"] for entry in entries} == set(refused.why)


def test_a_blob_described_in_two_ways_is_ambiguous() -> None:
    files: Files = {}
    image = layouts.add_image(files)
    document = {"schemaVersion": 2, "manifests": [image, {**image, "mediaType": "text/plain"}]}
    top = layouts.add_json(files, document, layouts.INDEX)
    refuse(layouts.tar_of(layouts.finish(files, top)), "in two ways")


def test_indexes_of_indexes_end() -> None:
    files: Files = {}
    top = layouts.add_image(files)
    for _ in range(9):
        top = layouts.add_json(files, {"schemaVersion": 2, "manifests": [top]}, layouts.INDEX)
    refuse(layouts.tar_of(layouts.finish(files, top)), "is an index in 8 others")


@pytest.mark.parametrize("platform", [3, {"os": "linux"}, {"os": "linux", "architecture": 3}])
def test_a_platform_that_is_none_is_refused(platform: object) -> None:
    files: Files = {}
    entry = layouts.add_image(files, platform=platform)
    refuse(layouts.tar_of(layouts.finish(files, entry)), "not a JSON object|no architecture")


def test_a_large_manifest_is_refused_before_it_is_read() -> None:
    files: Files = {}
    entry = layouts.add_blob(files, b" " * (4 * 1024 * 1024 + 1), layouts.MANIFEST)
    refuse(layouts.tar_of(layouts.finish(files, entry)), "larger than 4194304 bytes")


def test_a_configuration_that_is_none_is_refused() -> None:
    files: Files = {}
    config = layouts.add_json(files, [], layouts.CONFIG)
    manifest = {"schemaVersion": 2, "config": config, "layers": []}
    entry = layouts.add_json(files, manifest, layouts.MANIFEST)
    refuse(layouts.tar_of(layouts.finish(files, entry)), "not a JSON object")


def test_an_index_without_an_image_is_no_archive() -> None:
    files: Files = {}
    top = layouts.add_json(files, {"schemaVersion": 2, "manifests": []}, layouts.INDEX)
    refuse(layouts.tar_of(layouts.finish(files, top)), "no image manifest")


@pytest.mark.parametrize(
    ("name", "reason"),
    [
        ("blobs/sha256/abc", "name is not a blob's"),
        ("blobs/x", "name is not a blob's"),
        ("blobs/sha512/" + "0" * 128, "only sha256"),
    ],
)
def test_every_file_among_the_blobs_is_a_blob(name: str, reason: str) -> None:
    files = layouts.image_files() | {name: b""}
    refuse(layouts.tar_of(files, tarfile.PAX_FORMAT), reason)


@pytest.mark.parametrize("version", [b"{}", b"[]", b'{"imageLayoutVersion":"2.0.0"}'])
def test_another_version_of_the_layout_is_refused(version: bytes) -> None:
    refuse(layouts.tar_of(layouts.image_files() | {"oci-layout": version}), "layout version")


@pytest.mark.parametrize(
    ("change", "reason"),
    [
        (lambda entry: entry.update(Layers=[]), "another image"),
        (lambda entry: entry.update(Config="blobs/sha256/" + "0" * 64), "another image"),
        (lambda entry: entry.update(Config=[]), "another image"),
        (lambda entry: entry.update(Layers=[1]), "list of texts"),
        (lambda entry: entry.update(RepoTags="a"), "list of texts"),
    ],
)
def test_a_docker_manifest_that_says_otherwise_is_refused(
    change: Callable[[Json], None], reason: str
) -> None:
    """docker load would read another image than skopeo and containerd do."""
    files = layouts.image_files()
    entries = json.loads(files["manifest.json"])
    change(entries[0])
    refuse(layouts.tar_of(files | {"manifest.json": json.dumps(entries).encode()}), reason)


@pytest.mark.parametrize("text", [b"{}", b"[]", b"[3]", b"null"])
def test_a_docker_manifest_that_is_none_is_refused(text: bytes) -> None:
    refuse(layouts.tar_of(layouts.image_files() | {"manifest.json": text}), "list of images")


def _change(document: Any, path: list[str | int], value: object) -> None:
    for key in path[:-1]:
        document = document[key]
    document[path[-1]] = value


def _paths(document: object) -> list[list[str | int]]:
    """The way to each value in a JSON document."""
    if isinstance(document, dict):
        inner = [(key, value) for key, value in document.items()]
    else:
        inner = list(enumerate(document)) if isinstance(document, list) else []
    return [
        path for key, value in inner for path in ([key], *([key, *rest] for rest in _paths(value)))
    ]


_ANY = st.recursive(
    st.none()
    | st.booleans()
    | st.integers()
    | st.floats(allow_nan=False, allow_infinity=False)
    | st.text()
    | st.just("\ud800"),
    lambda inner: st.lists(inner, max_size=2) | st.dictionaries(st.text(), inner, max_size=2),
    max_leaves=4,
)


def _changed_file(name: str, change: Callable[[Json], None]) -> bytes:
    files = layouts.image_files()
    document = json.loads(files[name])
    change(document)
    return layouts.tar_of(files | {name: json.dumps(document).encode()})


_DOCUMENTS: dict[str, Callable[[Callable[[Json], None]], bytes]] = {
    "manifest": changed_manifest,
    "config": changed_config,
    "index.json": partial(_changed_file, "index.json"),
    "manifest.json": partial(_changed_file, "manifest.json"),
    "oci-layout": partial(_changed_file, "oci-layout"),
}


@pytest.mark.parametrize("name", _DOCUMENTS)
@given(st.data())
def test_whatever_a_document_says_it_is_taken_or_refused(name: str, data: st.DataObject) -> None:
    def change(document: Json) -> None:
        place = data.draw(st.sampled_from(_paths(document)))
        _change(document, place, data.draw(_ANY))

    try:
        found = check(_DOCUMENTS[name](change))
    except ArchiveInvalid:
        return
    assert len(found.images) == 1
