"""What buildctl is called with so that the daemon forgets, and what a failure becomes."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from typing import NamedTuple

import pytest

from plp_builder import process
from plp_builder.buildkit import Endpoint, pruning
from plp_builder.errors import StateDamaged
from plp_builder.process import Completed

ENDPOINT = Endpoint("unix:///run/x.sock")
ENV = {"PATH": "/bin"}


class Calls:
    """What buildctl was called with; ``held`` is what ``du`` says the daemon keeps."""

    def __init__(self) -> None:
        self.words: list[list[str]] = []
        self.code = 0
        self.stderr = b""
        self.held = b"4000000000 5 "

    def __call__(self, command: Sequence[str], *, env: Mapping[str, str]) -> Answer:
        assert env == ENV
        self.words.append(list(command[3:]))
        assert command[:3] == ["buildctl", "--addr", "unix:///run/x.sock"]
        said = self.held if command[3] == "du" else b""
        return Answer(Completed(tuple(command), self.code, said, self.stderr))


class Answer(NamedTuple):
    completed: Completed

    def finish(self, timeout: float) -> Completed:
        assert timeout > 60
        return self.completed


@pytest.fixture
def calls(monkeypatch: pytest.MonkeyPatch) -> Calls:
    found = Calls()
    monkeypatch.setattr(process, "begin", found)
    return found


def test_copies_of_contexts_are_forgotten_and_nothing_else(calls: Calls) -> None:
    pruning.local_sources(ENDPOINT, ENV)
    assert calls.words == [["prune", "--all", "--filter", "type==source.local"]]


def test_cache_mounts_go_only_when_all_else_is_gone(calls: Calls) -> None:
    pruning.to_size(ENDPOINT, ENV, 1_500_000_000)
    _, first, second = calls.words
    assert "type!=exec.cachemount" in first
    assert not any("type" in word for word in second)
    assert first[-1] == second[-1] == "--keep-storage=1500.000000"


@pytest.mark.parametrize(("size", "calls_expected"), [(4_000_000_004, 3), (4_000_000_005, 1)])
def test_what_is_within_the_bound_is_left_alone(
    calls: Calls, size: int, calls_expected: int
) -> None:
    pruning.to_size(ENDPOINT, ENV, size)
    assert len(calls.words) == calls_expected


def test_a_daemon_that_keeps_nothing_has_nothing_to_forget(calls: Calls) -> None:
    calls.held = b""
    pruning.to_size(ENDPOINT, ENV, 0)
    assert [words[0] for words in calls.words] == ["du"]


def test_records_of_builds_are_forgotten_apart(calls: Calls) -> None:
    pruning.finish(pruning.histories(ENDPOINT, ENV))
    assert calls.words == [["prune-histories"]]


@pytest.mark.parametrize("size", [0, 1, -5])
def test_a_bound_of_nothing_is_still_a_bound(calls: Calls, size: int) -> None:
    pruning.to_size(ENDPOINT, ENV, size)
    assert [words[-1] for words in calls.words[1:]] == ["--keep-storage=1.000000"] * 2


@pytest.mark.parametrize(
    "prune",
    [
        lambda: pruning.local_sources(ENDPOINT, ENV),
        lambda: pruning.to_size(ENDPOINT, ENV, 10**9),
        lambda: pruning.finish(pruning.histories(ENDPOINT, ENV)),
    ],
)
def test_a_daemon_that_cannot_forget_has_a_damaged_state(
    calls: Calls, prune: Callable[[], None]
) -> None:
    calls.code, calls.stderr = 1, b"one\ntwo\nthree\nerror: invalid \xff database\n"
    with pytest.raises(StateDamaged) as caught:
        prune()
    assert caught.value.why == ("two", "three", "error: invalid \ufffd database")
