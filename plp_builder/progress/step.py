"""A step of a build as known so far."""

from __future__ import annotations

import re
from collections import deque

from plp_builder.tuples import NamedTuple

KEPT_LINES = 50
CANCELED = "context canceled"

_NUMBERED = re.compile(r"\[(?:[^\]]* )?\d+/\d+\] (?P<instruction>\S+)")


class Span(NamedTuple):
    """A time of work: ``stop`` is None while it lasts."""

    stop: float | None
    cached: bool


class Step:
    """One line of the Dockerfile, or one of BuildKit's own tasks, while it is built.

    ``number`` is 0 until somebody shows the step. ``spans`` are the times of work by the vertex
    (a step may be a group of them) and the moment of its start: BuildKit may start and complete
    a vertex more than once. ``members`` tells which vertices are complete, and ``fetched`` has
    those that layers were fetched or unpacked for.
    """

    __slots__ = (
        "error", "fetched", "lines", "members", "name", "number", "partial", "spans", "transfers",
    )  # fmt: skip

    def __init__(self, name: str) -> None:
        self.name = name
        self.number = 0
        self.error = ""
        self.spans: dict[tuple[str, float], Span] = {}
        self.lines: deque[str] = deque(maxlen=KEPT_LINES)
        self.members: dict[str, bool] = {}
        self.fetched: set[str] = set()
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
        return min((start for _, start in self.spans), default=None)

    @property
    def stopped(self) -> float | None:
        return max(
            (span.stop for span in self.spans.values() if span.stop is not None), default=None
        )

    @property
    def running(self) -> bool:
        return any(span.stop is None for span in self.spans.values())

    def member_running(self, digest: str) -> bool:
        """Whether the vertex is at work."""
        return any(
            span.stop is None for (member, _), span in self.spans.items() if member == digest
        )

    @property
    def cached(self) -> bool:
        """Whether the result was at hand and no work was done.

        BuildKit fetches a cached result within a longer span that says so, or later, when it is
        needed; other work before or after that span was work.
        """
        at_hand = [(at, span) for at, span in self.spans.items() if span.cached]
        return bool(at_hand) and all(
            any(
                _within(at, span, *cached) or (at[0] in self.fetched and _after(at, cached[0]))
                for cached in at_hand
            )
            for at, span in self.spans.items()
        )

    @property
    def canceled(self) -> bool:
        """Whether it ended only because another step failed or the build was stopped."""
        return self.error.endswith(CANCELED)

    @property
    def duration(self) -> float:
        """Seconds of work in all completed spans, overlaps counted once."""
        total, until = 0.0, float("-inf")
        spans = [(at[1], span.stop) for at, span in self.spans.items() if span.stop is not None]
        for start, stop in sorted(spans):
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


def _after(at: tuple[str, float], other: tuple[str, float]) -> bool:
    return at[0] == other[0] and at[1] >= other[1]


def _within(at: tuple[str, float], span: Span, other_at: tuple[str, float], other: Span) -> bool:
    if at[0] != other_at[0] or at[1] < other_at[1]:
        return False
    return other.stop is None or (span.stop is not None and span.stop <= other.stop)
