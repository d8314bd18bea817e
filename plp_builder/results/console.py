"""The last lines of a run, for people on the console and for machines as one log event."""

from __future__ import annotations

from pathlib import Path

from plp_builder.telling import failure, failure_event, headed
from plp_builder.terminal import human_duration, human_size, printable
from plp_builder.tuples import NamedTuple

__all__ = ["Success", "failure", "failure_event", "success", "success_event"]


class Success(NamedTuple):
    """What a build ended with. ``archive`` is None when none was asked for; sizes are bytes."""

    seconds: float
    digest: str = ""
    archive: Path | None = None
    size: int = 0
    steps_total: int = 0
    steps_cached: int = 0
    warnings: int = 0


def success(outcome: Success, *, colour: bool = False) -> list[str]:
    """The summary of a success, aligned."""
    facts = [("time", human_duration(outcome.seconds))]
    if outcome.warnings:
        facts.insert(0, ("checks", f"{_count(outcome.warnings, 'warning')}, see above"))
    if outcome.steps_total:
        facts.insert(0, ("steps", f"{outcome.steps_cached} of {outcome.steps_total} cached"))
    if outcome.digest:
        facts.insert(0, ("digest", printable(outcome.digest)))
    if outcome.archive is not None:
        where = f"{printable(str(outcome.archive))} ({human_size(outcome.size)})"
        facts.insert(0, ("archive", where))
    return headed("BUILT", facts, colour=colour)


def success_event(outcome: Success) -> tuple[str, dict[str, object]]:
    """The same as a log event: its name and its keys."""
    keys: dict[str, object] = {
        "digest": outcome.digest,
        "steps": outcome.steps_total,
        "cached": outcome.steps_cached,
        "warnings": outcome.warnings,
        "seconds": round(outcome.seconds, 3),
    }
    if outcome.archive is not None:
        keys = {"archive": str(outcome.archive), "size": outcome.size, **keys}
    return "build succeeded", keys


def _count(number: int, noun: str) -> str:
    return f"{number} {noun}" if number == 1 else f"{number} {noun}s"
