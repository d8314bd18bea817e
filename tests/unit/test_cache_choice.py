"""Which cache a build uses, and what it says of that."""

from __future__ import annotations

import errno
import io
import json
import os
import shutil
from collections.abc import Callable, Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

import pytest

from plp_builder import log
from plp_builder.buildkit.deaths import explain
from plp_builder.buildkit.options import Options, Root
from plp_builder.buildkit.room import Room
from plp_builder.buildkit.runtime import Runtime
from plp_builder.buildkit.sandbox import Sandbox
from plp_builder.cache import choice, files, state
from plp_builder.cache.choice import DEFAULT_BOUND, DEFAULT_PATH, Choice
from plp_builder.errors import (
    BuildFailed,
    DaemonDied,
    DaemonNotReady,
    Failure,
    RootlessNotPermitted,
    StateDamaged,
    StateNotCarried,
    Terminated,
)
from plp_builder.preflight.facts import Facts, Range
from plp_builder.settings import Settings, load
from plp_builder.users import User

ME = User("me", os.geteuid(), os.getegid(), "/")
ROOM = Room(Runtime("/c", "/d"), ME, Sandbox.PROCESS)
PLAIN = Options()
CRASH = ["panic: assertion failed: Page expected to be: 7, but self identifies as 1095216660487"]
DAMAGED = StateDamaged("a solve failed on it", why=["error: failed to solve: invalid database"])


