"""What buildctl is called with so that the daemon forgets, and what a failure becomes."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence

import pytest

from plp_builder import process
from plp_builder.buildkit import Endpoint, pruning
from plp_builder.errors import StateDamaged
from plp_builder.process import Completed

ENDPOINT = Endpoint("unix:///run/x.sock")
ENV = {"PATH": "/bin"}


class Calls:
    def __init__(self) -> None:
        self.words: list[list[str]] = []
        self.code = 0
        self.stderr = b""

    def __call__(
        self, command: Sequence[str], *, env: Mapping[str, str], timeout: float
    ) -> Completed:
        assert env == ENV
        assert timeout > 60
        self.words.append(list(command))
        return Completed(tuple(command), self.code, b"", self.stderr)


@pytest.fixture
def calls(monkeypatch: pytest.MonkeyPatch) -> Calls:
    found = Calls()
    monkeypatch.setattr(process, "run", found)
    return found


def test_copies_of_contexts_are_forgotten_and_nothing_else(calls: Calls) -> None:
    pruning.local_sources(ENDPOINT, ENV)
    [words] = calls.words
    assert words[:3] == ["buildctl", "--addr", "unix:///run/x.sock"]
    assert words[3:] == ["prune", "--all", "--filter", "type==source.local"]


def test_cache_mounts_go_only_when_all_else_is_gone(calls: Calls) -> None:
    pruning.to_size(ENDPOINT, ENV, 1_500_000_000)
    first, second = (words[3:] for words in calls.words)
    assert "type!=exec.cachemount" in first
    assert not any("type" in word for word in second)
    assert first[-1] == second[-1] == "--keep-storage=1500.000000"


def test_records_of_builds_are_forgotten_apart(calls: Calls) -> None:
    pruning.histories(ENDPOINT, ENV)
    assert [words[3:] for words in calls.words] == [["prune-histories"]]


@pytest.mark.parametrize("size", [0, 1, -5])
def test_a_bound_of_nothing_is_still_a_bound(calls: Calls, size: int) -> None:
    pruning.to_size(ENDPOINT, ENV, size)
    assert all(words[-1] == "--keep-storage=1.000000" for words in calls.words)


@pytest.mark.parametrize(
    "prune",
    [
        lambda: pruning.local_sources(ENDPOINT, ENV),
        lambda: pruning.to_size(ENDPOINT, ENV, 10**9),
    ],
)
def test_a_daemon_that_cannot_forget_has_a_damaged_state(
    calls: Calls, prune: Callable[[], None]
) -> None:
    calls.code, calls.stderr = 1, b"one\ntwo\nthree\nerror: invalid \xff database\n"
    with pytest.raises(StateDamaged) as caught:
        prune()
    assert caught.value.why == ("two", "three", "error: invalid \ufffd database")
