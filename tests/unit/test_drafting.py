"""What is written of an archive before its image is there, and what becomes of it."""

from __future__ import annotations

import json
import os
from collections.abc import Callable, Iterator
from pathlib import Path
from threading import Event, Thread

import pytest

from plp_builder import drafting
from plp_builder.buildkit.options import Options
from plp_builder.cache.verification import Record, verify
from plp_builder.drafting import Drafting
from plp_builder.oci import assembly, layout, model
from plp_builder.oci.assembly import Draft
from plp_builder.oci.model import Descriptor, Digest
from plp_builder.solve import CacheExport, LocalCache, SolveRequest
from plp_builder.values import KeyValue
from tests.support import layouts

LAYERS = (b"a" * 70_000, b"second layer", b"third")
OLD = {"org.opencontainers.image.created": "2001-01-01T00:00:00Z", "title": 'a <b> & "c" é'}
NEW = {"org.opencontainers.image.created": "2002-02-02T00:00:00Z", "title": "d <e> & f ü"}


def asked(annotations: dict[str, str], *more: KeyValue) -> SolveRequest:
    pairs = [KeyValue(f"annotation.{key}", value) for key, value in annotations.items()]
    output = (KeyValue("type", "oci"), KeyValue("dest", "/somewhere"), *pairs, *more)
    options = (KeyValue("target", "app"),)
    return SolveRequest("dockerfile.v0", options, (("context", Path("/source")),), output=output)


def go(document: object) -> bytes:
    """As Go's encoding/json writes it, indented as BuildKit's manifests are."""
    text = json.dumps(document, indent=2, ensure_ascii=False)
    for plain in "<>&":
        text = text.replace(plain, f"\\u{ord(plain):04x}")
    return text.encode()


def put(directory: Path, annotations: dict[str, str], layers: tuple[bytes, ...]) -> Descriptor:
    """An image in a layout, as BuildKit writes it and the builder verifies it."""
    files: layouts.Files = {}
    entry = layouts.add_image(files, layers, annotations=annotations)
    document = json.loads(files.pop(f"blobs/sha256/{entry['digest'].removeprefix('sha256:')}"))
    entry = layouts.add_blob(files, go(document), layouts.MANIFEST)
    layouts.write(directory, {k: v for k, v in files.items() if not (directory / k).exists()})
    top = model.parse_descriptor(entry, "the image")
    record = Record.read(directory)
    nodes = layout.reachable(directory, top)
    assert not verify(directory, [each.descriptor for each in nodes], record, check=lambda: None)
    record.write(directory)
    return top


@pytest.fixture
def place(tmp_path: Path) -> Path:
    return tmp_path / "layout"


@pytest.fixture
def file(tmp_path: Path) -> Iterator[int]:
    descriptor = os.open(tmp_path / "archive.tar", os.O_CREAT | os.O_RDWR)
    yield descriptor
    os.close(descriptor)


def drafted(file: int, place: Path, last: Descriptor, top: Digest | None) -> Draft:
    return Drafting(file, place, drafting.expected(place, last, asked(NEW))).finish(top)


def whole(place: Path, top: Descriptor, tmp_path: Path) -> bytes:
    """The archive that nothing was written of before."""
    with (tmp_path / "whole.tar").open("w+b") as target:
        assembly.assemble(target.fileno(), place, top)
    return (tmp_path / "whole.tar").read_bytes()


def written(tmp_path: Path) -> bytes:
    return (tmp_path / "archive.tar").read_bytes()


def test_an_image_with_other_annotations_is_foreseen_to_the_byte(place: Path) -> None:
    last = put(place, OLD, LAYERS)
    nodes = drafting.expected(place, last, asked(NEW))
    top = put(place, NEW, LAYERS)
    assert (nodes[0].descriptor.digest, nodes[0].descriptor.size) == (top.digest, top.size)
    assert [node.descriptor.digest for node in nodes[1:]] == [
        node.descriptor.digest for node in list(layout.reachable(place, top))[1:]
    ]


def test_its_manifest_is_known_to_the_byte(place: Path) -> None:
    last = put(place, OLD, LAYERS)
    content = drafting.manifest(place, last, asked(NEW))
    top = put(place, NEW, LAYERS)
    assert layout.read_document(place, top) == content
    assert drafting.described(last, content) == top


