"""Archives of every form as what can be pushed."""

from __future__ import annotations

import gzip
import hashlib
import io
import json
import tarfile
from collections.abc import Callable

import pytest

from plp_builder.errors import ArchiveInvalid
from plp_builder.oci.model import (
    Descriptor,
    Digest,
    Platform,
    descriptor_members,
    parse_descriptor,
)
from tests.support import archives, layouts, malformed
from tests.support.artifacts import FORMS, LAYERS, consistent, read
from tests.support.layouts import Files
from tests.support.malformed.making import NOWHERE, index_of

MANIFEST = layouts.MANIFEST


def test_a_layout_is_taken_as_it_is() -> None:
    data = archives.packed(layouts.image_files(tags=["app:1"]))
    found = read(data)
    consistent(data, found)
    assert found.form == "oci"
    assert found.notes == ()
    assert [str(each) for each in found.platforms] == ["linux/amd64"]


def test_platforms_and_attestations_are_all_reachable() -> None:
    files: Files = {}
    images = [
        layouts.add_image(files, [name.encode()], platform={"os": system, "architecture": name})
        for name, system in (("amd64", "linux"), ("arm64", "linux"), ("unknown", "unknown"))
    ]
    inner = index_of(files, images)
    top = index_of(files, [inner])
    data = archives.packed(layouts.finish(files, top))
    found = read(data)
    consistent(data, found)
    assert found.top.digest == top["digest"]
    assert len(found.blobs) == 2 + 3 * 3
    assert [str(each) for each in found.platforms] == ["linux/amd64", "linux/arm64"]


def test_names_are_no_ambiguity_and_leftovers_are_not_pushed() -> None:
    data = archives.docker_save_25(LAYERS, tags=["app:1", "app:2"])
    found = read(data)
    consistent(data, found)
    assert found.form == "oci"
    assert len(found.blobs) == 1 + 1 + 2
    assert "2 layers are not compressed" in found.notes[0]


def test_what_docker_25_saved_without_a_tag_is_read_by_its_manifest_json() -> None:
    """index.json names nothing then (moby issue 47210)."""

    def untagged(files: Files) -> None:
        files["index.json"] = b'{"schemaVersion":2,"manifests":null}'

    data = archives.docker_save_25(LAYERS, change=untagged)
    found = read(data)
    consistent(data, found)
    assert found.form == "docker"


@pytest.mark.parametrize("media_type", ["application/vnd.example+json", layouts.CONFIG])
def test_artifacts_of_other_kinds_are_taken_as_they_are(media_type: str) -> None:
    """A configuration that is an image's is looked into; of others nothing is known."""
    files: Files = {}
    layer = layouts.add_blob(files, b"\x28\xb5\x2f\xfdzstd", "application/vnd.example+zstd")
    config = {"os": "linux", "rootfs": {"diff_ids": [layer["digest"]]}}
    manifest = {
        "schemaVersion": 2,
        "artifactType": "application/vnd.example",
        "config": layouts.add_json(files, config, media_type),
        "layers": [layer],
    }
    top = layouts.add_json(files, manifest, MANIFEST)
    data = archives.packed(layouts.finish(files, top))
    consistent(data, read(data))


def test_a_descriptor_may_hold_its_blob() -> None:
    """ORAS writes the empty configuration that way."""
    files: Files = {}
    config = layouts.add_blob(files, b"{}", "application/vnd.oci.empty.v1+json")
    config["data"] = "e30="
    layer = layouts.add_blob(files, b"x", "text/plain", urls=[])
    manifest = {"schemaVersion": 2, "config": config, "layers": [layer]}
    top = layouts.add_json(files, manifest, MANIFEST)
    data = archives.packed(layouts.finish(files, top))
    consistent(data, read(data))


def test_descriptors_are_written_as_they_are_read() -> None:
    platform = Platform("linux", "arm64", "v8")
    urls = ("https://example.com/layer",)
    digest = Digest(NOWHERE)
    descriptor = Descriptor("a/b", digest, 1, {"a": "b"}, platform, urls)
    assert parse_descriptor(descriptor_members(descriptor), "it") == descriptor


