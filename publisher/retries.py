"""How long to wait before an attempt that follows a fault."""

from __future__ import annotations

from collections.abc import Callable

from publisher.faults import Fault, Kind

FIRST = 1.0
LONGEST = 30.0
BUSY = 5.0
"""The least after "too many requests". Where the answer holds Retry-After, skopeo itself waits for
it (requests without a body, the first one of each attempt among them)."""


def pause(fault: Fault, number: int, jitter: Callable[[], float]) -> float:
    """Seconds before attempt ``number`` + 1: twice as long each time, give or take a fifth.

    Many jobs that met the same fault at the same moment come back at different ones: ``jitter``
    gives numbers from 0 to 1.
    """
    seconds = min(FIRST * 2.0 ** min(number - 1, 10), LONGEST)
    if fault.kind is Kind.BUSY:
        seconds = max(seconds, BUSY)
    return seconds * (0.8 + 0.4 * jitter())
