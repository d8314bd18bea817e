"""Verifying archives: what BuildKit makes passes, whatever else is refused with a reason."""

from __future__ import annotations

import bz2
import gzip
import io
import json
import lzma
import tarfile
from collections.abc import Callable
from functools import partial
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from plp_builder.errors import ArchiveInvalid
from plp_builder.oci import tar, walk
from plp_builder.oci.archive import Archive, verify
from tests.support import layouts
from tests.support.layouts import Files, Json


def check(data: bytes) -> Archive:
    return verify(io.BytesIO(data))


def refuse(data: bytes, reason: str) -> ArchiveInvalid:
    with pytest.raises(ArchiveInvalid, match=reason) as refused:
        check(data)
    return refused.value


def with_member(change: Callable[[tarfile.TarInfo], None], name: str = "extra") -> bytes:
    """A good archive with one more member that ``change`` has made unusual."""
    buffer = io.BytesIO(layouts.tar_of(layouts.image_files()))
    with tarfile.open(fileobj=buffer, mode="a", format=tarfile.GNU_FORMAT) as tar:
        member = tarfile.TarInfo(name)
        change(member)
        tar.addfile(member, io.BytesIO(b"x" * member.size))
    return buffer.getvalue()


def unchanged(_: tarfile.TarInfo) -> None:
    """Nothing is unusual but the name."""


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


def with_index(text: bytes) -> bytes:
    return layouts.tar_of(layouts.image_files() | {"index.json": text})


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


@pytest.mark.parametrize(
    ("data", "reason"),
    [
        (b"", "is empty"),
        (b"\0" * 10240, "holds no files"),
        (b"hello", "not a tar"),
        (b"x" * 2048, "not a tar"),
        (gzip.compress(b"x" * 2048), "compressed with gzip"),
        (bz2.compress(b"x" * 2048), "compressed with bzip2"),
        (lzma.compress(b"x" * 2048), "compressed with xz"),
        (b"\x28\xb5\x2f\xfd" + b"x" * 2048, "compressed with zstd"),
    ],
)
def test_what_is_no_archive_is_refused(data: bytes, reason: str) -> None:
    refuse(data, reason)


def test_a_compressed_archive_comes_with_the_next_step() -> None:
    assert "gzip -d" in refuse(gzip.compress(b"x" * 2048), "compressed").hint


_GOOD = layouts.tar_of(layouts.image_files())
_END = len(_GOOD.rstrip(b"\0"))


