"""The staging directory as the layout that the image is exported into, then the cache."""

from __future__ import annotations

import errno
import os
from pathlib import Path

import pytest

from plp_builder.cache import index, merging, staging, verification
from plp_builder.cache.portable import BuildCache
from plp_builder.cache.staging import Staged
from plp_builder.cache.verification import Record, verify
from plp_builder.errors import CacheDamaged, CacheNotUsable
from plp_builder.oci import layout
from plp_builder.oci.model import Descriptor, Digest
from plp_builder.settings import load
from tests.support import layouts
from tests.support.cache import Cache, blobs, export, no_check
from tests.support.layouts import Files


@pytest.fixture
def cache(tmp_path: Path) -> Cache:
    made = Cache(tmp_path / "cache")
    made.build("app", [b"base", b"one"])
    return made


@pytest.fixture
def hashed(monkeypatch: pytest.MonkeyPatch) -> list[str]:
    """What is read to be verified, by digest."""
    names: list[str] = []
    real = verification._is_correct

    def is_correct(directory: Path, descriptor: Descriptor, stop: object) -> bool:
        names.append(descriptor.digest.encoded)
        return real(directory, descriptor, stop)  # type: ignore[arg-type]

    monkeypatch.setattr(verification, "_is_correct", is_correct)
    return names


def image(directory: Path, *contents: bytes) -> list[Descriptor]:
    """What BuildKit's exporter leaves of an image of these layers; its blobs."""
    files: Files = {}
    entry = layouts.add_image(files, contents)
    new = {name: data for name, data in files.items() if not (directory / name).exists()}
    layouts.write(directory, layouts.finish(new, entry))
    top = Descriptor(entry["mediaType"], Digest(entry["digest"]), entry["size"])
    return [node.descriptor for node in layout.reachable(directory, top)]


def verified(directory: Path, needed: list[Descriptor]) -> None:
    """As the builder verifies an image."""
    record = Record.read(directory)
    assert verify(directory, needed, record, check=no_check) == []
    record.write(directory)


def built(cache: Cache, staged: Staged | None) -> BuildCache:
    return BuildCache(load({}), staged, no_check, cache.warnings.append)


def test_linked_blobs_are_known_and_new_ones_are_read_once(cache: Cache, hashed: list[str]) -> None:
    staged = cache.prepare("app")
    needed = image(staged.directory, b"base", b"two")
    verified(staged.directory, needed)
    assert layouts.sha256(b"base") not in hashed
    assert hashed.count(layouts.sha256(b"two")) == 1
    export(staged, [b"base", b"two"])
    cache.keep(staged)
    assert hashed.count(layouts.sha256(b"two")) == 1
    assert {b"base", b"two"} <= cache.contents()
    assert cache.warnings == []


def test_what_the_image_alone_needs_does_not_get_into_the_cache(cache: Cache) -> None:
    staged = cache.prepare("app")
    needed = image(staged.directory, b"only in the image")
    verified(staged.directory, needed)
    export(staged, [b"base", b"two"])
    cache.keep(staged)
    assert b"only in the image" not in cache.contents()


def test_the_layout_is_where_the_cache_goes(cache: Cache) -> None:
    staged = cache.prepare("app")
    found = built(cache, staged)
    assert found.export
    assert found.layout == found.export.path == staged.directory
    assert built(cache, None).layout is None


@pytest.mark.parametrize(
    ("tag", "all_cached", "wanted"),
    [
        ("app", True, False),
        ("app", False, True),
        ("never built", True, True),
        ("never built", False, True),
    ],
)
def test_an_export_is_wanted_where_something_is_new(
    cache: Cache, tag: str, all_cached: bool, wanted: bool
) -> None:
    found = built(cache, cache.prepare(tag))
    assert found.wants_export(all_cached=all_cached) == wanted
    found.close()


def test_without_a_cache_no_export_is_wanted(cache: Cache) -> None:
    assert not built(cache, None).wants_export(all_cached=False)


def test_an_unchanged_image_is_no_failed_export(cache: Cache) -> None:
    before = blobs(cache.layout)
    found = built(cache, cache.prepare("app"))
    assert found.layout
    image(found.layout, b"base", b"one")
    assert not found.wants_export(all_cached=True)
    found.keep()
    assert cache.warnings == []
    assert blobs(cache.layout) == before
    assert not found.layout.exists()


@pytest.mark.parametrize("begun", [False, True])
def test_only_what_an_export_has_begun_tells_that_it_failed(cache: Cache, begun: bool) -> None:
    """An image without layers has no cache, which is no failure."""
    for asked in (True, False):
        found = built(cache, cache.prepare("app"))
        assert found.layout
        image(found.layout, b"an image")
        if asked:
            assert found.wants_export(all_cached=False)
        if begun:
            (found.layout / layout.BLOBS / ("a" * 64)).write_bytes(b"")
        found.keep()
    assert [type(warning) for warning in cache.warnings] == [CacheNotUsable] * (2 * begun)


def test_an_image_that_is_built_all_the_time_is_the_last_to_go(cache: Cache) -> None:
    cache.build("other")
    assert cache.tags() == ["app", "other"]
    found = built(cache, cache.prepare("app"))
    found.wants_export(all_cached=True)
    found.keep()
    assert cache.tags() == ["other", "app"]
    written = (cache.layout / "index.json").stat().st_ino
    found = built(cache, cache.prepare("app"))
    found.wants_export(all_cached=True)
    found.keep()
    assert (cache.layout / "index.json").stat().st_ino == written


def test_an_entry_that_another_build_dropped_is_not_missed(cache: Cache) -> None:
    staged = cache.prepare("app")
    (cache.layout / "index.json").unlink()
    merging.used(staged, check=no_check, warn=cache.warnings.append)
    assert cache.tags() == []
    assert cache.warnings == []


