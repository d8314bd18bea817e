"""Verifying archives: what BuildKit makes passes, and a verification can be stopped."""

from __future__ import annotations

import io
import json
import tarfile

import pytest

from plp_builder.oci.archive import verify
from tests.support import layouts
from tests.support.layouts import Files
from tests.support.verifying import check


@pytest.mark.parametrize("format", [tarfile.USTAR_FORMAT, tarfile.PAX_FORMAT, tarfile.GNU_FORMAT])
def test_an_archive_is_described(format: int) -> None:
    files: Files = {}
    entry = layouts.add_image(files, annotations={"a": "b"})
    entry["annotations"] = {
        "io.containerd.image.name": "docker.io/library/app:1",
        "org.opencontainers.image.ref.name": "1",
    }
    files["manifest.json"] = layouts.docker_manifest(files, entry, ["app:1"])
    data = layouts.tar_of(layouts.finish(files, entry), format)
    found = check(data)
    assert found.size == len(data)
    assert found.top.digest == entry["digest"]
    assert [dict(image.annotations) for image in found.images] == [{"a": "b"}]
    assert [str(platform) for platform in found.platforms] == ["linux/amd64"]
    assert found.ref_names == ("docker.io/library/app:1",)
    assert found.has_docker_manifest
    assert found.repo_tags == ("app:1",)
    manifest = json.loads(files["blobs/sha256/" + entry["digest"][7:]])
    assert found.config_digests == (manifest["config"]["digest"],)


def test_an_image_without_layers_is_an_image() -> None:
    """FROM scratch and nothing else: "layers": null, and no history."""
    files: Files = {}
    config = layouts.add_json(
        files,
        {"architecture": "amd64", "os": "linux", "rootfs": {"diff_ids": None}},
        layouts.CONFIG,
    )
    entry = layouts.add_json(
        files, {"schemaVersion": 2, "config": config, "layers": None}, layouts.MANIFEST
    )
    files["manifest.json"] = layouts.docker_manifest(files, entry, None)
    found = check(layouts.tar_of(layouts.finish(files, entry)))
    assert found.images[0].layers == ()
    assert found.repo_tags == ()


def test_an_index_of_platforms_and_attestations() -> None:
    files: Files = {}
    images = [
        layouts.add_image(
            files,
            [name.encode()],
            architecture=name,
            platform={"os": "linux", "architecture": name, "variant": variant},
        )
        for name, variant in (("amd64", ""), ("arm64", "v8"))
    ]
    attestation = layouts.add_image(
        files, [b"in-toto"], platform={"os": "unknown", "architecture": "unknown"}
    )
    top = layouts.add_json(
        files,
        {"schemaVersion": 2, "mediaType": layouts.INDEX, "manifests": [*images, attestation]},
        layouts.INDEX,
    )
    found = check(layouts.tar_of(layouts.finish(files, top)))
    assert [str(platform) for platform in found.platforms] == ["linux/amd64", "linux/arm64/v8"]
    assert len(found.images) == 3
    assert not found.has_docker_manifest


def test_docker_media_types_are_taken_for_their_oci_equals() -> None:
    files: Files = {}
    docker = "application/vnd.docker."
    config = layouts.add_json(
        files, {"os": "linux", "architecture": "amd64"}, docker + "container.image.v1+json"
    )
    manifest = {"schemaVersion": 2, "config": config, "layers": []}
    image = layouts.add_json(files, manifest, docker + "distribution.manifest.v2+json")
    top = layouts.add_json(
        files,
        {"schemaVersion": 2, "manifests": [image]},
        docker + "distribution.manifest.list.v2+json",
    )
    found = check(layouts.tar_of(layouts.finish(files, top)))
    assert [str(platform) for platform in found.platforms] == ["linux/amd64"]


def test_several_names_of_one_image_are_no_ambiguity() -> None:
    files: Files = {}
    entry = layouts.add_image(files)
    entries = [{**entry, "annotations": {"io.containerd.image.name": name}} for name in ("a", "b")]
    found = check(layouts.tar_of(layouts.finish(files, *entries)))
    assert found.ref_names == ("a", "b")


def test_verification_can_be_stopped_within_a_large_blob() -> None:
    class StopError(Exception):
        pass

    calls = 0

    def stop() -> None:
        nonlocal calls
        calls += 1
        if calls == 12:
            raise StopError

    data = layouts.tar_of(layouts.image_files(layers=[b"\0" * 100_000_000]))
    with pytest.raises(StopError):
        verify(io.BytesIO(data), check=stop)
