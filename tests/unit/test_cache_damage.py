"""A damaged portable cache: it costs what is damaged and a warning, never the build."""

from __future__ import annotations

import json
import shutil
from collections.abc import Callable
from pathlib import Path

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from plp_builder.errors import CacheDamaged
from tests.support import layouts
from tests.support.cache import Cache, blobs, export, names
from tests.support.damage import blob, directory, fifo, flipped, link, socket, truncated


@pytest.fixture
def cache(tmp_path: Path) -> Cache:
    return Cache(tmp_path / "cache")


def _manifest(layout: Path) -> Path:
    entries = json.loads((layout / "index.json").read_text())["manifests"]
    own = next(e for e in entries if "app" in e["annotations"].values())
    return Path(layout, "blobs/sha256", own["digest"].removeprefix("sha256:"))


def _index(layout: Path) -> Path:
    return layout / "index.json"


@pytest.mark.parametrize("damage", [truncated, flipped, Path.unlink, directory, link, fifo])
@pytest.mark.parametrize("which", [blob(b"one"), _manifest], ids=["layer", "manifest"])
def test_a_damaged_blob_costs_its_entry_and_no_other(
    cache: Cache, which: Callable[[Path], Path], damage: Callable[[Path], None]
) -> None:
    cache.build("other", [b"base", b"other"])
    cache.build("app", [b"base", b"one"])
    damage(which(cache.layout))
    staged = cache.prepare("app")
    assert [type(warning) for warning in cache.warnings] == [CacheDamaged]
    assert cache.tags() == ["other"]
    assert b"base" in blobs(staged.directory).values()
    export(staged, [b"base", b"one"])
    cache.keep(staged)
    assert cache.tags() == ["other", "app"]
    assert {b"base", b"one", b"other"} < cache.contents()
    cache.warnings.clear()
    assert cache.build("app", [b"base", b"one"]).imports
    assert cache.build("other", [b"base", b"other"]).imports
    assert cache.warnings == []


@pytest.mark.parametrize(
    "text",
    [
        b"",
        b"{",
        b"[]",
        b"{}",
        b'{"manifests": 3}',
        b"\xff\xfe",
        b"[" * 100_000,
        b" " * (4 * 1024 * 1024 + 1),
        b'{"manifests": [], "manifests": []}',
    ],
    ids=range(9),
)
def test_an_index_that_is_none_is_put_aside(cache: Cache, text: bytes) -> None:
    cache.build("app")
    _index(cache.layout).write_bytes(text)
    staged = cache.prepare("app")
    assert staged.imports == ()
    assert [type(warning) for warning in cache.warnings] == [CacheDamaged]
    (aside,) = (cache.path / "damaged").iterdir()
    assert aside.read_bytes() == text
    export(staged, [b"one"])
    cache.keep(staged)
    assert cache.build("app", [b"one"]).imports
    assert len(cache.warnings) == 1


@pytest.mark.parametrize("damage", [directory, link, fifo, socket])
def test_an_index_that_is_no_file_is_put_aside(
    cache: Cache, damage: Callable[[Path], None]
) -> None:
    cache.build("app")
    damage(_index(cache.layout))
    cache.build("app")
    assert [type(warning) for warning in cache.warnings] == [CacheDamaged]
    assert cache.build("app").imports


@pytest.mark.parametrize(
    "entry",
    [
        3,
        None,
        {},
        {"digest": "sha256:x"},
        {"mediaType": "a", "size": 1, "digest": "../x"},
        {"mediaType": "a", "size": 1, "digest": "sha512:" + "0" * 128},
    ],
)
def test_an_entry_of_the_wrong_type_costs_no_other(cache: Cache, entry: object) -> None:
    cache.build("app")
    index = json.loads(_index(cache.layout).read_text())
    index["manifests"].insert(0, entry)
    _index(cache.layout).write_text(json.dumps(index))
    assert cache.build("app").imports
    assert [type(warning) for warning in cache.warnings] == [CacheDamaged]
    assert cache.tags() == ["app"]
    assert cache.build("app").imports
    assert len(cache.warnings) == 1


