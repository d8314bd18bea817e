"""A directory for the daemon's state: what makes it begin anew, and what keeps it from being."""

from __future__ import annotations

import os
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest

from plp_builder.buildkit import trial
from plp_builder.cache import state
from plp_builder.cache.lock import LockNotFreeError
from plp_builder.cache.state import Maker, State, not_carried, opened
from plp_builder.errors import StateNotCarried
from plp_builder.users import User
from tests.support.bbolt import meta

ME = User("me", os.geteuid(), os.getegid(), "/")
MAKER = Maker("56164514-1", "overlayfs", "2000:2000", ((100000, 65536), (100000, 65536)))
BEFORE = "11111111-1111-1111-1111-111111111111"
NOW = "22222222-2222-2222-2222-222222222222"


def nothing() -> None:
    return None


@pytest.fixture(autouse=True)
def machine(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> Callable[[str], None]:
    """A local disk below tmp_path, whatever it is; what is called boots the machine again."""
    boot, mounts = tmp_path / "boot_id", tmp_path / "mountinfo"
    mounts.write_text("1 0 254:0 / / rw - ext4 /dev/vda rw\n")
    monkeypatch.setattr(state, "_BOOT", boot)
    monkeypatch.setattr(state, "_MOUNTS", mounts)
    monkeypatch.setattr(state, "on_the_way", lambda _path: ())

    def start(identity: str) -> None:
        boot.write_text(f"{identity}\n")

    start(BEFORE)
    return start


@pytest.fixture
def cache(tmp_path: Path) -> Path:
    found = tmp_path / "cache"
    found.mkdir()
    return found


@contextmanager
def used(cache: Path, maker: Maker = MAKER, *, kill: bool = False) -> Iterator[State]:
    """One build: a state made ready for a daemon, which comes, and left whole unless killed."""
    with opened(cache, maker, ME, patience=0.0, check=nothing, waiting=nothing) as found:
        yield found
        if not kill:
            found.finish(grown=False)


def serve(found: State) -> None:
    """What a daemon does as soon as it has its root."""
    (found.root / "buildkitd.lock").touch()
    (found.root / "cache.db").write_text("kept")
    found.keep_verdict()


def build(cache: Path, maker: Maker = MAKER, *, kill: bool = False) -> str:
    """A whole build; why the state had to begin anew."""
    with used(cache, maker, kill=kill) as found:
        aside = found.prepare()
        serve(found)
    return aside


def test_the_first_build_finds_an_empty_root_that_is_its_own(cache: Path) -> None:
    with used(cache) as found:
        assert found.prepare() == ""
        assert (found.warm, found.tried) == (False, False)
        assert found.root.stat().st_mode & 0o777 == 0o700
        assert list(found.root.iterdir()) == []
        assert found.layout.is_dir()


def test_the_next_build_finds_what_the_daemon_left(cache: Path) -> None:
    build(cache)
    with used(cache) as found:
        assert found.prepare() == ""
        assert (found.warm, found.tried) == (True, True)
        assert (found.root / "cache.db").read_text() == "kept"
        assert found.remnants() == ()


def test_what_the_daemon_makes_anew_is_removed_where_it_was_cut_off(cache: Path) -> None:
    build(cache)
    whole = meta(8, 1) + meta(9, 2)
    (cache / "state/1/root/history.db").write_bytes(whole)
    (cache / "state/1/root/cache.db").write_bytes(whole.ljust(9 * 4096, b"\0"))
    with used(cache) as found:
        assert found.prepare() == ""
        assert found.warm
        assert not (found.root / "history.db").exists()
        assert (found.root / "cache.db").stat().st_size == 9 * 4096


def test_a_daemon_that_ended_in_order_has_taken_its_lock_away(cache: Path) -> None:
    build(cache)
    (cache / "state/1/root/buildkitd.lock").unlink()
    with used(cache) as found:
        found.prepare()
        assert found.warm


def test_a_trial_that_was_killed_is_no_daemon(cache: Path) -> None:
    with used(cache) as found:
        found.prepare()
        (found.root / trial.DIRECTORY).mkdir()
    with used(cache) as found:
        found.prepare()
        assert not found.warm


def test_what_it_depends_on_may_not_change(cache: Path) -> None:
    for changed in (
        MAKER._replace(buildkit="56164514-2"),
        MAKER._replace(snapshotter="native"),
        MAKER._replace(user="1000:1000"),
        MAKER._replace(ids=((100000, 65536), (200000, 65536))),
        MAKER._replace(options="--oci-worker-gc=false"),
    ):
        build(cache)
        with used(cache, changed) as found:
            assert found.prepare() == "BuildKit, its user's ids or its options have changed"
            assert (found.warm, found.tried) == (False, False)
            assert list(found.root.iterdir()) == []
            serve(found)
        assert build(cache, changed) == ""


def test_a_build_that_was_killed_leaves_a_state_that_is_used(cache: Path) -> None:
    build(cache)
    build(cache, kill=True)
    assert build(cache) == ""


def test_a_machine_that_went_down_meanwhile_leaves_none(
    cache: Path, machine: Callable[[str], None]
) -> None:
    build(cache)
    build(cache, kill=True)
    machine(NOW)
    with used(cache) as found:
        assert found.prepare() == "the machine went down while a build used it"
        assert not found.warm
        assert found.tried
        serve(found)
    assert build(cache) == ""


def test_a_machine_that_went_down_afterwards_does(
    cache: Path, machine: Callable[[str], None]
) -> None:
    build(cache)
    machine(NOW)
    assert build(cache) == ""


@pytest.mark.parametrize("content", ["", "\n", "never", "\udcff" * 9])
def test_whatever_else_the_mark_of_use_holds_was_not_this_boot(cache: Path, content: str) -> None:
    build(cache)
    path = cache / "state/1/used"
    path.write_bytes(content.encode("utf-8", "surrogateescape"))
    expected = "" if not content.strip() else "the machine went down while a build used it"
    assert build(cache) == expected


@pytest.mark.parametrize(
    "content",
    [b"", b"{", b"[]", b"null", b"\xff\xfe", b"[" * 100_000, b'{"maker": 1e999}', b" " * 5_000_000],
    ids=["empty", "cut", "list", "null", "bytes", "deep", "huge number", "large"],
)
def test_a_hostile_record_of_its_maker_costs_a_trial_at_most(cache: Path, content: bytes) -> None:
    build(cache)
    (cache / "state/1/made").write_bytes(content)
    with used(cache) as found:
        found.prepare()
        assert not found.tried
        serve(found)
    with used(cache) as found:
        assert found.prepare() == ""
        assert found.tried


@pytest.mark.parametrize("kind", ["directory", "link", "fifo"])
def test_so_does_one_that_is_no_file(cache: Path, tmp_path: Path, kind: str) -> None:
    build(cache)
    path = cache / "state/1/made"
    path.unlink()
    if kind == "directory":
        path.mkdir()
    elif kind == "link":
        path.symlink_to(tmp_path / "boot_id")
    else:
        os.mkfifo(path)
    with used(cache) as found:
        found.prepare()
        assert not found.tried


def refuse(cache: Path, why: str) -> None:
    with used(cache) as found:
        found.prepare()
        found.keep_verdict(why)


def test_a_directory_that_was_refused_is_not_tried_again(cache: Path) -> None:
    refuse(cache, "no overlay can be mounted")
    with used(cache) as found, pytest.raises(StateNotCarried) as caught:
        found.prepare()
    assert caught.value.why == ("no overlay can be mounted",)


def test_unless_for_another_daemon(cache: Path) -> None:
    refuse(cache, "no overlay can be mounted")
    with used(cache, MAKER._replace(buildkit="other")) as found:
        assert found.prepare() == "BuildKit, its user's ids or its options have changed"


def test_or_after_a_boot_since_which_another_kernel_may_run(
    cache: Path, machine: Callable[[str], None]
) -> None:
    refuse(cache, "no overlay can be mounted")
    machine(NOW)
    with used(cache) as found:
        assert found.prepare() == ""
        assert not found.tried


@pytest.mark.parametrize(
    "why", ["mkdir: no space left on device", "mkdir: No space left on device"]
)
def test_or_where_only_the_disk_was_full(cache: Path, why: str) -> None:
    refuse(cache, why)
    with used(cache) as found:
        assert found.prepare() == ""
        assert not found.tried


def test_a_verdict_is_written_once(cache: Path) -> None:
    build(cache)
    made = cache / "state/1/made"
    before = made.stat().st_ino
    build(cache)
    refused_later = made.read_text()
    with used(cache) as found:
        found.prepare()
        found.keep_verdict("it is too late to say so")
    assert made.stat().st_ino == before
    assert made.read_text() == refused_later


def test_an_empty_blob_begins_it_anew(cache: Path) -> None:
    build(cache)
    blobs = cache / "state/1/root/runc-overlayfs/content/blobs/sha256"
    blobs.mkdir(parents=True)
    (blobs / ("1" * 64)).touch()
    assert build(cache) == "a blob in it has lost its content"
    assert build(cache) == ""


@pytest.mark.parametrize("kind", ["file", "link"])
def test_a_root_that_is_no_directory_begins_it_anew(cache: Path, tmp_path: Path, kind: str) -> None:
    build(cache)
    root = cache / "state/1/root"
    root.rename(tmp_path / "elsewhere")
    if kind == "file":
        root.touch()
    else:
        root.symlink_to(tmp_path / "elsewhere")
    assert build(cache) == "it belonged to another user"
    assert root.is_dir()
    assert not root.is_symlink()
    assert (tmp_path / "elsewhere/cache.db").read_text() == "kept"


def test_what_is_put_aside_is_all_that_the_daemon_had_and_what_was_known_of_it(
    cache: Path,
) -> None:
    build(cache)
    with used(cache) as found:
        found.prepare()
        found.fingerprint.write_text("{}")
        (found.layout / ".verified.json").write_text("{}")
        (found.layout / "index.json").write_text("{}")
        found.renew()
        assert (found.warm, found.tried) == (False, True)
        assert list(found.root.iterdir()) == []
        assert not found.fingerprint.exists()
        assert [path.name for path in found.layout.iterdir()] == ["index.json"]
        [aside] = found.remnants()
        assert (aside / "cache.db").read_text() == "kept"


def test_it_can_be_put_aside_twice(cache: Path) -> None:
    with used(cache) as found:
        found.prepare()
        found.renew()
        serve(found)
        found.renew()
        assert len(found.remnants()) == 2


def test_a_kill_while_it_is_put_aside_leaves_one_that_is_used(cache: Path) -> None:
    build(cache)
    with used(cache, kill=True) as found:
        found.prepare()
        found.fingerprint.write_text("{}")
        found.root.rename(found.directory / "aside-1")
    with used(cache) as found:
        assert found.prepare() == ""
        assert not found.warm


def test_two_builds_at_once_do_not_share_it(cache: Path) -> None:
    with (
        used(cache),
        pytest.raises(LockNotFreeError),
        opened(cache, MAKER, ME, patience=0.0, check=nothing, waiting=nothing),
    ):
        pass
    build(cache)


def test_a_lock_of_the_daemon_that_is_no_file_is_left_to_it(cache: Path) -> None:
    build(cache)
    lock = cache / "state/1/root/buildkitd.lock"
    lock.unlink()
    lock.mkdir()
    with used(cache) as found:
        assert found.prepare() == ""
        assert found.warm


@pytest.mark.parametrize("place", ["state", "state/1"])
def test_a_link_in_its_place_is_not_followed(cache: Path, tmp_path: Path, place: str) -> None:
    (tmp_path / "elsewhere").mkdir()
    path = cache / place
    path.parent.mkdir(exist_ok=True)
    path.symlink_to(tmp_path / "elsewhere")
    with pytest.raises(StateNotCarried, match="cannot be kept") as caught, used(cache):
        pass
    assert str(path) in caught.value.why[0]
    assert list((tmp_path / "elsewhere").iterdir()) == []


@pytest.mark.parametrize("kind", ["overlay", "tmpfs", "nfs4"])
def test_some_file_systems_are_not_even_tried(cache: Path, tmp_path: Path, kind: str) -> None:
    (tmp_path / "mountinfo").write_text(f"1 0 254:0 / / rw - {kind} none rw\n")
    with pytest.raises(StateNotCarried) as caught, used(cache):
        pass
    assert caught.value.why == (f"{cache}/state/1 lies on {kind}",)
    assert caught.value.hint


def test_what_the_disk_refuses_is_told_with_its_path() -> None:
    told = not_carried(OSError(28, "No space left on device", "/cache/state/1/used"))
    assert told.why == ("/cache/state/1/used: No space left on device",)
    assert not_carried(OSError("odd")).why == ("odd",)


def test_the_databases_are_written_out(cache: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    build(cache)
    root = cache / "state/1/root"
    for name in ("history.db", "runc-overlayfs/metadata_v2.db", "runc-overlayfs/containerdmeta.db"):
        (root / name).parent.mkdir(exist_ok=True)
        (root / name).touch()
    (root / "runc-overlayfs/snapshots").mkdir()
    (root / "runc-overlayfs/snapshots/metadata.db").touch()
    written: list[str] = []
    monkeypatch.setattr(
        os, "fsync", lambda number: written.append(Path(f"/proc/self/fd/{number}").readlink().name)
    )
    with used(cache, kill=True) as found:
        found.prepare()
        found.finish(grown=False)
    # The mark of its use is made durable, then the databases are.
    assert sorted(name for name in written if name.endswith(".db")) == [
        "cache.db",
        "containerdmeta.db",
        "history.db",
        "metadata.db",
        "metadata_v2.db",
    ]
    assert not (cache / "state/1/used").exists()


@pytest.mark.parametrize(("age", "trusted"), [(3600, True), (5, False)])
@pytest.mark.parametrize("kill", [True, False])
def test_what_was_made_is_trusted_after_a_boot_once_it_has_settled(
    cache: Path, age: int, trusted: bool, kill: bool
) -> None:
    """Nobody waits for the disk: the kernel has written it out by the time of a later build."""
    mark, database = cache / "state/1/used", cache / "state/1/root/cache.db"
    with used(cache, kill=True) as found:
        found.prepare()
        database.touch()
        if not kill:
            found.finish(grown=True)
    assert mark.exists()
    then = time.time() - age
    os.utime(database, (then, then))
    with used(cache, kill=True) as found:
        found.prepare()
        found.finish(grown=False)
    assert mark.exists() is not trusted


def test_a_build_after_a_kill_removes_what_that_left(cache: Path) -> None:
    part = cache / "state/1/root/runc-overlayfs/content/ingest/part"
    for kill in (False, True):
        build(cache, kill=kill)
        part.mkdir(parents=True, exist_ok=True)
        (part / "data").touch()
        build(cache)
        assert part.exists() is not kill