@pytest.mark.parametrize(
    "make", [archives.docker_save, archives.skopeo_copy, archives.docker_save_25]
)
def test_plain_layers_are_pushed_as_they_are(make: Callable[..., bytes]) -> None:
    data = make(LAYERS)
    found = read(data)
    top = consistent(data, found)
    digests = [f"sha256:{hashlib.sha256(layer).hexdigest()}" for layer in LAYERS]
    assert isinstance(top["layers"], list)
    assert [layer["digest"] for layer in top["layers"]] == digests
    types = {layer["mediaType"] for layer in top["layers"]}
    assert types == {"application/vnd.oci.image.layer.v1.tar"}
    assert found.images[0].config.media_type == layouts.CONFIG
    assert [str(each) for each in found.platforms] == ["linux/amd64"]


def test_compressed_layers_stay_compressed() -> None:
    data = archives.crane_pull(LAYERS)
    found = read(data)
    top = consistent(data, found)
    assert isinstance(top["layers"], list)
    assert {layer["mediaType"] for layer in top["layers"]} == {layouts.LAYER}
    assert len(found.notes) == 1


def test_the_same_image_has_the_same_digest_whatever_wrote_it() -> None:
    assert (
        read(archives.docker_save(LAYERS)).top
        == read(archives.skopeo_copy(LAYERS)).top
        == read(archives.docker_save(LAYERS, tags=["other:2", "other:3"])).top
    )


def test_the_made_manifest_never_changes() -> None:
    """A tag would move with each version of the publisher otherwise."""
    found = read(archives.docker_save([LAYERS[0]]))
    assert found.top.digest == (
        "sha256:7b133538b63fe34b16a3babde0a5d5125c1e725ac7d222e8b6e49cdcbc87faa1"
    )


def test_entries_that_say_the_same_are_one_image() -> None:
    def twice(files: Files) -> None:
        (entry,) = json.loads(files["manifest.json"])
        files["manifest.json"] = json.dumps([entry, {**entry, "RepoTags": ["b:2"]}]).encode()

    assert read(archives.docker_save(LAYERS, change=twice)).form == "docker"


def test_several_images_are_named() -> None:
    with pytest.raises(ArchiveInvalid, match="names 2 images") as refused:
        read(malformed.cases()["saved-two-images"]())
    assert refused.value.why == ("'app:1'", "'other:1'")


def test_a_configuration_of_any_name_is_taken() -> None:
    """jib writes config.json."""

    def renamed(files: Files) -> None:
        (entry,) = json.loads(files["manifest.json"])
        files["config.json"] = files.pop(entry["Config"])
        files["manifest.json"] = json.dumps([{**entry, "Config": "config.json"}]).encode()

    data = archives.docker_save(LAYERS, change=renamed)
    consistent(data, read(data))


def test_an_image_without_layers_and_platform() -> None:
    files = {"c.json": b"{}", "manifest.json": b'[{"Config":"c.json","Layers":null}]'}
    data = archives.packed(files)
    found = read(data)
    consistent(data, found)
    assert found.platforms == ()


def test_gzip_of_several_members_is_one_layer() -> None:
    """estargz and pigz write such layers."""

    def change(files: Files) -> None:
        (entry,) = json.loads(files["manifest.json"])
        name = entry["Layers"][0]
        half = len(LAYERS[0]) // 2
        parts = (LAYERS[0][:half], b"", LAYERS[0][half:])
        files[name] = b"".join(gzip.compress(part, mtime=0) for part in parts)

    data = archives.crane_pull([LAYERS[0]], change=change)
    consistent(data, read(data))


def test_a_layout_in_a_directory_comes_with_the_next_step() -> None:
    with pytest.raises(ArchiveInvalid) as refused:
        read(malformed.cases()["layout-in-a-directory"]())
    assert "'image'" in refused.value.hint
    assert "tar -C" in refused.value.hint


def test_a_layer_that_lies_elsewhere_comes_with_the_next_step() -> None:
    with pytest.raises(ArchiveInvalid) as refused:
        read(malformed.cases()["layer-elsewhere"]())
    assert "lie elsewhere" in refused.value.hint


@pytest.mark.parametrize("format", [tarfile.USTAR_FORMAT, tarfile.PAX_FORMAT, tarfile.GNU_FORMAT])
def test_links_are_read_from_every_format(format: int) -> None:
    """Docker's own has them in pax headers when names are long."""
    buffer = io.BytesIO()
    with (
        tarfile.open(fileobj=io.BytesIO(FORMS["docker-save"])) as source,
        tarfile.open(fileobj=buffer, mode="w", format=format) as target,
    ):
        for each in source:
            each.pax_headers = {"comment": "x"}
            target.addfile(each, source.extractfile(each) if each.isfile() else None)
    assert read(buffer.getvalue()).top == read(FORMS["docker-save"]).top