@pytest.fixture
def other(tmp_path: Path) -> Path:
    """A layout beside a daemon's state."""
    return tmp_path / "layout"


def test_blobs_of_another_layout_come_by_links(
    cache: Cache, other: Path, hashed: list[str]
) -> None:
    needed = image(other, b"base", b"two")
    verified(other, needed)
    hashed.clear()
    staged = staging.add(cache.prepare("app"), other, needed)
    for blob in needed:
        one, two = (
            layout.blob_path(other, blob.digest),
            layout.blob_path(staged.directory, blob.digest),
        )
        assert one.samefile(two) or blob.digest.encoded == layouts.sha256(b"base")
    assert {blob.digest.encoded for blob in needed} <= staged.there
    export(staged, [b"base", b"two"])
    cache.keep(staged)
    assert layouts.sha256(b"two") not in hashed
    assert (cache.layout / layout.BLOBS / layouts.sha256(b"two")).samefile(
        other / layout.BLOBS / layouts.sha256(b"two")
    )
    assert cache.warnings == []


def test_blobs_of_another_file_system_come_by_copies(
    cache: Cache, other: Path, hashed: list[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    def cannot(*_: object, **__: object) -> None:
        raise OSError(errno.EXDEV, "Invalid cross-device link")

    needed = image(other, b"base", b"two")
    verified(other, needed)
    hashed.clear()
    staged = cache.prepare("app")
    with monkeypatch.context() as patch:
        patch.setattr(os, "link", cannot)
        staged = staging.add(staged, other, needed)
    assert set(blobs(staged.directory)) == staged.there
    assert not layout.blob_path(other, needed[0].digest).samefile(
        layout.blob_path(staged.directory, needed[0].digest)
    )
    export(staged, [b"base", b"two"])
    cache.keep(staged)
    assert layouts.sha256(b"two") in hashed
    assert {b"base", b"two"} <= cache.contents()


def test_what_can_be_imported_is_lent_to_another_layout(
    cache: Cache, other: Path, hashed: list[str]
) -> None:
    staged = cache.prepare("app")
    built(cache, staged).lend(other)
    assert blobs(other) == blobs(cache.layout)
    hashed.clear()
    verified(other, list(staged.blobs))
    assert hashed == []


def test_nothing_is_lent_by_an_empty_cache(cache: Cache, other: Path, tmp_path: Path) -> None:
    built(cache, Cache(tmp_path / "empty").prepare("app")).lend(other)
    built(cache, None).lend(other)
    assert not other.exists()


def test_an_export_to_another_layout_is_kept_too(
    cache: Cache, other: Path, hashed: list[str]
) -> None:
    staged = cache.prepare("app")
    found = built(cache, staged)
    verified(other, image(other, b"base", b"two"))
    hashed.clear()
    export(staged._replace(directory=other), [b"base", b"two"])
    assert found.take(other)
    found.keep()
    assert layouts.sha256(b"two") not in hashed
    assert {b"base", b"two"} <= cache.contents()
    assert b"one" not in cache.contents()
    assert cache.warnings == []


def test_packed_mounts_leave_less_room_for_layers(cache: Cache) -> None:
    packed = cache.layout / "mounts/image/mount/mount.tar"
    packed.parent.mkdir(parents=True)
    with packed.open("wb") as file:
        file.truncate(9_999_990_000)  # of the 10 GB that it may be
    staged = cache.prepare("other")
    export(staged, [b"x" * 9000])
    built(cache, staged).keep()
    assert cache.tags() == ["other"]
    assert cache.warnings == []


def test_without_an_export_there_nothing_is_taken(cache: Cache, other: Path) -> None:
    found = built(cache, cache.prepare("app"))
    image(other, b"base", b"two")
    assert not found.take(other)
    assert not built(cache, None).take(other)
    found.keep()
    assert b"one" in cache.contents()
    assert cache.warnings == []


@pytest.mark.parametrize("damage", ["missing", "changed"])
def test_a_damaged_export_there_is_not_taken(cache: Cache, other: Path, damage: str) -> None:
    staged = cache.prepare("app")
    image(other, b"base", b"two")
    export(staged._replace(directory=other), [b"base", b"two"])
    entry = next(e for e in index.read(other).entries if index.tag_of(e) == staged.tag)
    path = layout.blob_path(other, entry.digest)
    data = path.read_bytes()
    path.unlink()
    if damage == "changed":
        path.write_bytes(data.replace(b"a", b"b"))
    found = built(cache, staged)
    assert not found.take(other)
    found.keep()
    assert [warning.name for warning in cache.warnings] == [CacheDamaged.name]
    assert b"one" in cache.contents()


@pytest.mark.parametrize("damage", ["missing", "short", "changed"])
def test_what_is_damaged_there_does_not_get_in(cache: Cache, other: Path, damage: str) -> None:
    needed = image(other, b"base", b"two")
    verified(other, needed)
    path = other / layout.BLOBS / layouts.sha256(b"two")
    path.unlink()
    if damage != "missing":
        path.write_bytes(b"t" if damage == "short" else b"TWO")
    staged = staging.add(cache.prepare("app"), other, needed)
    assert (layouts.sha256(b"two") in staged.there) == (damage == "changed")
    export(staged, [b"base", b"two"])
    cache.keep(staged)
    assert b"TWO" not in cache.contents()
    assert len(cache.warnings) == (damage == "changed")


def test_without_a_cache_nothing_is_added(cache: Cache, other: Path) -> None:
    found = built(cache, None)
    found.add(other, image(other, b"one"))
    found.keep()
    assert cache.warnings == []
