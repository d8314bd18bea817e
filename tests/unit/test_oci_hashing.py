"""Content read by several threads: all of it, once, and nothing runs on after a failure."""

from __future__ import annotations

import hashlib
import os
import threading
from collections import deque
from collections.abc import Iterator
from pathlib import Path
from typing import BinaryIO

import pytest

from plp_builder.errors import ArchiveInvalid
from plp_builder.oci import hashing
from plp_builder.oci.tar import Member

SIZES = (0, 1, 1000, 256 * 1024, 256 * 1024 + 1, 700_000, 3, 256 * 1024 * 5)


class StopError(Exception):
    """What a check raises."""


@pytest.fixture(autouse=True)
def _threads_are_used_for_little(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(hashing, "_WORTH_A_THREAD", 1)
    monkeypatch.setattr(hashing, "_cores", lambda: 8)


@pytest.fixture
def members(tmp_path: Path) -> list[Member]:
    found = []
    with (tmp_path / "file").open("wb") as file:
        for number, size in enumerate(SIZES):
            found.append(Member(str(number), file.tell(), size, is_directory=False))
            file.write(os.urandom(size))
    return found


@pytest.fixture
def file(tmp_path: Path, members: list[Member]) -> Iterator[BinaryIO]:
    with (tmp_path / "file").open("rb", buffering=0) as opened:
        yield opened


def nothing() -> None:
    """A check that never stops."""


def test_every_member_is_read_once(file: BinaryIO, members: list[Member]) -> None:
    found: dict[str, str] = {}
    seen: set[str] = set()

    def work(member: Member, pieces: Iterator[memoryview]) -> None:
        assert member.name not in found
        seen.add(threading.current_thread().name)
        hashed = hashlib.sha256()
        for piece in pieces:
            hashed.update(piece)
        found[member.name] = hashed.hexdigest()

    hashing.for_each(file, members, work, nothing)
    file.seek(0)
    data = file.read()
    assert found == {
        each.name: hashlib.sha256(data[each.offset : each.offset + each.size]).hexdigest()
        for each in members
    }
    assert len(seen) <= hashing.MAX_THREADS


def test_several_threads_work_at_once(file: BinaryIO, members: list[Member]) -> None:
    """Each waits until all others are at work, too."""
    together = threading.Barrier(hashing.MAX_THREADS, timeout=60)
    waited = threading.local()

    def work(member: Member, pieces: Iterator[memoryview]) -> None:
        if not hasattr(waited, "done"):
            waited.done = True
            together.wait()
        assert sum(map(len, pieces)) == member.size

    hashing.for_each(file, members, work, nothing)
    assert not together.broken


@pytest.mark.parametrize("name", ["0", "3", "7"])
def test_a_failure_ends_all(file: BinaryIO, members: list[Member], name: str) -> None:
    before = threading.active_count()

    def work(member: Member, pieces: Iterator[memoryview]) -> None:
        assert sum(map(len, pieces)) == member.size
        if member.name == name:
            raise ArchiveInvalid("wrong")

    with pytest.raises(ArchiveInvalid, match="wrong"):
        hashing.for_each(file, members, work, nothing)
    assert threading.active_count() == before


@pytest.mark.parametrize("after", [1, 4])
def test_a_check_ends_all_and_only_the_caller_s_thread_checks(
    file: BinaryIO, members: list[Member], after: int
) -> None:
    before = threading.active_count()
    calls: list[threading.Thread] = []
    others_may_end = threading.Event()

    def check() -> None:
        calls.append(threading.current_thread())
        if len(calls) == after:
            others_may_end.set()
            raise StopError

    def work(member: Member, pieces: Iterator[memoryview]) -> None:
        # The other threads are busy for as long as the caller has not stopped them.
        if threading.current_thread() is not threading.main_thread():
            assert others_may_end.wait(60)
        deque(pieces, 0)

    with pytest.raises(StopError):
        hashing.for_each(file, members, work, check)
    assert threading.active_count() == before
    assert set(calls) == {threading.main_thread()}


def test_a_file_that_became_shorter_is_refused(
    file: BinaryIO, members: list[Member], tmp_path: Path
) -> None:
    os.truncate(tmp_path / "file", 500_000)
    with pytest.raises(ArchiveInvalid, match="became shorter"):
        hashing.for_each(file, members, lambda _, pieces: deque(pieces, 0).clear(), nothing)


def test_fewer_threads_than_wanted_do_the_same_work(
    file: BinaryIO, members: list[Member], monkeypatch: pytest.MonkeyPatch
) -> None:
    """A container's limit on processes counts threads."""

    def cannot(_: threading.Thread) -> None:
        raise RuntimeError("can't start new thread")

    monkeypatch.setattr(threading.Thread, "start", cannot)
    done: list[str] = []

    def work(member: Member, pieces: Iterator[memoryview]) -> None:
        assert sum(map(len, pieces)) == member.size
        done.append(member.name)

    hashing.for_each(file, members, work, nothing)
    assert sorted(done) == [each.name for each in members]