@pytest.mark.parametrize("name", ["blobs", "blobs/sha256"])
@pytest.mark.parametrize("kind", ["file", "link"])
def test_a_directory_that_is_none_is_put_aside(cache: Cache, name: str, kind: str) -> None:
    cache.build("app")
    path = cache.layout / name
    shutil.move(path, cache.path / "moved")
    if kind == "file":
        path.touch()
    else:
        path.symlink_to(cache.path / "moved")
    cache.build("app")
    assert [type(warning) for warning in cache.warnings] == [CacheDamaged]
    assert cache.build("app").imports
    assert len(cache.warnings) == 1


def test_only_the_latest_damage_is_kept(cache: Cache) -> None:
    for _ in range(5):
        cache.build("app", [b"one"])
        flipped(blob(b"one")(cache.layout))
        cache.build("app", [b"one"])
        assert len(names(cache.path / "damaged")) <= 2


def test_a_warning_is_short_however_much_is_damaged(cache: Cache) -> None:
    cache.build("app", [bytes([number]) for number in range(20)])
    for number in range(20):
        blob(bytes([number]))(cache.layout).unlink()
    cache.build("app")
    (warning,) = cache.warnings
    assert len(warning.why) == 6
    assert warning.why[-1] == "and 15 more"


def test_an_entry_whose_blobs_are_gone_is_dropped_when_another_build_sees_it(
    cache: Cache,
) -> None:
    cache.build("app", [b"one"])
    cache.build("other")
    blob(b"one")(cache.layout).unlink()
    cache.build("other", [b"new"])
    assert cache.tags() == ["other"]
    assert [type(warning) for warning in cache.warnings] == [CacheDamaged]


def test_a_damaged_blob_that_nobody_looked_at_is_replaced(cache: Cache) -> None:
    """Its size is right, and its content was changed after it was verified."""
    cache.build("app", [b"base", b"one"])
    staged = cache.prepare("never built before")
    flipped(blob(b"one")(cache.layout))
    shutil.copy(cache.layout / "index.json", staged.directory)
    path = staged.directory / "blobs/sha256" / layouts.sha256(b"one")
    path.unlink()
    export(staged, [b"base", b"one"])
    cache.keep(staged)
    assert b"one" in cache.contents()
    assert cache.warnings == []


@settings(max_examples=60, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(data=st.data())
def test_whatever_byte_is_wrong_the_next_build_works(tmp_path: Path, data: st.DataObject) -> None:
    """One file flipped, cut or overwritten anywhere: never an exception, never bad content."""
    shutil.rmtree(tmp_path / "cache", ignore_errors=True)
    cache = Cache(tmp_path / "cache")
    cache.build("other", [b"base", b"other"])
    cache.build("app", [b"base", b"one", b"two"])
    files = sorted(path for path in cache.layout.rglob("*") if path.is_file())
    path = data.draw(st.sampled_from(files))
    content = path.read_bytes()
    position = data.draw(st.integers(0, max(len(content) - 1, 0)))
    path.chmod(0o644)
    if data.draw(st.booleans()):
        path.write_bytes(content[:position])
    else:
        wrong = data.draw(st.binary(min_size=1, max_size=4))
        path.write_bytes(content[:position] + wrong + content[position + len(wrong) :])
    staged = cache.prepare("app")
    for name, found in blobs(staged.directory).items():
        assert layouts.sha256(found) == name
    export(staged, [b"base", b"one", b"two"])
    cache.keep(staged)
    assert "app" in cache.tags()
    cache.warnings.clear()
    assert cache.prepare("app").imports
    assert cache.warnings == []


@pytest.mark.parametrize("damage", [truncated, Path.unlink, directory, link, fifo])
def test_the_file_that_marks_a_layout_is_mended(
    cache: Cache, damage: Callable[[Path], None]
) -> None:
    cache.build("app")
    damage(cache.layout / "oci-layout")
    assert cache.build("app").imports
    assert (cache.layout / "oci-layout").read_bytes() == b'{"imageLayoutVersion":"1.0.0"}'
    assert not (cache.layout / "oci-layout").is_symlink()


def test_an_export_that_lies_is_not_merged(cache: Cache) -> None:
    staged = cache.prepare("app")
    export(staged, [b"one"])
    (staged.directory / "blobs/sha256" / layouts.sha256(b"one")).write_bytes(b"1ne")
    cache.keep(staged)
    assert cache.tags() == []
    assert [type(warning) for warning in cache.warnings] == [CacheDamaged]
    assert not staged.directory.exists()
