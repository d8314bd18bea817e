"""The portable cache: staged, merged, bounded, and never in the way of a build."""

from __future__ import annotations

import json
import os
from pathlib import Path

import pytest

from plp_builder.cache import merging, staging
from plp_builder.errors import CacheNotUsable
from tests.support.cache import SETTLED, Cache, blobs, export, names


@pytest.fixture
def cache(tmp_path: Path) -> Cache:
    return Cache(tmp_path / "cache")


def test_the_first_build_imports_nothing_and_is_kept(cache: Cache) -> None:
    staged = cache.build("app", [b"one", b"two"])
    assert staged.imports == ()
    assert cache.tags() == ["app"]
    assert {b"one", b"two"} < cache.contents()
    assert names(cache.layout) == SETTLED
    assert cache.warnings == []


def test_the_next_build_imports_it_from_links_of_its_own(cache: Cache) -> None:
    cache.build("app", [b"one", b"two"])
    staged = cache.prepare("app")
    entry = json.loads((cache.layout / "index.json").read_text())["manifests"][0]
    assert staged.imports == ((staged.directory, entry["digest"]),)
    assert blobs(staged.directory) == blobs(cache.layout)
    for name in blobs(cache.layout):
        link = staged.directory / "blobs/sha256" / name
        assert link.samefile(cache.layout / "blobs/sha256" / name)


def test_an_unchanged_build_writes_nothing(cache: Cache) -> None:
    cache.build("app")
    before = {path: path.stat().st_mtime_ns for path in cache.layout.rglob("*") if path.is_file()}
    cache.build("app")
    after = {path: path.stat().st_mtime_ns for path in cache.layout.rglob("*") if path.is_file()}
    assert before == after
    assert names(cache.layout) == SETTLED


def test_a_changed_build_replaces_its_own_entry_and_what_only_that_needed(cache: Cache) -> None:
    cache.build("app", [b"base", b"old"])
    cache.build("other", [b"base", b"other"])
    cache.build("app", [b"base", b"new"])
    assert cache.tags() == ["other", "app"]
    assert {b"base", b"other", b"new"} < cache.contents()
    assert b"old" not in cache.contents()


def test_an_image_that_was_never_built_imports_the_three_newest(cache: Cache) -> None:
    digests = {}
    for tag in ("a", "b", "c", "d"):
        cache.build(tag)
        digests[tag] = json.loads((cache.layout / "index.json").read_text())["manifests"][-1]
    staged = cache.prepare("new")
    assert [found.digest for found in staged.imports] == [digests[t]["digest"] for t in "dcb"]


def test_pruning_does_not_disturb_a_build_that_imports(cache: Cache) -> None:
    cache.build("app", [b"old"])
    running = cache.prepare("app")
    cache.build("app", [b"new"])
    assert b"old" not in cache.contents()
    assert b"old" in blobs(running.directory).values()
    export(running, [b"old", b"newer"])
    cache.keep(running)
    assert {b"old", b"newer"} < cache.contents()
    assert cache.warnings == []


def test_builds_at_the_same_time_keep_each_others_entries(cache: Cache) -> None:
    running = [cache.prepare(tag) for tag in ("a", "b", "c")]
    for staged in running:
        export(staged, [b"base", staged.tag.encode()])
    for staged in running:
        cache.keep(staged)
    assert cache.tags() == ["a", "b", "c"]
    assert {b"base", b"a", b"b", b"c"} < cache.contents()


def test_the_oldest_go_when_it_is_full(cache: Cache) -> None:
    for tag in ("a", "b", "c"):
        cache.build(tag, [tag.encode() * 1000], max_size=5000)
    cache.build("d", [b"d" * 1000], max_size=3500)
    assert cache.tags() == ["c", "d"]
    assert sum(map(len, cache.contents())) <= 3500
    assert cache.warnings == []


def test_a_bound_that_shrank_holds_although_nothing_changed(cache: Cache) -> None:
    for tag in ("a", "b"):
        cache.build(tag, [tag.encode() * 1000])
    cache.build("b", [b"b" * 1000], max_size=2000)
    assert cache.tags() == ["b"]


def test_what_several_share_counts_once(cache: Cache) -> None:
    for tag in ("a", "b", "c"):
        cache.build(tag, [b"base" * 1000, tag.encode()], max_size=8000)
    assert cache.tags() == ["a", "b", "c"]


def test_an_entry_larger_than_the_bound_is_not_kept_and_pushes_nobody_out(cache: Cache) -> None:
    cache.build("small", max_size=3000)
    cache.build("large", [b"x" * 5000], max_size=3000)
    assert cache.tags() == ["small"]
    assert b"x" * 5000 not in cache.contents()
    assert [type(warning) for warning in cache.warnings] == [CacheNotUsable]
    assert "PLP_CACHE_MAX_SIZE" in cache.warnings[0].hint


def test_there_are_at_most_64_entries(cache: Cache) -> None:
    for number in range(66):
        cache.build(f"t{number}")
    assert cache.tags() == [f"t{number}" for number in range(2, 66)]


def test_what_killed_builds_left_is_removed(cache: Cache) -> None:
    dead = cache.prepare("dead")
    os.close(dead.lock)
    alive = cache.prepare("alive")
    (cache.layout / ".tmp-0123").touch()
    cache.build("app")
    assert names(cache.layout) == SETTLED | {alive.directory.name}


def test_discarding_leaves_nothing_and_may_be_done_twice(cache: Cache) -> None:
    cache.build("app")
    staged = cache.prepare("app")
    (staged.directory / "ingest/x").mkdir(parents=True)
    (staged.directory / "link").symlink_to(cache.layout)
    staging.discard(staged)
    staging.discard(staged)
    assert names(cache.layout) == SETTLED
    assert cache.tags() == ["app"]


def test_a_build_that_exports_nothing_is_no_failure(cache: Cache) -> None:
    cache.build("app")
    cache.keep(cache.prepare("app"))
    assert cache.tags() == ["app"]
    assert cache.warnings == []


def test_what_check_raises_gets_out_and_leaves_nothing(cache: Cache) -> None:
    class StopError(Exception):
        pass

    def stop() -> None:
        raise StopError

    cache.build("app")
    with pytest.raises(StopError):
        staging.prepare(cache.path, "app", check=stop, warn=cache.warnings.append)
    staged = cache.prepare("app")
    export(staged, [b"new"])
    with pytest.raises(StopError):
        merging.keep(staged, max_size=10**9, check=stop, warn=cache.warnings.append)
    assert names(cache.layout) == SETTLED
    assert cache.warnings == []
