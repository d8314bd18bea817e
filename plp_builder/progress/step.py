"""A step of a build as known so far."""

from __future__ import annotations

import re
from collections import deque

KEPT_LINES = 50
CANCELED = "context canceled"

_NUMBERED = re.compile(r"\[(?:[^\]]* )?\d+/\d+\] (?P<instruction>\S+)")


class Step:
    """One line of the Dockerfile, or one of BuildKit's own tasks, while it is built.

    ``number`` is 0 until somebody shows the step. ``intervals`` maps the times at which BuildKit
    started it to those at which it completed: it may do so more than once.
    """

    __slots__ = (
        "cached", "error", "intervals", "lines", "members", "name", "number", "partial",
        "transfers",
    )  # fmt: skip

    def __init__(self, name: str) -> None:
        self.name = name
        self.number = 0
        self.cached = False
        self.error = ""
        self.intervals: dict[float, float | None] = {}
        self.lines: deque[str] = deque(maxlen=KEPT_LINES)
        self.members: dict[str, bool] = {}
        self.partial: dict[int, bytes] = {}
        self.transfers: dict[str, tuple[int, int]] = {}

    @property
    def instruction(self) -> str:
        """``RUN``, ``COPY``, … of a numbered Dockerfile step; empty for BuildKit's own tasks."""
        found = _NUMBERED.match(self.name)
        return found["instruction"] if found else ""

    @property
    def counts(self) -> bool:
        """Whether people count it: an instruction that BuildKit executes or finds cached.

        A ``FROM`` is left out: it is never "cached" in BuildKit's sense, so that an unchanged
        build would look as if it had done something.
        """
        return self.instruction not in ("", "FROM")

    @property
    def started(self) -> float | None:
        return min(self.intervals, default=None)

    @property
    def running(self) -> bool:
        return None in self.intervals.values()

    @property
    def canceled(self) -> bool:
        """Whether it ended only because another step failed or the build was stopped."""
        return self.error.endswith(CANCELED)

    @property
    def duration(self) -> float:
        """Seconds of work in all completed intervals, overlaps counted once."""
        total, until = 0.0, float("-inf")
        for start, stop in sorted(
            (start, stop) for start, stop in self.intervals.items() if stop is not None
        ):
            total += max(0.0, stop - max(start, until))
            until = max(until, stop)
        return total

    @property
    def transferred(self) -> int:
        """Bytes received so far: of the context, or of a base image's layers."""
        return sum(current for current, _ in self.transfers.values())

    @property
    def expected(self) -> int:
        """Bytes to receive in all, as far as BuildKit knows; 0 when it does not."""
        return sum(total for _, total in self.transfers.values())