def test_without_annotations_it_is_the_old_one(place: Path) -> None:
    last = put(place, {}, LAYERS)
    assert drafting.manifest(place, last, asked({})) == layout.read_document(place, last)


@pytest.mark.parametrize(
    ("had", "wanted"),
    [(OLD, {}), ({}, NEW), (OLD, NEW | {"more": "1"}), (OLD, {"title": "d"})],
    ids=["fewer", "new", "more", "one less"],
)
def test_where_there_are_other_annotations_it_is_not_known(
    place: Path, had: dict[str, str], wanted: dict[str, str]
) -> None:
    assert drafting.manifest(place, put(place, had, LAYERS), asked(wanted)) == b""


def test_nor_where_something_else_looks_like_an_annotation(place: Path) -> None:
    """Here a layer has one of the same name and value, and comes first."""
    files: layouts.Files = {}
    entry = layouts.add_image(files, (b"layer",), annotations={"title": "old"})
    document = json.loads(files.pop(f"blobs/sha256/{entry['digest'].removeprefix('sha256:')}"))
    document["layers"][0]["annotations"] = {"title": "old"}
    entry = layouts.add_blob(files, go(document), layouts.MANIFEST)
    layouts.write(place, files)
    last = model.parse_descriptor(entry, "the image")
    assert drafting.manifest(place, last, asked({"title": "new"})) == b""
    assert drafting.manifest(place, last, asked({"title": "old"})) == go(document)