@pytest.fixture(autouse=True)
def machine(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    (tmp_path / "boot_id").write_text("11111111\n")
    (tmp_path / "mountinfo").write_text("1 0 254:0 / / rw - ext4 /dev/vda rw\n")
    monkeypatch.setattr(state, "_BOOT", tmp_path / "boot_id")
    monkeypatch.setattr(state, "_MOUNTS", tmp_path / "mountinfo")
    monkeypatch.setattr(state, "on_the_way", lambda _path: ())


@pytest.fixture
def said() -> Iterator[Callable[[], list[dict[str, Any]]]]:
    """What was logged so far."""
    stream = io.StringIO()
    log.configure("json", stream=stream)
    yield lambda: [json.loads(line) for line in stream.getvalue().splitlines()]
    log.configure()


@pytest.fixture
def facts(tmp_path: Path) -> Facts:
    program = tmp_path / "buildkitd"
    program.touch()
    ranges = (Range("me", 100_000, 65_536), Range("other", 900_000, 65_536))
    return Facts(tools={"buildkitd": str(program)}, subuid=ranges, subgid=ranges)


@pytest.fixture
def cache(tmp_path: Path) -> Path:
    found = tmp_path / "cache"
    found.mkdir()
    return found


@pytest.fixture
def made(facts: Facts) -> Iterator[Choice]:
    with Choice(facts, ME) as found:
        yield found


def nothing() -> None:
    return None


def settings(**variables: str) -> Settings:
    return load({f"PLP_{name}": value for name, value in variables.items()})


def choose(made: Choice, cache: Path | None, asked: Options = PLAIN, **given: str) -> None:
    made.choose(settings(**given), cache, asked, nothing)


def warm(made: Choice, cache: Path) -> Path:
    """A state in which a daemon has been at work; where its root is."""
    choose(made, cache)
    assert made.state
    (made.state.root / "buildkitd.lock").touch()
    made.state.warm = True
    return made.state.root


def test_the_defaults_are_those_of_the_settings() -> None:
    found = settings()
    assert str(found.cache_path) == DEFAULT_PATH
    assert found.cache_max_size == DEFAULT_BOUND


def test_the_state_is_used_where_it_can_be(made: Choice, cache: Path) -> None:
    choose(made, cache, CACHE_MAX_SIZE="2GB")
    assert made.root == Root(cache / "state/1/root", tried=False, bound=2_000_000_000)
    assert made.refusal is None


@pytest.mark.parametrize("strategy", ["portable", "off"])
def test_it_is_not_where_the_settings_say_so(made: Choice, cache: Path, strategy: str) -> None:
    choose(made, cache, CACHE_STRATEGY=strategy)
    assert made.root is None
    assert not (cache / "state").exists()


def test_it_is_not_without_a_directory(made: Choice) -> None:
    choose(made, None)
    assert made.root is None


@pytest.mark.parametrize(
    "flag",
    [
        "--root=/elsewhere",
        "--oci-worker-snapshotter=native",
        "--oci-worker=false",
        "--containerd-worker=true",
    ],
)
def test_it_is_not_for_a_daemon_that_keeps_its_own_elsewhere(
    made: Choice, cache: Path, said: Callable[[], list[dict[str, Any]]], flag: str
) -> None:
    choose(made, cache, Options(flags=("--debug", flag)))
    assert made.root is None
    [event] = said()
    assert event["name"] == "state-not-carried"
    assert event["why"] == f"PLP_BUILDKITD_FLAGS has {flag}"


def test_an_early_choice_stands(made: Choice, cache: Path) -> None:
    assert made.early(str(cache))
    root = made.root
    assert root
    choose(made, cache)
    assert made.root == root


def test_an_early_choice_that_the_settings_do_not_want_is_given_up(
    made: Choice, facts: Facts, cache: Path
) -> None:
    assert made.early(str(cache))
    choose(made, cache, CACHE_STRATEGY="portable")
    assert made.root is None
    with Choice(facts, ME) as other:
        assert other.early(str(cache))


@pytest.mark.parametrize("strategy", ["portable", "off"])
def test_an_early_choice_knows_the_strategy(made: Choice, cache: Path, strategy: str) -> None:
    assert made.early(str(cache), strategy)
    assert made.root is None
    choose(made, cache, CACHE_STRATEGY=strategy)
    assert made.root is None
    assert not (cache / "state").exists()


@pytest.mark.parametrize("strategy", [None, "", "auto", "state"])
def test_an_early_choice_with_a_state(made: Choice, cache: Path, strategy: str | None) -> None:
    assert made.early(str(cache), strategy)
    assert made.root


def test_an_early_choice_does_not_wait(made: Choice, facts: Facts, cache: Path) -> None:
    choose(made, cache)
    with Choice(facts, ME) as other:
        assert not other.early(str(cache))
        assert other.root is None


@pytest.mark.parametrize("path", ["relative", "boot_id"])
def test_an_early_choice_leaves_wrong_paths_to_the_settings(
    made: Choice, tmp_path: Path, path: str
) -> None:
    given = path if path == "relative" else str(tmp_path / path)
    assert not made.early(given)


def test_a_refusal_is_told_once_though_it_comes_early(
    made: Choice, cache: Path, tmp_path: Path, said: Callable[[], list[dict[str, Any]]]
) -> None:
    (tmp_path / "mountinfo").write_text("1 0 0:59 / / rw - overlay overlay rw\n")
    assert made.early(str(cache))
    assert said() == []
    choose(made, cache)
    assert made.root is None
    [event] = said()
    assert event["event"] == "The daemon's state cannot be kept: the portable cache is used"
    assert event["why"] == f"{cache}/state/1 lies on overlay"
    assert event["hint"]


def test_a_state_in_use_is_waited_for_and_then_done_without(
    made: Choice, facts: Facts, cache: Path, said: Callable[[], list[dict[str, Any]]]
) -> None:
    choose(made, cache)
    with Choice(facts, ME) as other:
        choose(other, cache, CACHE_LOCK_TIMEOUT="0")
        assert other.root is None
    [event] = said()
    assert (
        event["event"] == "Another build still uses the daemon's state: the portable cache is used"
    )
    assert event["why"] == "waited for 0 s (PLP_CACHE_LOCK_TIMEOUT)"


def test_a_stop_ends_the_wait(made: Choice, facts: Facts, cache: Path) -> None:
    def stop() -> None:
        raise Terminated("stopped")

    choose(made, cache)
    with Choice(facts, ME) as other, pytest.raises(Terminated):
        other.choose(settings(), cache, Options(), stop)


def test_only_the_ranges_of_the_daemons_user_count(facts: Facts, cache: Path) -> None:
    def root_of(facts: Facts) -> Path:
        with Choice(facts, ME) as found:
            choose(found, cache)
            assert found.state
            found.state.keep_verdict()
            return found.state.root

    kept = root_of(facts) / "kept"
    kept.touch()
    others = Range("other", 1, 2)
    root_of(facts._replace(subuid=(facts.subuid[0], others)))
    assert kept.exists()
    # Root's daemon has no ranges.
    if ME.uid:
        root_of(facts._replace(subuid=(Range(str(ME.uid), 1, 2),)))
        assert not kept.exists()


def test_another_program_begins_anew(facts: Facts, cache: Path, tmp_path: Path) -> None:
    for content in ("one", "other one"):
        (tmp_path / "buildkitd").write_text(content)
        with Choice(facts, ME) as found:
            choose(found, cache)
            assert found.state
            found.state.keep_verdict()
            assert list(found.state.root.iterdir()) == []
            (found.state.root / "buildkitd.lock").touch()


def death(log: list[str], code: int, *, ready: bool) -> Failure:
    return explain(log, code, ROOM, ready=ready)


@pytest.mark.parametrize(
    "failure",
    [
        DAMAGED,
        death(CRASH, 2, ready=False),
        death(CRASH, 2, ready=True),
        death(["buildkitd: invalid database"], 1, ready=False),
        death(["unexpected fault address 0x7f", "fatal error: fault"], 2, ready=True),
        DaemonNotReady("buildkitd was not ready within PLP_START_TIMEOUT (60 s)", why=["x"]),
    ],
)
def test_a_damaged_state_is_put_aside_once(
    made: Choice, cache: Path, said: Callable[[], list[dict[str, Any]]], failure: Failure
) -> None:
    root = warm(made, cache)
    assert made.another(failure)
    assert made.root
    assert made.root.path == root
    assert list(root.iterdir()) == []
    [event] = said()
    assert (event["level"], event["name"]) == ("warning", "state-damaged")
    warm(made, cache)
    assert not made.another(failure)
    assert (root / "buildkitd.lock").exists()


@pytest.mark.parametrize(
    "failure",
    [
        death(["level=info msg=fine"], -9, ready=True),
        death(["level=info msg=fine"], 1, ready=True),
        death(["buildkitd: failed to load config from /x"], 1, ready=False),
        RootlessNotPermitted("no"),
        BuildFailed("a step failed", why=["invalid database"]),
    ],
)
def test_other_failures_leave_it_as_it_is(made: Choice, cache: Path, failure: Failure) -> None:
    root = warm(made, cache)
    assert not made.another(failure)
    assert (root / "buildkitd.lock").exists()


def test_an_empty_state_cannot_be_to_blame(made: Choice, cache: Path) -> None:
    choose(made, cache)
    assert not made.another(DaemonDied("buildkitd ended with code 2", why=CRASH))
    assert not made.another(DAMAGED)


def test_neither_can_one_that_is_not_there(made: Choice) -> None:
    choose(made, None)
    assert not made.another(DAMAGED)


def test_a_directory_that_cannot_carry_it_is_left_and_not_tried_again(
    made: Choice, facts: Facts, cache: Path, said: Callable[[], list[dict[str, Any]]]
) -> None:
    choose(made, cache)
    assert made.another(StateNotCarried("cannot", why=["no overlay can be mounted"]))
    assert made.root is None
    with Choice(facts, ME) as other:
        choose(other, cache)
        assert other.root is None
    assert [event["why"] for event in said()] == ["no overlay can be mounted"] * 2


FULL = "buildkitd: mkdir /x: no space left on device"


@pytest.fixture
def removed(monkeypatch: pytest.MonkeyPatch) -> list[Path]:
    """What was removed."""
    found: list[Path] = []

    def remove(paths: Sequence[Path], env: Mapping[str, str]) -> tuple[str, ...]:
        assert env.keys() == {"PATH"}
        found.extend(paths)
        for path in paths:
            shutil.rmtree(path)
        return ()

    monkeypatch.setattr(choice, "remove_trees", remove)
    return found


@pytest.mark.parametrize(
    "failure",
    [
        death([FULL, "panic: x"], 1, ready=False),
        death([FULL], 1, ready=True),
        StateNotCarried("The daemon's state cannot be kept", why=[FULL]),
    ],
)
def test_one_that_is_full_is_emptied_and_used_again_later(
    made: Choice,
    facts: Facts,
    cache: Path,
    said: Callable[[], list[dict[str, Any]]],
    removed: list[Path],
    failure: Failure,
) -> None:
    root = warm(made, cache)
    assert made.another(failure)
    assert made.root is None
    assert not root.exists()
    assert len(removed) == 1
    assert [event["why"] for event in said()] == [FULL]
    with Choice(facts, ME) as other:
        choose(other, cache)
        assert other.root


def test_one_without_room_for_a_small_file_is_emptied_at_once(
    facts: Facts, cache: Path, removed: list[Path], monkeypatch: pytest.MonkeyPatch
) -> None:
    with Choice(facts, ME) as first:
        root = warm(first, cache)
        (root / "large").touch()
    whole = files.replace_durably

    def full(path: Path, data: bytes) -> None:
        if (root / "large").exists():
            raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC), str(path))
        whole(path, data)

    monkeypatch.setattr(state, "replace_durably", full)
    with Choice(facts, ME) as second:
        choose(second, cache)
        assert second.root
        assert len(removed) == 1
        assert list(root.iterdir()) == []