@given(st.integers(1, _END // 512 * 512 + 1024))
def test_an_archive_that_is_cut_off_anywhere_is_refused(length: int) -> None:
    refuse(_GOOD[:length], "cut off|not a tar|became shorter")


@given(st.integers(0, _END - 1), st.integers(1, 255))
def test_a_flipped_byte_never_changes_what_an_archive_is(position: int, flip: int) -> None:
    """It is refused, or hits what nothing depends on: then all that is read is the same."""
    data = bytearray(_GOOD)
    data[position] ^= flip
    try:
        found = check(bytes(data))
    except ArchiveInvalid:
        return
    good = check(_GOOD)
    assert (found.top, found.images) == (good.top, good.images)


@pytest.mark.parametrize(
    "name", ["../x", "a/../../x", "/etc/passwd", "a//b", "./../x", "a/./b", "", "blobs/.."]
)
def test_a_name_that_leads_elsewhere_is_refused(name: str) -> None:
    refuse(with_member(unchanged, name), "leads elsewhere|long name")


@pytest.mark.parametrize(
    ("kind", "what"),
    [
        (tarfile.SYMTYPE, "symbolic link"),
        (tarfile.LNKTYPE, "hard link"),
        (tarfile.CHRTYPE, "character device"),
        (tarfile.BLKTYPE, "block device"),
        (tarfile.FIFOTYPE, "FIFO"),
        (tarfile.GNUTYPE_SPARSE, "sparse"),
        (b"Z", "type 'Z'"),
    ],
)
def test_only_files_and_directories_are_taken(kind: bytes, what: str) -> None:
    def change(member: tarfile.TarInfo) -> None:
        member.type = kind
        member.linkname = "index.json"

    refuse(with_member(change), what)


@pytest.mark.parametrize("name", ["index.json", "./index.json", "././index.json"])
def test_a_name_that_comes_twice_is_refused(name: str) -> None:
    refuse(with_member(unchanged, name), "twice")


def test_a_header_whose_checksum_is_wrong_is_refused() -> None:
    """Even where the byte that changed means nothing, as in a member's time."""
    data = bytearray(_GOOD)
    data[512 + 136] ^= 1
    refuse(bytes(data), "no valid member header at byte 512")


def test_a_directory_has_no_content() -> None:
    def change(member: tarfile.TarInfo) -> None:
        member.type = tarfile.DIRTYPE
        member.size = 512

    refuse(with_member(change), "directory with content")


def test_the_member_that_is_cut_off_is_named() -> None:
    data = layouts.tar_of({"index.json": b"x" * 5000})
    refuse(data[:4096], "ends inside 'index.json'")


def test_content_behind_the_end_is_refused() -> None:
    refuse(_GOOD + b"x" * 512, "behind its end")


@pytest.mark.parametrize("size", [b"99999999999\0", b"-0000000001\0", b"\x80" + b"\xff" * 11])
def test_a_size_that_is_none_is_refused(size: bytes) -> None:
    header = bytearray(layouts.tar_of({"index.json": b""})[1024:1536])
    header[124:136] = size
    header[148:156] = b" " * 8
    header[148:156] = b"%06o\0 " % sum(header)
    refuse(bytes(header) + b"\0" * 1024, "no valid size|directory with content")


def test_a_binary_size_is_read() -> None:
    """GNU's way to write sizes beyond 8 GiB."""
    data = bytearray(_GOOD)
    start = data.index(b"index.json")
    length = int(data[start + 124 : start + 135], 8)
    data[start + 124 : start + 136] = b"\x80" + length.to_bytes(11, "big")
    data[start + 148 : start + 156] = b" " * 8
    data[start + 148 : start + 156] = b"%06o\0 " % sum(data[start : start + 512])
    assert check(bytes(data)).top == check(_GOOD).top


def test_too_many_members_are_refused(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(tar, "MAX_MEMBERS", 3)
    refuse(_GOOD, "more than 3 members")


def test_too_many_blobs_are_refused(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(walk, "MAX_DESCRIPTORS", 3)
    refuse(_GOOD, "more than 3 blobs")


def test_padding_behind_the_end_is_no_content() -> None:
    assert check(_GOOD + b"\0" * 10240).top == check(_GOOD).top


def with_pax(body: bytes) -> bytes:
    """A good archive whose first member, of 3 bytes, has a pax header."""
    buffer = io.BytesIO()
    with tarfile.open(fileobj=buffer, mode="w") as tar:
        header = tarfile.TarInfo("pax")
        header.type = tarfile.XHDTYPE
        header.size = len(body)
        tar.addfile(header, io.BytesIO(body))
        layouts.add_member(tar, "extra", b"abc")
        for name, data in sorted(layouts.image_files().items()):
            layouts.add_member(tar, name, data)
    return buffer.getvalue()


def test_a_pax_header_counts() -> None:
    """Sizes beyond 8 GiB come that way; two readers must not see different members."""
    found = check(with_pax(b"10 size=2\n14 path=other\n"))
    assert found.members["other"].size == 2
    assert "extra" not in found.members


@pytest.mark.parametrize(
    "body",
    [
        b"12 size=999\n",
        b"11 size=-3\n",
        b"99 size=3\n",
        b"10 path=.\n",
        b"0 \n",
        b"size=3\n",
        b"10 size=3\n10 size=3\n",
        b"19 GNU.sparse.map=\n",
        b"29 size=9999999999999999999\n",
    ],
)
def test_a_pax_header_that_cannot_be_right_is_refused(body: bytes) -> None:
    with pytest.raises(ArchiveInvalid):
        check(with_pax(body))


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


def test_an_archive_that_shrinks_while_it_is_hashed_is_refused() -> None:
    class Shrunk(io.BytesIO):
        def readinto(self, _: object) -> int:
            return 0

    with pytest.raises(ArchiveInvalid, match="became shorter"):
        verify(Shrunk(_GOOD))


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
