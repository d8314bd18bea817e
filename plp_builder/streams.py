"""Sinks for the output of programs: cut into lines, or its end kept. Both are bounded."""

from __future__ import annotations

from collections import deque
from collections.abc import Callable

LINE_LIMIT = 8 << 20
"""Longest line kept, in bytes; what exceeds it is cut. A progress line holds up to 32 KiB of
a step's output in base64, so only a defect or an attack comes near it."""


class Lines:
    """Cuts a stream of chunks into lines without their ends; a sink for :meth:`Watch.reads`."""

    def __init__(self, sink: Callable[[bytes], None], limit: int = LINE_LIMIT) -> None:
        self.ended = False
        self._sink = sink
        self._limit = limit
        self._parts: list[bytes] = []
        self._size = 0

    def __call__(self, chunk: bytes) -> None:
        if not chunk:
            self.ended = True
            if self._parts:
                self._line(b"")
            return
        *lines, rest = chunk.split(b"\n")
        for line in lines:
            self._line(line)
        if rest and self._size < self._limit:
            self._parts.append(rest)
            self._size += len(rest)

    def _line(self, end: bytes) -> None:
        line = b"".join((*self._parts, end)) if self._parts else end
        self._parts.clear()
        self._size = 0
        self._sink(line[: self._limit])


class Tail:
    """The last lines of a program's log, bounded in number and length."""

    def __init__(self, lines: int = 400, width: int = 4000) -> None:
        self._lines: deque[bytes] = deque(maxlen=lines)
        self._width = width

    def __call__(self, line: bytes) -> None:
        self._lines.append(line[: self._width])

    def text(self) -> list[str]:
        return [line.decode("utf-8", "replace").rstrip() for line in self._lines]
