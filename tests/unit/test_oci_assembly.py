"""The archive that is written from a layout: what is in it, in which order, and what is refused."""

from __future__ import annotations

import io
import json
import os
import tarfile
from collections.abc import Callable
from pathlib import Path

import pytest

from plp_builder.errors import ArchiveInvalid
from plp_builder.oci import archive, assembly, copying, layout, model
from plp_builder.oci.layout import BlobDamaged
from plp_builder.oci.model import Descriptor
from tests.support import layouts

CREATED = {"org.opencontainers.image.created": "1970-01-01T00:00:00Z"}
LATEST = {"org.opencontainers.image.ref.name": "latest"}
LAYERS = (b"a" * 70_000, b"second layer")


class Made:
    """A layout in a directory, and the image in it."""

    def __init__(self, directory: Path, files: layouts.Files, entry: layouts.Json) -> None:
        self.directory = directory
        self.files = files
        self.top: Descriptor = model.parse_descriptor(entry, "the image")
        layouts.write(directory, layouts.finish(dict(files), entry))

    def blob(self, data: bytes) -> Path:
        return self.directory / "blobs/sha256" / layouts.sha256(data)

    @property
    def manifest(self) -> bytes:
        return self.files[f"blobs/sha256/{self.top.digest.encoded}"]

    def assemble(self, **options: object) -> bytes:
        """The archive's bytes."""
        target = self.directory.parent / "archive.tar"
        with target.open("w+b") as file:
            size = assembly.assemble(file.fileno(), self.directory, self.top, **options)  # type: ignore[arg-type]
        data = target.read_bytes()
        assert size == len(data)
        return data


@pytest.fixture
def image(tmp_path: Path) -> Made:
    files: layouts.Files = {}
    platform = {"os": "linux", "architecture": "arm", "variant": "v7"}
    entry = layouts.add_image(files, LAYERS, annotations=CREATED | LATEST)
    entry |= {"annotations": CREATED | LATEST, "platform": platform}
    return Made(tmp_path / "layout", files, entry)


@pytest.fixture
def several(tmp_path: Path) -> Made:
    """An index of two platforms that share a layer."""
    files: layouts.Files = {}
    entries = [
        layouts.add_image(files, (LAYERS[0], name.encode()), architecture=name)
        for name in ("amd64", "arm64")
    ]
    index = {"schemaVersion": 2, "mediaType": layouts.INDEX, "manifests": entries}
    entry = layouts.add_json(files, index, layouts.INDEX, annotations=CREATED)
    return Made(tmp_path / "layout", files, entry)


def contents(data: bytes) -> dict[str, bytes]:
    with tarfile.open(fileobj=io.BytesIO(data)) as tar:
        found = {member.name: tar.extractfile(member) for member in tar}
    return {name: file.read() for name, file in found.items() if file}


def index_entry(data: bytes) -> layouts.Json:
    (entry,) = json.loads(contents(data)["index.json"])["manifests"]
    assert isinstance(entry, dict)
    return entry


def test_all_blobs_of_the_image_and_nothing_else(image: Made) -> None:
    layouts.write(image.directory, {"blobs/sha256/" + "0" * 64: b"of another image"})
    data = image.assemble()
    assert contents(data).keys() == image.files.keys() | {
        *("index.json", "manifest.json", "oci-layout")
    }
    assert {name: contents(data)[name] for name in image.files} == image.files
    found = archive.verify(io.BytesIO(data))
    assert found.top.digest == image.top.digest
    assert found.has_docker_manifest


def test_members_are_as_buildkit_writes_them(image: Made) -> None:
    with tarfile.open(fileobj=io.BytesIO(image.assemble())) as tar:
        members = tar.getmembers()
    names = [member.name for member in members]
    assert names == sorted(names)
    assert names[:2] == ["blobs", "blobs/sha256"]
    blob, file, directory = 0o444, 0o644, 0o755
    modes = {"index.json": file, "manifest.json": file, "blobs": directory}
    modes["blobs/sha256"] = directory
    assert {member.name: member.mode for member in members} == dict.fromkeys(names, blob) | modes
    assert {(m.uid, m.gid, m.uname, m.gname, m.mtime) for m in members} == {(0, 0, "", "", 0)}