def test_a_full_disk_that_the_state_has_not_filled_is_left(
    made: Choice, cache: Path, removed: list[Path], monkeypatch: pytest.MonkeyPatch
) -> None:
    def full(path: Path, _: bytes) -> None:
        raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC), str(path))

    monkeypatch.setattr(state, "replace_durably", full)
    choose(made, cache)
    assert made.root is None
    assert made.refusal
    assert "No space left" in made.refusal.why[0]


def test_the_bound_is_that_of_the_disk_where_it_is_small(
    made: Choice, cache: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(choice, "room_for", lambda _path, asked: asked // 10)
    choose(made, cache, CACHE_MAX_SIZE="2GB")
    assert made.root
    assert made.root.bound == 200_000_000


def test_where_it_cannot_be_put_aside_it_is_done_without(
    made: Choice, cache: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def refuse(_: state.State) -> None:
        raise PermissionError(13, "Permission denied")

    root = warm(made, cache)
    monkeypatch.setattr(state.State, "renew", refuse)
    assert made.another(DAMAGED)
    assert made.root is None
    assert (root / "buildkitd.lock").exists()


def test_a_failed_build_leaves_a_state_that_may_have_grown(facts: Facts, cache: Path) -> None:
    with Choice(facts, ME) as found:
        choose(found, cache)
    assert (cache / "state/1/used").exists()


def test_what_buildctl_logs_besides_is_not_told(
    made: Choice, cache: Path, said: Callable[[], list[dict[str, Any]]]
) -> None:
    warm(made, cache)
    words = "error: failed to solve: invalid database"
    noise = 'time="2026-11-21T15:08:44Z" level=error msg="(*service).Write failed"'
    assert made.another(StateDamaged("a solve failed on it", why=[words, noise, "-----"]))
    assert said()[0]["why"] == f"a solve failed on it; {words}"


def test_the_lock_is_free_afterwards(facts: Facts, cache: Path) -> None:
    with Choice(facts, ME) as first:
        choose(first, cache)
    with Choice(facts, ME) as second:
        assert second.early(str(cache))