def test_what_was_foreseen_is_not_written_again(
    place: Path, file: int, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    last = put(place, OLD, LAYERS)
    nodes = drafting.expected(place, last, asked(NEW))
    begun = Drafting(file, place, nodes)
    top = put(place, NEW, LAYERS)
    done = begun.finish(top.digest)
    copied: list[Digest] = []
    real = assembly._copy_blob

    def copy(file: int, directory: Path, blob: Descriptor, *rest: object) -> None:
        copied.append(blob.digest)
        real(file, directory, blob, *rest)  # type: ignore[arg-type]

    monkeypatch.setattr(assembly, "_copy_blob", copy)
    assembly.assemble(file, place, top, done=done)
    assert copied == [top.digest]
    monkeypatch.undo()
    assert written(tmp_path) == whole(place, top, tmp_path)


@pytest.mark.parametrize(
    "annotations",
    [NEW, NEW | {"title": "other"}, NEW | {"more": "1"}, {"title": NEW["title"]}, {}, OLD],
    ids=["foreseen", "value", "more", "fewer", "none", "old"],
)
@pytest.mark.parametrize("layers", [LAYERS, LAYERS[:2], (*LAYERS, b"fourth"), (b"x", *LAYERS), ()])
def test_whatever_comes_the_archive_is_right(
    place: Path,
    file: int,
    tmp_path: Path,
    annotations: dict[str, str],
    layers: tuple[bytes, ...],
) -> None:
    last = put(place, OLD, LAYERS)
    nodes = drafting.expected(place, last, asked(NEW))
    done = Drafting(file, place, nodes).finish(nodes[0].descriptor.digest)
    assert done
    top = put(place, annotations, layers)
    assembly.assemble(file, place, top, done=done)
    assert written(tmp_path) == whole(place, top, tmp_path)


def test_of_another_image_nothing_is_done(place: Path, file: int) -> None:
    last = put(place, OLD, LAYERS)
    assert drafted(file, place, last, put(place, NEW, LAYERS[:1]).digest) == {}
    assert drafted(file, place, last, None) == {}


def test_who_is_stopped_while_waiting_leaves_no_writer(
    place: Path, file: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    class StopError(Exception):
        pass

    def slow(*arguments: object) -> None:
        waiting.wait(60)
        arguments[-1]()  # type: ignore[operator] # the check, as between two pieces of a blob

    def check() -> None:
        waiting.set()
        raise StopError

    waiting = Event()
    nodes = drafting.expected(place, put(place, OLD, LAYERS), asked(NEW))
    monkeypatch.setattr(assembly, "_copy_blob", slow)
    begun = Drafting(file, place, nodes)
    with pytest.raises(StopError):
        begun.finish(nodes[0].descriptor.digest, check)
    assert not begun._thread.is_alive()


def truncated(path: Path) -> None:
    path.write_bytes(b"a")


def touched(path: Path) -> None:
    os.utime(path, (1, 1))


@pytest.mark.parametrize("spoil", [truncated, touched, Path.unlink])
def test_what_is_not_known_to_be_right_is_not_taken(
    place: Path, file: int, spoil: Callable[[Path], None]
) -> None:
    last = put(place, OLD, LAYERS)
    spoil(layout.blob_path(place, Digest(f"sha256:{layouts.sha256(LAYERS[0])}")))
    nodes = drafting.expected(place, last, asked(NEW))
    assert Drafting(file, place, nodes).finish(nodes[0].descriptor.digest) == {}


def test_a_blob_that_changes_afterwards_is_noticed(place: Path, file: int) -> None:
    last = put(place, OLD, LAYERS)
    nodes = drafting.expected(place, last, asked(NEW))
    done = Drafting(file, place, nodes).finish(nodes[0].descriptor.digest)
    top = put(place, NEW, LAYERS)
    holds = Record.read(place).holds
    touched(layout.blob_path(place, Digest(f"sha256:{layouts.sha256(LAYERS[0])}")))
    with pytest.raises(layout.BlobDamaged, match="was changed"):
        assembly.assemble(file, place, top, done=done, holds=holds)


def test_without_another_thread_nothing_is_written_early(
    place: Path, file: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    def start(_: Thread) -> None:
        raise RuntimeError("can't start new thread")

    nodes = drafting.expected(place, put(place, OLD, LAYERS), asked(NEW))
    monkeypatch.setattr(Thread, "start", start)
    assert Drafting(file, place, nodes).finish(nodes[0].descriptor.digest) == {}


def test_a_full_disk_is_not_this_ones_business(
    place: Path, file: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    def full(*_: object) -> None:
        raise OSError(28, "No space left on device")

    nodes = drafting.expected(place, put(place, OLD, LAYERS), asked(NEW))
    monkeypatch.setattr(assembly, "write_all", full)
    assert Drafting(file, place, nodes).finish(nodes[0].descriptor.digest) == {}


def test_nothing_is_foreseen_of_a_damaged_image(place: Path) -> None:
    last = put(place, OLD, LAYERS)
    layout.blob_path(place, last.digest).write_bytes(b"{}")
    assert drafting.expected(place, last, asked(NEW)) == ()
    assert drafting.manifest(place, last, asked(NEW)) == b""
    layout.blob_path(place, last.digest).unlink()
    assert drafting.expected(place, last, asked(NEW)) == ()
    assert drafting.manifest(place, last, asked(NEW)) == b""


def test_nothing_is_foreseen_of_an_index(place: Path) -> None:
    files: layouts.Files = {}
    entries = [layouts.add_image(files, (b"x",), architecture=name) for name in ("amd64", "arm64")]
    index = {"schemaVersion": 2, "mediaType": layouts.INDEX, "manifests": entries}
    entry = layouts.add_json(files, index, layouts.INDEX)
    layouts.write(place, files)
    last = model.parse_descriptor(entry, "the image")
    assert drafting.expected(place, last, asked(NEW)) == ()
    assert drafting.manifest(place, last, asked(NEW)) == b""


def test_the_same_is_asked_for_whatever_the_annotations_and_caches() -> None:
    one = asked(OLD)
    other = asked(NEW)._replace(
        cache_imports=(LocalCache(Path("/cache"), "sha256:" + "0" * 64),),
        cache_export=CacheExport(Path("/cache"), "tag", "min"),
    )
    assert drafting.key_of(one, Options(debug=True)) == drafting.key_of(other, Options())


@pytest.mark.parametrize(
    "other",
    [
        asked(OLD, KeyValue("compression", "zstd")),
        asked(OLD)._replace(options=()),
        asked(OLD)._replace(options=(KeyValue("target", "other"),)),
        asked(OLD)._replace(locals=(("context", Path("/other")),)),
        asked(OLD)._replace(no_cache=True),
    ],
)
def test_another_request_has_another_key(other: SolveRequest) -> None:
    assert drafting.key_of(other, Options()) != drafting.key_of(asked(OLD), Options())


@pytest.mark.parametrize("options", [Options(config="debug = true"), Options(flags=("--debug",))])
def test_another_daemon_has_another_key(options: Options) -> None:
    assert drafting.key_of(asked(OLD), options) != drafting.key_of(asked(OLD), Options())
