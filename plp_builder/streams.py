"""Sinks for the output of programs, cut into lines or its end kept; and our own three streams."""

from __future__ import annotations

import os
import sys
from collections import deque
from contextlib import suppress
from typing import TYPE_CHECKING

from plp_builder.errors import Failure, exhausted

if TYPE_CHECKING:
    from collections.abc import Callable
    from typing import NoReturn

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


def open_standard_streams() -> None:
    """Give closed standard streams to /dev/null.

    Python leaves them None, and the next file that is opened would take their number: the
    archive, for example, could get what a child writes to its standard error.
    """
    for number, name in enumerate(("stdin", "stdout", "stderr")):
        try:
            os.fstat(number)
        except OSError:
            os.set_inheritable(os.open(os.devnull, os.O_RDWR), True)  # the lowest free number
        if getattr(sys, name) is None:
            setattr(sys, name, open(os.devnull, "r" if number == 0 else "w"))  # noqa: PTH123, SIM115


def run(main: Callable[[], int]) -> NoReturn:
    """Run a program from its first to its last moment: ``main`` gives the exit code."""
    open_standard_streams()
    # Without this a strange umask could lock us out of what we make ourselves.
    os.umask(os.umask(0o077) & 0o077)
    try:
        code = main()
    except BrokenPipeError:  # a reader of --help or --version that has seen enough
        code = 1
    except OSError as error:  # the same into a full stream
        code = 1
        failure = exhausted(error) or Failure(str(error))
        with suppress(OSError, ValueError):
            sys.stderr.write(f"ERROR {failure.name}: {failure.what}\n")
    # Nothing is left to do, and taking the interpreter apart takes 20 ms.
    os._exit(told(code))


def told(code: int) -> int:
    """``code`` once everything is written; 1 where standard output, a result, could not be."""
    try:
        sys.stdout.flush()
    except (OSError, ValueError):
        code = code or 1
    try:
        sys.stderr.flush()
        # A signal has made it non-blocking (process.Stop), and so our parent's terminal.
        os.set_blocking(2, True)
    except (OSError, ValueError):
        pass  # a reader that went away does not make a run fail
    return code