def test_the_same_layout_gives_the_same_bytes(image: Made) -> None:
    first = image.assemble(names=["app"])
    for path in image.directory.rglob("*"):
        os.utime(path, (1, 1))
    image.top = image.top._replace(annotations=dict(reversed(dict(image.top.annotations).items())))
    assert image.assemble(names=["app"]) == first


def test_the_one_entry_has_no_name_where_none_is_asked_for(image: Made) -> None:
    """buildctl calls an image without a name ``latest`` in a layout, but not in an archive."""
    entry = index_entry(image.assemble())
    assert entry == {
        "mediaType": layouts.MANIFEST,
        "digest": image.top.digest,
        "size": image.top.size,
        "annotations": CREATED,
        "platform": {"architecture": "arm", "os": "linux", "variant": "v7"},
    }
    assert list(entry["platform"]) == ["architecture", "os", "variant"]


def test_names_are_those_of_the_output(image: Made) -> None:
    data = image.assemble(names=["app", "localhost:5000/team/app:1", "docker.io/library/app"])
    assert list(index_entry(data)["annotations"].items()) == [
        ("io.containerd.image.name", "docker.io/library/app:latest"),
        ("org.opencontainers.image.created", "1970-01-01T00:00:00Z"),
        ("org.opencontainers.image.ref.name", "latest"),
    ]
    (entry,) = json.loads(contents(data)["manifest.json"])
    assert entry["RepoTags"] == ["app:latest", "localhost:5000/team/app:1"]
    assert [contents(data)[name] for name in entry["Layers"]] == list(LAYERS)


def test_an_image_without_layers(tmp_path: Path) -> None:
    files: layouts.Files = {}
    made = Made(tmp_path / "layout", files, layouts.add_image(files, ()))
    (entry,) = json.loads(contents(made.assemble())["manifest.json"])
    assert (entry["RepoTags"], entry["Layers"]) == (None, None)


def test_an_index_has_no_manifest_for_docker(several: Made) -> None:
    data = several.assemble(names=["app:1"])
    assert "manifest.json" not in contents(data)
    found = archive.verify(io.BytesIO(data))
    assert [str(platform) for platform in found.platforms] == ["linux/amd64", "linux/arm64"]
    assert found.ref_names == ("docker.io/library/app:1",)


def test_formats(image: Made, several: Made) -> None:
    assert "manifest.json" not in contents(image.assemble(archive_format="oci"))
    assert "manifest.json" in contents(image.assemble(archive_format="docker"))
    with pytest.raises(ArchiveInvalid, match="several platforms"):
        several.assemble(archive_format="docker")


def swap_for_link(path: Path) -> None:
    other = path.rename(path.with_name("moved"))
    path.symlink_to(other)


def swap_for_fifo(path: Path) -> None:
    path.unlink()
    os.mkfifo(path)


def swap_for_directory(path: Path) -> None:
    path.unlink()
    path.mkdir()


@pytest.mark.parametrize(
    ("spoil", "said"),
    [
        (Path.unlink, "is missing"),
        (swap_for_link, "is not a regular file"),
        (swap_for_fifo, "is not a regular file"),
        (swap_for_directory, "is not a regular file"),
        (lambda path: os.truncate(path, 3), "has 3 bytes"),
        (lambda path: os.truncate(path, 100_000), "has 100000 bytes"),
    ],
)
@pytest.mark.parametrize("which", ["layer", "manifest"])
def test_a_blob_that_is_none_is_refused(
    image: Made, which: str, spoil: Callable[[Path], object], said: str
) -> None:
    data = LAYERS[0] if which == "layer" else image.manifest
    spoil(image.blob(data))
    with pytest.raises(BlobDamaged, match=said) as caught:
        image.assemble()
    assert caught.value.digest == f"sha256:{layouts.sha256(data)}"


