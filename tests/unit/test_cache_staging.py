"""The portable cache: staged, merged, bounded, and never in the way of a build."""

from __future__ import annotations

import errno
import fcntl
import json
import os
import shutil
import stat
import threading
from collections.abc import Callable
from contextlib import AbstractContextManager
from pathlib import Path

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from plp_builder.cache import lock, staging, verification
from plp_builder.errors import CacheDamaged, CacheNotUsable
from plp_builder.oci.model import Digest
from tests.support import layouts
from tests.support.cache import Cache, blobs, export, no_check


@pytest.fixture
def cache(tmp_path: Path) -> Cache:
    return Cache(tmp_path / "cache")


def names(directory: Path) -> set[str]:
    return {path.name for path in directory.iterdir()}


SETTLED = {".lock", ".verified.json", "blobs", "index.json", "oci-layout"}


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


def test_blobs_are_hashed_once(cache: Cache, monkeypatch: pytest.MonkeyPatch) -> None:
    cache.build("app", [b"one", b"two"])
    hashed: list[Digest] = []
    real = verification._is_correct

    def counted(directory: Path, descriptor: object, stop: object) -> bool:
        hashed.append(descriptor.digest)  # type: ignore[attr-defined]
        return real(directory, descriptor, stop)  # type: ignore[arg-type]

    monkeypatch.setattr(verification, "_is_correct", counted)
    staging.discard(cache.prepare("app"))
    assert hashed == []
    os.utime(cache.layout / "blobs/sha256" / layouts.sha256(b"one"), (1, 1))
    staging.discard(cache.prepare("app"))
    assert [digest.encoded for digest in hashed] == [layouts.sha256(b"one")]


@pytest.mark.parametrize(
    "record",
    [
        b"",
        b"[]",
        b"{",
        b'{"a": 3}',
        b'{"a": [1, 2]}',
        b"\xff",
        b'{"a": [1e999, 1, 1]}',
        b'{"a": [NaN, 1, 1]}',
    ],
)
def test_a_record_that_cannot_be_read_only_costs_time(cache: Cache, record: bytes) -> None:
    cache.build("app")
    (cache.layout / ".verified.json").write_bytes(record)
    assert cache.build("app").imports
    assert cache.warnings == []


