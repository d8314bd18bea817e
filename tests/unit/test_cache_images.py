"""The layout beside the state: what the last images need, within their share of the bound."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from plp_builder.cache import images, index
from plp_builder.cache.images import LAST, Images
from plp_builder.cache.verification import Record
from plp_builder.errors import ArchiveInvalid
from plp_builder.oci.layout import blob_path
from plp_builder.oci.model import Descriptor
from tests.support import layouts
from tests.support.layouts import Files

LARGE = 10**9


def no_check() -> None:
    return None


def export(directory: Path, *layers: bytes) -> None:
    """What BuildKit does to it: add what is missing, and its image to the index."""
    files: Files = {}
    entry = layouts.add_image(files, layers)
    for name, data in files.items():
        if not (directory / name).exists():
            layouts.write(directory, {name: data})
    path = directory / "index.json"
    before = json.loads(path.read_text())["manifests"] if path.exists() else []
    layouts.write(directory, layouts.finish({}, *before, entry))


def build(
    directory: Path, *layers: bytes, bound: int = LARGE, key: str = ""
) -> tuple[Descriptor, int]:
    kept = Images(directory)
    kept.begin(key)
    export(directory, *layers)
    top = images.built(directory)
    return top, kept.keep(top, bound, no_check)


def contents(directory: Path) -> set[bytes]:
    return {path.read_bytes() for path in (directory / "blobs/sha256").iterdir()}


def layers_of(directory: Path) -> set[bytes]:
    return {data for data in contents(directory) if not data.startswith(b"{")}


def test_a_build_sees_only_its_own_image(tmp_path: Path) -> None:
    first, _ = build(tmp_path, b"one")
    kept = Images(tmp_path)
    kept.begin("")
    assert not (tmp_path / "index.json").exists()
    with pytest.raises(ArchiveInvalid, match="no image"):
        images.built(tmp_path)
    export(tmp_path, b"two")
    assert images.built(tmp_path).digest != first.digest


def test_a_second_attempt_sees_only_its_own_too(tmp_path: Path) -> None:
    first, _ = build(tmp_path, b"one")
    kept = Images(tmp_path)
    kept.begin("")
    export(tmp_path, b"failed")
    kept.begin("")
    export(tmp_path, b"two")
    kept.keep(images.built(tmp_path), LARGE, no_check)
    assert layers_of(tmp_path) == {b"one", b"two"}
    assert index.read(tmp_path).entries[0].digest == first.digest


def test_images_of_earlier_builds_stay_for_a_return_to_them(tmp_path: Path) -> None:
    tops = [build(tmp_path, b"base", str(number).encode())[0] for number in range(3)]
    assert [entry.digest for entry in index.read(tmp_path).entries] == [top.digest for top in tops]
    assert layers_of(tmp_path) == {b"base", b"0", b"1", b"2"}


def test_one_that_is_built_again_is_the_newest(tmp_path: Path) -> None:
    first, _ = build(tmp_path, b"one")
    second, _ = build(tmp_path, b"two")
    build(tmp_path, b"one")
    found = [entry.digest for entry in index.read(tmp_path).entries]
    assert found == [second.digest, first.digest]


def test_no_more_than_the_last_few_stay(tmp_path: Path) -> None:
    for number in range(LAST + 3):
        build(tmp_path, str(number).encode())
    assert layers_of(tmp_path) == {str(number).encode() for number in range(3, LAST + 3)}


def test_older_ones_take_a_quarter_of_the_bound_at_most(tmp_path: Path) -> None:
    for number in range(5):
        _, size = build(tmp_path, bytes([number]) * 10_000, bound=100_000)
        assert size <= 25_000
    assert layers_of(tmp_path) == {bytes([number]) * 10_000 for number in (3, 4)}


def test_the_image_itself_stays_however_large_it_is(tmp_path: Path) -> None:
    build(tmp_path, b"small")
    _, size = build(tmp_path, b"x" * 100_000, bound=1000)
    assert layers_of(tmp_path) == {b"x" * 100_000}
    assert 100_000 < size < 102_000


def test_what_is_told_is_what_lies_there(tmp_path: Path) -> None:
    _, size = build(tmp_path, b"one", b"two")
    assert size == sum(map(len, contents(tmp_path)))


def test_blobs_that_no_image_needs_go(tmp_path: Path) -> None:
    build(tmp_path, b"one")
    (tmp_path / "blobs/sha256" / ("f" * 64)).write_bytes(b"left by a kill")
    build(tmp_path, b"two")
    assert layers_of(tmp_path) == {b"one", b"two"}


def test_an_older_image_that_is_damaged_goes(tmp_path: Path) -> None:
    first, _ = build(tmp_path, b"one")
    blob_path(tmp_path, first.digest).unlink()
    second, _ = build(tmp_path, b"two")
    assert [entry.digest for entry in index.read(tmp_path).entries] == [second.digest]
    assert layers_of(tmp_path) == {b"two"}


@pytest.mark.parametrize("content", [b"", b"{", b"[]", b'{"manifests": {}}', b"\xff"])
def test_a_damaged_index_costs_the_older_images(tmp_path: Path, content: bytes) -> None:
    build(tmp_path, b"one")
    (tmp_path / "index.json").write_bytes(content)
    build(tmp_path, b"two")
    assert layers_of(tmp_path) == {b"two"}


def test_what_was_verified_of_images_that_went_is_forgotten(tmp_path: Path) -> None:
    first, _ = build(tmp_path, b"x" * 10_000)
    second, _ = build(tmp_path, b"y" * 10_000)
    record = Record.read(tmp_path)
    for top in (first, second):
        record.add(top.digest.encoded, blob_path(tmp_path, top.digest).stat())
    record.write(tmp_path)
    gone = blob_path(tmp_path, first.digest).stat()
    build(tmp_path, b"y" * 10_000, bound=10_000)
    found = Record.read(tmp_path)
    assert found.holds(second.digest.encoded, blob_path(tmp_path, second.digest).stat())
    assert not found.holds(first.digest.encoded, gone)


def test_what_a_killed_solve_had_begun_to_write_goes(tmp_path: Path) -> None:
    build(tmp_path, b"one")
    part = tmp_path / "ingest" / ("2" * 64)
    part.mkdir(parents=True)
    (part / "data").write_bytes(b"half a layer")
    build(tmp_path, b"two")
    assert not part.exists()
    assert layers_of(tmp_path) == {b"one", b"two"}


@pytest.mark.parametrize("kind", ["missing", "wrong", "directory"])
def test_it_is_a_layout_whatever_became_of_it(tmp_path: Path, kind: str) -> None:
    if kind == "wrong":
        (tmp_path / "oci-layout").write_text("{}")
    elif kind == "directory":
        (tmp_path / "oci-layout").mkdir()
    Images(tmp_path).begin("")
    assert json.loads((tmp_path / "oci-layout").read_text()) == {"imageLayoutVersion": "1.0.0"}


def test_the_last_image_is_known_to_who_asks_for_the_same(tmp_path: Path) -> None:
    found = Images(tmp_path)
    found.begin("one")
    assert found.last is None
    first, _ = build(tmp_path, b"one", key="one")
    found = Images(tmp_path)
    found.begin("one")
    assert found.last
    assert found.last.digest == first.digest
    found = Images(tmp_path)
    found.begin("two")
    assert found.last is None


def test_an_older_image_is_not_the_last(tmp_path: Path) -> None:
    build(tmp_path, b"one", key="one")
    build(tmp_path, b"two", key="two")
    found = Images(tmp_path)
    found.begin("one")
    assert found.last is None


def test_what_is_doubted_is_read_again(tmp_path: Path) -> None:
    top, _ = build(tmp_path, b"one")
    status = blob_path(tmp_path, top.digest).stat()
    record = Record.read(tmp_path)
    record.add(top.digest.encoded, status)
    record.write(tmp_path)
    Images(tmp_path).doubt()
    assert not Record.read(tmp_path).holds(top.digest.encoded, status)


@pytest.mark.parametrize("key", ["this", "that"])
def test_the_last_one_is_known_by_what_was_asked_for(tmp_path: Path, key: str) -> None:
    build(tmp_path, b"older", key="that")
    top, _ = build(tmp_path, b"one", key="this")
    kept = Images(tmp_path)
    kept.begin(key)
    if key == "this":
        assert kept.last is not None
        assert (kept.last.digest, kept.last.size) == (top.digest, top.size)
        assert not any(name.startswith("plp.") for name in kept.last.annotations)
    else:
        assert kept.last is None