def test_a_document_with_other_content_is_refused(image: Made) -> None:
    image.blob(image.manifest).write_bytes(image.manifest.replace(b'"size": 12', b'"size": 13'))
    with pytest.raises(BlobDamaged, match="other content"):
        image.assemble()


def test_a_blob_that_is_swapped_while_it_is_opened_is_refused(
    image: Made, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Between the look at its name and its opening."""
    target = image.blob(LAYERS[0])
    looked = layout.blob_status

    def look_and_swap(directory: Path, descriptor: Descriptor) -> os.stat_result:
        found = looked(directory, descriptor)
        if descriptor.digest.encoded == target.name:
            swap_for_link(target)
        return found

    monkeypatch.setattr(layout, "blob_status", look_and_swap)
    with pytest.raises(BlobDamaged, match="cannot be read"):
        image.assemble()


def test_only_files_that_are_known_are_taken(image: Made) -> None:
    asked: list[str] = []

    def holds(encoded: str, status: os.stat_result) -> bool:
        asked.append(encoded)
        return status.st_ino == image.blob(LAYERS[0]).stat().st_ino or encoded != (
            layouts.sha256(LAYERS[0])
        )

    image.assemble(holds=holds)
    assert set(asked) == {name.removeprefix("blobs/sha256/") for name in image.files}
    path = image.blob(LAYERS[0])
    known = path.stat()
    path.unlink()
    path.with_name("keeps the inode").write_bytes(b"")
    path.write_bytes(LAYERS[0])
    with pytest.raises(BlobDamaged, match="changed after it had been verified"):
        image.assemble(holds=lambda encoded, found: encoded != path.name or _look(found, known))


def _look(one: os.stat_result, other: os.stat_result) -> bool:
    return (one.st_size, one.st_mtime_ns, one.st_ino) == (
        *(other.st_size, other.st_mtime_ns, other.st_ino),
    )


@pytest.mark.parametrize("change", ["content", "longer", "shorter"])
@pytest.mark.parametrize("with_record", [True, False])
def test_a_blob_that_changes_while_it_is_copied_is_refused(
    image: Made, monkeypatch: pytest.MonkeyPatch, change: str, with_record: bool
) -> None:
    monkeypatch.setattr(copying, "_CHUNK", 10_000)
    path = image.blob(LAYERS[0])
    os.utime(path, (1, 1))  # the clock of a file system may stand still for some milliseconds
    known = path.stat()
    copied = copying.copy

    def copy_and_change(
        source: int, target: int, size: int, offset: int, check: Callable[[], None]
    ) -> int:
        rounds = iter(range(100))

        def then_change() -> None:
            if next(rounds) == 3 and size == len(LAYERS[0]):
                data = LAYERS[0].replace(b"a", b"b")
                path.write_bytes({"longer": data + b"x", "shorter": data[:-1]}.get(change, data))
            check()

        return copied(source, target, size, offset, then_change)

    monkeypatch.setattr(assembly, "copy", copy_and_change)
    holds = (
        (lambda encoded, found: encoded != path.name or _look(found, known))
        if with_record
        else None
    )
    with pytest.raises(BlobDamaged, match="changed after it had been verified"):
        image.assemble(holds=holds)


def test_the_check_ends_it(image: Made, monkeypatch: pytest.MonkeyPatch) -> None:
    class StopError(Exception):
        pass

    monkeypatch.setattr(copying, "_CHUNK", 1000)
    calls = 0

    def check() -> None:
        nonlocal calls
        calls += 1
        if calls == 30:
            raise StopError

    with pytest.raises(StopError):
        image.assemble(check=check)
    assert (image.directory.parent / "archive.tar").stat().st_size < len(LAYERS[0])
