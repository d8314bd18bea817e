"""A cache that can be read but not written serves a build, and stays as it is."""

from __future__ import annotations

import errno
import itertools
import os
import time
from collections.abc import Callable
from pathlib import Path

import pytest

from plp_builder.cache import lock, portable, read_only, staging
from plp_builder.errors import CacheDamaged, CacheNotUsable, Failure
from plp_builder.preflight.paths import Paths
from plp_builder.settings import load
from plp_builder.solve import LocalCache
from tests.support.cache import Cache, blobs, no_check


@pytest.fixture
def cache(tmp_path: Path) -> Cache:
    return Cache(tmp_path / "cache")


@pytest.fixture
def close(monkeypatch: pytest.MonkeyPatch) -> Callable[[], None]:
    """From its call on nothing below "cache" can be written: modes do not stop root, who may
    run the tests."""
    real_open, real_access = os.open, os.access

    def opened(path: Path, flags: int, *arguments: int, **keys: int) -> int:
        if flags & (os.O_WRONLY | os.O_RDWR | os.O_CREAT) and "/cache/" in str(path):
            raise OSError(errno.EROFS, "Read-only file system", str(path))
        return real_open(path, flags, *arguments, **keys)

    def access(path: Path, mode: int) -> bool:
        return not (mode & os.W_OK and "/cache/" in f"{path}/") and real_access(path, mode)

    def begin() -> None:
        monkeypatch.setattr(os, "open", opened)
        monkeypatch.setattr(os, "access", access)

    return begin


def read(cache: Cache, tag: str = "app") -> read_only.ReadOnly | None:
    return read_only.read(cache.layout, tag, check=no_check, warn=cache.warnings.append)


def state(cache: Cache) -> dict[Path, tuple[int, int]]:
    found = [cache.path, *cache.path.rglob("*")]
    return {path: (path.lstat().st_mtime_ns, path.lstat().st_ino) for path in found}


def test_it_imports_from_the_layout_itself_and_changes_nothing(
    cache: Cache, close: Callable[[], None]
) -> None:
    cache.build("app", [b"one"])
    wanted = cache.prepare("app")
    staging.discard(wanted)
    before = state(cache)
    close()
    assert read_only.is_read_only(cache.layout)
    found = read(cache)
    assert found is not None
    assert found.imports == ((cache.layout, wanted.imports[0].digest),)
    assert state(cache) == before
    (warning,) = cache.warnings
    assert type(warning) is CacheNotUsable
    assert warning.what.endswith("cannot be written: this build imports from it and keeps nothing")


def test_a_cache_that_can_be_written_is_not_read_only(cache: Cache) -> None:
    assert not read_only.is_read_only(cache.layout)
    cache.build("app")
    assert not read_only.is_read_only(cache.layout)


def test_blobs_that_cannot_be_added_to_make_it_read_only(
    cache: Cache, monkeypatch: pytest.MonkeyPatch
) -> None:
    cache.build("app")
    monkeypatch.setattr(os, "access", lambda path, _mode: Path(path).name != "sha256")
    assert read_only.is_read_only(cache.layout)


def _without_lock(layout: Path) -> None:
    (layout / ".lock").unlink()


def _without_record(layout: Path) -> None:
    (layout / ".verified.json").unlink()


@pytest.mark.parametrize("missing", [_without_lock, _without_record])
def test_what_the_builder_itself_needs_there_may_be_missing(
    cache: Cache, missing: Callable[[Path], None], close: Callable[[], None]
) -> None:
    """As in a cache that a CI system restored without hidden files."""
    cache.build("app")
    missing(cache.layout)
    close()
    found = read(cache)
    assert found is not None
    assert len(found.imports) == 1


def test_it_waits_for_a_build_that_writes(
    cache: Cache, close: Callable[[], None], monkeypatch: pytest.MonkeyPatch
) -> None:
    cache.build("app")
    clock = itertools.count(step=1e9)
    with lock.locked(cache.layout / ".lock", exclusive=True, check=no_check, waiting=lambda: None):
        close()
        monkeypatch.setattr(time, "monotonic", lambda: next(clock))
        assert read(cache) is None
    assert "this build is cold" in cache.warnings[-1].what


def test_damage_is_not_imported_and_stays(cache: Cache, close: Callable[[], None]) -> None:
    for tag in ("one", "two"):
        cache.build(tag, [tag.encode()])
    name = next(name for name, data in blobs(cache.layout).items() if data == b"two")
    (cache.layout / "blobs/sha256" / name).unlink()
    before = state(cache)
    close()
    found = read(cache, "new")
    assert found is not None
    assert len(found.imports) == 1
    assert [type(warning) for warning in cache.warnings] == [CacheNotUsable, CacheDamaged]
    assert cache.warnings[1].what.endswith("is damaged and is not imported")
    assert state(cache) == before


def test_what_cannot_be_read_costs_a_warning(cache: Cache, monkeypatch: pytest.MonkeyPatch) -> None:
    cache.build("app")

    def refuse(*_arguments: object, **_keys: object) -> int:
        raise PermissionError(errno.EACCES, "Permission denied", "blob")

    monkeypatch.setattr(os, "open", refuse)
    assert read(cache) is None
    assert [warning.what.rpartition("; ")[2] for warning in cache.warnings] == [
        "this build is cold"
    ]


@pytest.fixture
def paths(cache: Cache, tmp_path: Path, close: Callable[[], None]) -> Paths:
    (tmp_path / "Dockerfile").write_text("FROM scratch\n")
    cache.build("another image")
    close()
    return Paths(tmp_path, tmp_path, tmp_path, "Dockerfile", tmp_path, cache.path)


@pytest.fixture
def told(monkeypatch: pytest.MonkeyPatch) -> list[Failure]:
    warnings: list[Failure] = []
    monkeypatch.setattr(portable, "tell", warnings.append)
    return warnings


def test_a_build_imports_and_exports_nothing(
    paths: Paths, cache: Cache, told: list[Failure]
) -> None:
    with portable.opened(load({}), paths, no_check) as opened:
        (wanted,) = opened.imports
        assert isinstance(wanted, LocalCache)
        assert wanted.path == cache.layout
        assert opened.layout is None
        assert opened.export is None
        opened.keep()
    assert len(told) == 1


def test_a_build_from_nothing_does_not_read_it(paths: Paths, told: list[Failure]) -> None:
    with portable.opened(load({"PLP_NO_CACHE": "true"}), paths, no_check) as opened:
        assert (opened.imports, opened.export) == ((), None)
    (warning,) = told
    assert warning.what.endswith("cannot be written: this build keeps nothing")


def test_a_build_whose_layers_vanished_is_tried_again_without_them(
    paths: Paths, told: list[Failure]
) -> None:
    with portable.opened(load({}), paths, no_check) as opened:
        assert not opened.give_up("error: failed to solve: process did not complete")
        said = f"error: failed to solve: NotFound: desc = content sha256:{'ab' * 32}: not found"
        assert opened.give_up(said)
        assert opened.imports == ()
        assert not opened.give_up(said)
    assert told[-1].what == "A layer in the cache is gone since the build began"
