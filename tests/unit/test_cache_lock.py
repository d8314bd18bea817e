"""The lock of the portable cache: shared by readers, and never waited for in silence."""

from __future__ import annotations

import fcntl
from contextlib import AbstractContextManager
from pathlib import Path

import pytest

from plp_builder.cache import lock
from tests.support.cache import no_check


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
