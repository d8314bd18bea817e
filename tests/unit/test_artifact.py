"""Archives of every form as what can be pushed, and which file a path means."""

from __future__ import annotations

import gzip
import hashlib
import io
import json
import os
import tarfile
from collections.abc import Callable
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from plp_builder.errors import ArchiveInvalid
from plp_builder.oci import artifact, layers
from plp_builder.oci.artifact import Artifact
from plp_builder.oci.model import (
    Descriptor,
    Digest,
    Platform,
    descriptor_members,
    parse_descriptor,
)
from tests.support import archives, layouts, malformed
from tests.support.archives import END, member
from tests.support.layouts import Files
from tests.support.malformed.making import NOWHERE, index_of

MANIFEST = layouts.MANIFEST
LAYERS = tuple(member(name, name.encode()) + END for name in ("one", "two", "one"))


def read(data: bytes) -> Artifact:
    return artifact.read(io.BytesIO(data), check=lambda: None)


def content(data: bytes, found: Artifact, digest: str) -> bytes:
    """The bytes that a reader of the artifact would be given."""
    blob = {str(key): blob for key, blob in found.blobs.items()}[digest]
    if blob.data is not None:
        return blob.data
    return data[blob.offset : blob.offset + blob.descriptor.size]


def consistent(data: bytes, found: Artifact) -> dict[str, object]:
    """Check that everything which the artifact names is there; its top manifest comes back."""
    assert found.size == len(data)
    assert found.blobs[found.top.digest].descriptor == found.top
    for digest, blob in found.blobs.items():
        bytes_ = content(data, found, digest)
        assert f"sha256:{hashlib.sha256(bytes_).hexdigest()}" == digest
        assert len(bytes_) == blob.descriptor.size
    top = json.loads(content(data, found, found.top.digest))
    assert isinstance(top, dict)
    if "layers" in top:
        named = {each["digest"] for each in (top["config"], *(top["layers"] or ()))}
        assert named == {str(digest) for digest in found.blobs} - {str(found.top.digest)}
    return top


def pushed(found: Artifact) -> object:
    """All that a registry gets. The names in index.json, annotations, are not part of it."""
    blobs = {key: (blob.descriptor[:3], blob[1:]) for key, blob in found.blobs.items()}
    return (found.top[:3], blobs)


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


@pytest.mark.parametrize("size", [0, 1, 256 * 1024, 256 * 1024 + 1, 3_000_000])
@pytest.mark.parametrize("step", [1 << 10, 1 << 20])
def test_layers_of_any_size_have_both_digests(size: int, step: int) -> None:
    """Also those whose last piece fills the output exactly."""
    plain = bytes(size)
    packed = gzip.compress(plain, mtime=0)
    spent: list[int] = []
    hashed = layers.LayerHash("x", spent.append)
    for start in range(0, len(packed), step):
        hashed.update(memoryview(packed)[start : start + step])
    hashed.finish()
    assert sum(spent) >= size
    assert hashed.digest == f"sha256:{hashlib.sha256(packed).hexdigest()}"
    assert hashed.diff_id == f"sha256:{hashlib.sha256(plain).hexdigest()}"


