"""What the file system or other builds refuse to the portable cache costs a warning."""

from __future__ import annotations

import errno
import fcntl
import os
from pathlib import Path

import pytest

from plp_builder.cache import lock, staging
from plp_builder.errors import CacheNotUsable
from tests.support.cache import Cache, export


@pytest.fixture
def cache(tmp_path: Path) -> Cache:
    return Cache(tmp_path / "cache")


def test_without_hard_links_it_imports_from_the_cache_itself(
    cache: Cache, monkeypatch: pytest.MonkeyPatch
) -> None:
    def refuse(*_: object, **__: object) -> None:
        raise OSError(errno.EPERM, "not permitted")

    cache.build("app", [b"one"])
    monkeypatch.setattr(os, "link", refuse)
    staged = cache.build("app", [b"one", b"two"])
    assert [found.path for found in staged.imports] == [cache.layout]
    assert {b"one", b"two"} < cache.contents()
    assert cache.warnings == []


@pytest.mark.parametrize("place", ["cache", "cache/buildkit"])
def test_a_cache_that_is_no_directory_costs_a_warning(tmp_path: Path, place: str) -> None:
    (tmp_path / place).parent.mkdir(exist_ok=True)
    (tmp_path / place).touch()
    cache = Cache(tmp_path / "cache")
    assert cache.try_prepare("app") is None
    assert [type(warning) for warning in cache.warnings] == [CacheNotUsable]


@pytest.mark.parametrize("call", ["mkdir", "open"])
@pytest.mark.parametrize("code", [errno.ENOSPC, errno.EROFS, errno.EACCES, errno.EIO])
def test_a_disk_that_refuses_costs_a_warning(
    cache: Cache, monkeypatch: pytest.MonkeyPatch, call: str, code: int
) -> None:
    def refuse(*_: object, **__: object) -> None:
        raise OSError(code, os.strerror(code))

    cache.build("app")
    with monkeypatch.context() as patched:
        patched.setattr(os, call, refuse)
        assert cache.try_prepare("app") is None
    (warning,) = cache.warnings
    assert isinstance(warning, CacheNotUsable)
    assert os.strerror(code) in warning.why[0]
    assert cache.build("app").imports


@pytest.mark.parametrize("call", ["fsync", "replace", "rename", "unlink"])
def test_a_disk_that_refuses_at_the_end_costs_a_warning(
    cache: Cache, monkeypatch: pytest.MonkeyPatch, call: str
) -> None:
    def refuse(*_: object, **__: object) -> None:
        raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))

    cache.build("other")
    staged = cache.prepare("app")
    export(staged, [b"one"])
    with monkeypatch.context() as patched:
        patched.setattr(os, call, refuse)
        cache.keep(staged)
    assert "other" in cache.tags()
    cache.warnings.clear()
    cache.build("app", [b"one"])
    assert cache.build("app", [b"one"]).imports
    assert cache.warnings == []


@pytest.mark.parametrize("name", ["blobs", "blobs/sha256"])
def test_a_link_that_came_during_the_build_is_not_followed(cache: Cache, name: str) -> None:
    cache.build("app", [b"old"])
    staged = cache.prepare("app")
    export(staged, [b"new"])
    elsewhere = cache.path.parent / "elsewhere"
    (elsewhere / "sha256").mkdir(parents=True)
    precious = {elsewhere / "precious", elsewhere / "sha256/precious"}
    for path in precious:
        path.touch()
    (cache.layout / name).rename(cache.path / "moved")
    (cache.layout / name).symlink_to(elsewhere)
    cache.keep(staged)
    assert {path for path in elsewhere.rglob("*") if path.is_file()} == precious
    assert [type(warning) for warning in cache.warnings] == [CacheNotUsable]


def test_an_export_that_stopped_half_way_is_told(cache: Cache) -> None:
    """BuildKit ignores that the disk is full and ends with success."""
    staged = cache.prepare("app")
    (staged.directory / "ingest/0123").mkdir(parents=True)
    cache.keep(staged)
    assert [type(warning) for warning in cache.warnings] == [CacheNotUsable]
    assert not staged.directory.exists()


def test_a_lock_that_is_never_free_costs_a_warning(
    cache: Cache, monkeypatch: pytest.MonkeyPatch
) -> None:
    def impatient(path: Path, **given: object) -> object:
        return lock.locked(path, **(given | {"patience": 0.0}))  # type: ignore[arg-type]

    cache.build("app")
    running = cache.prepare("app")
    export(running, [b"new"])
    monkeypatch.setattr(staging, "locked", impatient)
    with (cache.layout / ".lock").open("rb") as held:
        fcntl.flock(held, fcntl.LOCK_EX)
        assert cache.try_prepare("app") is None
        cache.keep(running)
    assert [type(warning) for warning in cache.warnings] == [CacheNotUsable] * 2
    assert not running.directory.exists()
