"""The content of many members of one file, read once and by several threads.

hashlib and zlib let go of the interpreter's lock, so two cores hash twice as much. One member
is one thread's: the digest of a single large layer cannot be split.
"""

from __future__ import annotations

import os
from collections.abc import Callable, Iterable, Iterator
from contextlib import suppress
from typing import BinaryIO

from plp_builder.errors import ArchiveInvalid
from plp_builder.oci.tar import Member

MAX_THREADS = 4

_BUFFER = 256 * 1024
_BETWEEN_CHECKS = 16
_WORTH_A_THREAD = 8 * 1024 * 1024
_WAIT = 0.05

_ReadAt = Callable[[memoryview, int], int]


class Pieces(Iterator[memoryview]):
    """A member's content; each piece is valid until the next is asked for.

    Whoever makes much of one piece calls ``check`` now and then, which may raise to stop.
    """

    def __init__(self, member: Member, read_at: _ReadAt, check: Callable[[], None]) -> None:
        self.check = check
        self._pieces = _pieces(member, read_at, check)

    def __next__(self) -> memoryview:
        return next(self._pieces)


Work = Callable[[Member, Pieces], None]


def for_each(
    file: BinaryIO, members: Iterable[Member], work: Work, check: Callable[[], None]
) -> None:
    """Call ``work`` with each member and its content, piece by piece.

    Several threads do so at once where the file is one of the system's. ``check`` is called every
    few MB, by the calling thread only, and may raise. What it or ``work`` raises ends all; no
    thread is left running then.
    """
    # The largest first: then no thread has to finish a large one alone at the end.
    waiting = sorted(members, key=lambda member: member.size)
    read_at, threads = _reading(file)
    large = sum(member.size >= _WORTH_A_THREAD for member in waiting)
    threads = min(threads, MAX_THREADS, large)
    if threads > 1:
        _Crew(waiting, work, read_at).run(threads, check)
        return
    while waiting:
        member = waiting.pop()
        work(member, Pieces(member, read_at, check))


def _reading(file: BinaryIO) -> tuple[_ReadAt, int]:
    """How to read at an offset, and how many threads may do so at once."""
    try:
        descriptor = file.fileno()
    except OSError:
        return _by_position(file), 1
    return lambda piece, offset: os.preadv(descriptor, [piece], offset), _cores()


def _cores() -> int:
    return len(os.sched_getaffinity(0))


def _by_position(file: BinaryIO) -> _ReadAt:
    readinto: Callable[[memoryview], int] = file.readinto  # type: ignore[attr-defined]

    def read_at(piece: memoryview, offset: int) -> int:
        file.seek(offset)
        return readinto(piece)

    return read_at


def _pieces(member: Member, read_at: _ReadAt, check: Callable[[], None]) -> Iterator[memoryview]:
    buffer = memoryview(bytearray(min(_BUFFER, member.size)))
    done = 0
    reads = 0
    while done < member.size:
        if reads % _BETWEEN_CHECKS == 0:
            check()
        reads += 1
        count = read_at(buffer[: member.size - done], member.offset + done)
        if not count:
            raise ArchiveInvalid("The archive became shorter while it was read")
        done += count
        yield buffer[:count]


class _OtherFailedError(Exception):
    """Another thread has failed, so that this one need not go on."""


class _Crew:
    """Threads, the calling one among them, that take members from one list."""

    def __init__(self, waiting: list[Member], work: Work, read_at: _ReadAt) -> None:
        self._waiting = waiting
        self._work = work
        self._read_at = read_at
        self._failures: list[BaseException] = []

    def run(self, count: int, check: Callable[[], None]) -> None:
        """Do all the work by ``count`` threads; the first failure is raised at the end."""
        from threading import Thread

        threads: list[Thread] = []
        # A container may not let us have another thread: fewer do the same work.
        with suppress(RuntimeError):
            for _ in range(count - 1):
                thread = Thread(target=self._take, args=(self._go_on,), daemon=True)
                thread.start()
                threads.append(thread)

        def go_on_checked() -> None:
            self._go_on()
            check()

        self._take(go_on_checked)
        for thread in threads:
            while thread.is_alive():
                thread.join(_WAIT)
                self._note_failure(go_on_checked)
        if self._failures:
            raise self._failures[0]

    def _go_on(self) -> None:
        if self._failures:
            raise _OtherFailedError

    def _take(self, check: Callable[[], None]) -> None:
        def all_members() -> None:
            while member := self._next():
                self._work(member, Pieces(member, self._read_at, check))

        self._note_failure(all_members)

    def _next(self) -> Member | None:
        # A list's pop is atomic: each member goes to one thread.
        try:
            return self._waiting.pop()
        except IndexError:
            return None

    def _note_failure(self, step: Callable[[], None]) -> None:
        try:
            step()
        except _OtherFailedError:
            return
        except BaseException as error:  # noqa: BLE001 - raised at the end, when all have stopped
            self._failures.append(error)