def test_large_blobs_are_hashed_in_threads(cache: Cache, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(verification, "_ALONE", -1)
    cache.build("app", [b"one", b"two", b"three"])
    (cache.layout / ".verified.json").unlink()
    _flipped(_blob(b"two")(cache.layout))
    assert cache.prepare("app").imports == ()
    assert "other content" in cache.warnings[0].why[0]


def test_threads_that_hash_can_be_stopped(cache: Cache, monkeypatch: pytest.MonkeyPatch) -> None:
    class StopError(Exception):
        pass

    def hang(directory: object, descriptor: object, stop: threading.Event) -> bool:
        return stop.wait()

    def check() -> None:
        if any(thread.name == "verify" for thread in threading.enumerate()):
            raise StopError

    cache.build("app")
    (cache.layout / ".verified.json").unlink()
    monkeypatch.setattr(verification, "_ALONE", -1)
    monkeypatch.setattr(verification, "_is_correct", hang)
    with pytest.raises(StopError):
        staging.prepare(cache.path, "app", check=check, warn=cache.warnings.append)
    assert not any(thread.name == "verify" for thread in threading.enumerate())
    assert cache.warnings == []


def test_a_blob_that_cannot_be_read_costs_a_warning(
    cache: Cache, monkeypatch: pytest.MonkeyPatch
) -> None:
    def fail(*_: object) -> bool:
        raise OSError(errno.EIO, os.strerror(errno.EIO))

    cache.build("app")
    (cache.layout / ".verified.json").unlink()
    monkeypatch.setattr(verification, "_is_correct", fail)
    assert cache.try_prepare("app") is None
    assert [type(warning) for warning in cache.warnings] == [CacheNotUsable]


# --- damage -----------------------------------------------------------------------------


def _blob(data: bytes) -> Callable[[Path], Path]:
    return lambda layout: layout / "blobs/sha256" / layouts.sha256(data)


def _manifest(layout: Path) -> Path:
    entries = json.loads((layout / "index.json").read_text())["manifests"]
    own = next(e for e in entries if "app" in e["annotations"].values())
    return Path(layout, "blobs/sha256", own["digest"].removeprefix("sha256:"))


def _index(layout: Path) -> Path:
    return layout / "index.json"


def _truncated(path: Path) -> None:
    path.write_bytes(path.read_bytes()[:-3])


def _flipped(path: Path) -> None:
    data = bytearray(path.read_bytes())
    data[len(data) // 2] ^= 0x20
    path.write_bytes(data)


def _directory(path: Path) -> None:
    path.unlink()
    (path / "inside").mkdir(parents=True)


def _link(path: Path) -> None:
    elsewhere = path.parent.parent / "elsewhere"
    shutil.move(path, elsewhere)
    path.symlink_to(elsewhere)


def _fifo(path: Path) -> None:
    path.unlink()
    os.mkfifo(path)


def _socket(path: Path) -> None:
    path.unlink()
    os.mknod(path, stat.S_IFSOCK | 0o600)


@pytest.mark.parametrize("damage", [_truncated, _flipped, Path.unlink, _directory, _link, _fifo])
@pytest.mark.parametrize("which", [_blob(b"one"), _manifest], ids=["layer", "manifest"])
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


@pytest.mark.parametrize("damage", [_directory, _link, _fifo, _socket])
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
        _flipped(_blob(b"one")(cache.layout))
        cache.build("app", [b"one"])
        assert len(names(cache.path / "damaged")) <= 2


def test_a_warning_is_short_however_much_is_damaged(cache: Cache) -> None:
    cache.build("app", [bytes([number]) for number in range(20)])
    for number in range(20):
        _blob(bytes([number]))(cache.layout).unlink()
    cache.build("app")
    (warning,) = cache.warnings
    assert len(warning.why) == 6
    assert warning.why[-1] == "and 15 more"


def test_an_entry_whose_blobs_are_gone_is_dropped_when_another_build_sees_it(
    cache: Cache,
) -> None:
    cache.build("app", [b"one"])
    cache.build("other")
    _blob(b"one")(cache.layout).unlink()
    cache.build("other", [b"new"])
    assert cache.tags() == ["other"]
    assert [type(warning) for warning in cache.warnings] == [CacheDamaged]


def test_a_damaged_blob_that_nobody_looked_at_is_replaced(cache: Cache) -> None:
    """Its size is right, and its content was changed after it was verified."""
    cache.build("app", [b"base", b"one"])
    staged = cache.prepare("never built before")
    _flipped(_blob(b"one")(cache.layout))
    shutil.copy(cache.layout / "index.json", staged.directory)
    path = staged.directory / "blobs/sha256" / layouts.sha256(b"one")
    path.unlink()
    export(staged, [b"base", b"one"])
    cache.keep(staged._replace(linked=staged.linked - {layouts.sha256(b"one")}))
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
    for name, blob in blobs(staged.directory).items():
        assert layouts.sha256(blob) == name
    export(staged, [b"base", b"one", b"two"])
    cache.keep(staged)
    assert "app" in cache.tags()
    cache.warnings.clear()
    assert cache.prepare("app").imports
    assert cache.warnings == []


@pytest.mark.parametrize("damage", [_truncated, Path.unlink, _directory, _link, _fifo])
def test_the_file_that_marks_a_layout_is_mended(
    cache: Cache, damage: Callable[[Path], None]
) -> None:
    cache.build("app")
    damage(cache.layout / "oci-layout")
    assert cache.build("app").imports
    assert (cache.layout / "oci-layout").read_bytes() == b'{"imageLayoutVersion":"1.0.0"}'
    assert not (cache.layout / "oci-layout").is_symlink()


# --- what the file system or other builds refuse -----------------------------------------


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


def test_an_export_that_lies_is_not_merged(cache: Cache) -> None:
    staged = cache.prepare("app")
    export(staged, [b"one"])
    (staged.directory / "blobs/sha256" / layouts.sha256(b"one")).write_bytes(b"1ne")
    cache.keep(staged)
    assert cache.tags() == []
    assert [type(warning) for warning in cache.warnings] == [CacheDamaged]
    assert not staged.directory.exists()


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


def test_a_build_that_exports_nothing_is_no_failure(cache: Cache) -> None:
    cache.build("app")
    cache.keep(cache.prepare("app"))
    assert cache.tags() == ["app"]
    assert cache.warnings == []


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


def test_who_waits_for_the_lock_says_so_and_can_be_stopped(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    class StopError(Exception):
        pass

    said: list[str] = []

    def check() -> None:
        if said:
            raise StopError

    monkeypatch.setattr(lock, "QUIET", -1.0)
    path = tmp_path / "lock"
    with path.open("wb") as held:
        fcntl.flock(held, fcntl.LOCK_EX)
        with (
            pytest.raises(StopError),
            lock.locked(path, exclusive=False, check=check, waiting=lambda: said.append("waiting")),
        ):
            pass
    assert said == ["waiting"]
    with lock.locked(path, exclusive=True, check=no_check, waiting=no_check):
        pass


def test_readers_share_the_lock(tmp_path: Path) -> None:
    def enter() -> AbstractContextManager[None]:
        return lock.locked(
            tmp_path / "lock", exclusive=False, check=no_check, waiting=no_check, patience=0.0
        )

    with enter(), enter():
        pass


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
        staging.keep(staged, max_size=10**9, check=stop, warn=cache.warnings.append)
    assert names(cache.layout) == SETTLED
    assert cache.warnings == []