def test_endless_layers_are_refused(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(layers, "MAX_UNPACKED", 1_000_000)
    with pytest.raises(ArchiveInvalid, match="more than 1000000 bytes"):
        read(archives.crane_pull([bytes(1_000_001)]))


def test_all_layers_together_have_a_bound(monkeypatch: pytest.MonkeyPatch) -> None:
    """Each alone would pass, and a hundred thousand of them would take weeks."""
    monkeypatch.setattr(layers, "MAX_UNPACKED", 1_000_000)
    consistent(data := archives.crane_pull([bytes(400_000), bytes(400_001)]), read(data))
    with pytest.raises(ArchiveInvalid, match="more than 1000000 bytes"):
        read(archives.crane_pull([bytes(400_000), bytes(400_001), bytes(400_002)]))


class StopError(Exception):
    """What a check raises."""


@pytest.mark.parametrize(
    "layer",
    [gzip.compress(bytes(100 << 20), mtime=0), gzip.compress(b"", mtime=0) * 20_000],
    ids=["much content", "many empty members"],
)
def test_a_stop_is_seen_while_little_becomes_much(layer: bytes) -> None:
    """Input alone says nothing: a piece of it may take minutes to unpack."""
    checks: list[int] = []

    def spend(size: int) -> None:
        checks.append(size)
        if len(checks) == 3:
            raise StopError

    assert len(layer) < 1 << 20
    with pytest.raises(StopError):
        layers.LayerHash("x", spend).update(memoryview(layer))
    assert max(checks) < 5 << 20


def test_the_caller_is_asked_while_a_layer_is_unpacked() -> None:
    """However small the layer in the archive is."""
    data = archives.crane_pull([bytes(100 << 20)])
    calls: list[None] = []
    artifact.read(io.BytesIO(data), check=lambda: calls.append(None))
    assert len(calls) > 20


def test_a_manifest_that_no_registry_takes_is_not_made(monkeypatch: pytest.MonkeyPatch) -> None:
    from plp_builder.oci import docker_archive

    monkeypatch.setattr(docker_archive, "MAX_DOCUMENT_SIZE", 500)
    with pytest.raises(ArchiveInvalid, match="more layers than"):
        read(archives.docker_save(LAYERS))


def test_many_documents_are_refused(monkeypatch: pytest.MonkeyPatch) -> None:
    from plp_builder.oci import contents

    monkeypatch.setattr(contents, "MAX_DOCUMENTS_SIZE", 500)
    with pytest.raises(ArchiveInvalid, match="documents exceed 500 bytes"):
        read(malformed.good())


def test_documents_of_very_many_values_are_refused_before_they_are_parsed() -> None:
    """Two bytes of JSON can become an object of a hundred bytes in memory."""
    data = b'{"os":"linux","architecture":"amd64","x":[' + b",".join([b"{}"] * 1_000_000) + b"]}"
    files: Files = {}
    config = layouts.add_blob(files, data, layouts.CONFIG)
    manifest = {"schemaVersion": 2, "config": config, "layers": []}
    layouts.finish(files, layouts.add_json(files, manifest, layouts.MANIFEST))
    with pytest.raises(ArchiveInvalid, match="hold more than 1000000 values"):
        read(layouts.tar_of(files))


def test_an_index_of_a_thousand_images_is_read() -> None:
    files: Files = {}
    entries = []
    for number in range(1000):
        history = [{"created_by": f"{number} " + "x" * 100}] * 20
        config = {"os": "linux", "architecture": "amd64", "history": history}
        manifest = {
            "schemaVersion": 2,
            "config": layouts.add_json(files, config, layouts.CONFIG),
            "layers": [],
        }
        entries.append(layouts.add_json(files, manifest, layouts.MANIFEST))
    index = {"schemaVersion": 2, "mediaType": layouts.INDEX, "manifests": entries}
    layouts.finish(files, layouts.add_json(files, index, layouts.INDEX))
    assert len(read(layouts.tar_of(files)).images) == 1000


def test_a_layout_in_a_directory_comes_with_the_next_step() -> None:
    with pytest.raises(ArchiveInvalid) as refused:
        read(malformed.cases()["layout-in-a-directory"]())
    assert "'image'" in refused.value.hint
    assert "tar -C" in refused.value.hint


def test_a_layer_that_lies_elsewhere_comes_with_the_next_step() -> None:
    with pytest.raises(ArchiveInvalid) as refused:
        read(malformed.cases()["layer-elsewhere"]())
    assert "lie elsewhere" in refused.value.hint


FORMS = {
    "docker-save": archives.docker_save(LAYERS[:2] + LAYERS[:1]),
    "docker-save-25": archives.docker_save_25(LAYERS),
    "skopeo": archives.skopeo_copy(LAYERS[:1]),
    "layout": malformed.good(),
}


@pytest.mark.parametrize("form", FORMS)
@given(st.data())
def test_a_flipped_byte_never_changes_what_is_pushed(form: str, data: st.DataObject) -> None:
    """The archive is refused, or the byte is one that nothing depends on."""
    good = FORMS[form]
    position = data.draw(st.integers(0, len(good.rstrip(b"\0")) - 1))
    changed = bytearray(good)
    changed[position] ^= data.draw(st.integers(1, 255))
    try:
        found = read(bytes(changed))
    except ArchiveInvalid:
        return
    assert pushed(found) == pushed(read(good))


@given(st.integers(0, 255), st.data())
def test_a_flipped_byte_in_compressed_layers_never_changes_their_content(
    flip: int, data: st.DataObject
) -> None:
    """Of gzip's header parts mean nothing; the manifest is another then, the image is not."""
    good = archives.crane_pull(LAYERS[:2])
    changed = bytearray(good)
    changed[data.draw(st.integers(0, len(good.rstrip(b"\0")) - 1))] ^= flip
    try:
        found = read(bytes(changed))
    except ArchiveInvalid:
        return
    consistent(bytes(changed), found)
    assert found.images[0].config == read(good).images[0].config


@pytest.mark.parametrize("form", FORMS)
@given(st.data())
def test_an_archive_that_is_cut_off_anywhere_is_refused(form: str, data: st.DataObject) -> None:
    good = FORMS[form]
    with pytest.raises(ArchiveInvalid):
        read(good[: data.draw(st.integers(0, len(good) - 1))])


@given(st.binary(max_size=3000) | st.binary(max_size=600).map(lambda body: member("a", body) + END))
def test_any_bytes_are_refused(data: bytes) -> None:
    with pytest.raises(ArchiveInvalid):
        read(data)


def test_a_file_is_taken_as_it_is(tmp_path: Path) -> None:
    path = tmp_path / "any name"
    path.write_bytes(malformed.good())
    assert artifact.choose(path) == path
    with artifact.opened(path) as file:
        assert artifact.read(file, check=lambda: None).top == read(malformed.good()).top


@pytest.mark.parametrize("name", ["a.tar", "a.tar.gz", "a.tgz"])
def test_the_one_archive_of_a_directory_is_taken(tmp_path: Path, name: str) -> None:
    for other in ("result.json", ".hidden.tar", "report.html"):
        (tmp_path / other).touch()
    (tmp_path / "directory.tar").mkdir()
    os.mkfifo(tmp_path / "fifo.tar")
    (tmp_path / name).touch()
    assert artifact.choose(tmp_path) == tmp_path / name


def test_a_link_to_an_archive_is_one(tmp_path: Path) -> None:
    """Volumes of Kubernetes are full of links."""
    (tmp_path / "data").touch()
    (tmp_path / "image.tar").symlink_to("data")
    assert artifact.choose(tmp_path) == tmp_path / "image.tar"


@pytest.mark.parametrize("count", [2, 15])
def test_several_archives_in_a_directory_are_named(tmp_path: Path, count: int) -> None:
    for number in range(count):
        (tmp_path / f"{number:02}\n.tar").touch()
    with pytest.raises(ArchiveInvalid, match=f"There are {count} archives") as refused:
        artifact.choose(tmp_path)
    assert refused.value.why[:2] == ("'00\\n.tar'", "'01\\n.tar'")
    assert len(refused.value.why) <= 11


def test_a_directory_without_archives_is_refused(tmp_path: Path) -> None:
    (tmp_path / "result.json").touch()
    with pytest.raises(ArchiveInvalid, match="no archive in the directory"):
        artifact.choose(tmp_path)


def test_an_unpacked_layout_comes_with_the_next_step(tmp_path: Path) -> None:
    layouts.write(tmp_path, layouts.image_files())
    with pytest.raises(ArchiveInvalid, match="not in an archive") as refused:
        artifact.choose(tmp_path)
    assert "tar -C" in refused.value.hint


def test_what_is_missing_is_refused(tmp_path: Path) -> None:
    for path in (tmp_path / "missing.tar", tmp_path / "no" / "directory"):
        for look in (artifact.choose, artifact.opened):
            with pytest.raises(ArchiveInvalid, match="There is no archive at"):
                look(path)
    (tmp_path / "file").touch()
    with pytest.raises(ArchiveInvalid, match="cannot be read") as refused:
        artifact.choose(tmp_path / "file" / "x")
    assert refused.value.why == ("Not a directory",)
    (tmp_path / "loop").symlink_to("loop")
    with pytest.raises(ArchiveInvalid, match="cannot be read"):
        artifact.choose(tmp_path / "loop")


def test_what_is_no_regular_file_is_refused_without_waiting(tmp_path: Path) -> None:
    os.mkfifo(tmp_path / "fifo")
    for path in (tmp_path / "fifo", Path("/dev/null")):
        with pytest.raises(ArchiveInvalid, match="is not a regular file"):
            artifact.choose(path)


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
