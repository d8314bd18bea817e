"""The last lines of a run, for people on the console and for machines as one log event."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

from plp_builder.errors import Failure
from plp_builder.terminal import RESET, human_duration, human_size, printable

_RED, _GREEN = "\x1b[31m", "\x1b[32m"


@dataclass(frozen=True, slots=True)
class Success:
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
    title = "BUILT"
    return [
        f"{_GREEN}{title}{RESET}" if colour else title,
        *(f"  {name + ':':9}{value}" for name, value in facts),
    ]


def failure(failed: Failure, *, colour: bool = False) -> list[str]:
    """One block: what failed with its stable name, why, what to do next.

    The lines of ``why`` stand behind a bar, so that a CI system does not take one that a build
    step printed (``::error::…``) for a command to itself.
    """
    head = f"ERROR {failed.name}:"
    lines = [f"{_RED}{head}{RESET}" if colour else head]
    lines[0] += f" {printable(failed.what)}"
    why = _why(failed)
    lines += [
        f"  {'why:' if number == 0 else '':5} | {line}".rstrip() for number, line in enumerate(why)
    ]
    hint = [printable(line) for line in failed.hint.splitlines()]
    lines += [
        f"  {'next:' if number == 0 else '':5} {line}".rstrip() for number, line in enumerate(hint)
    ]
    return lines


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


def failure_event(failed: Failure) -> tuple[str, dict[str, object]]:
    """The same as a log event; ``error`` is the stable name."""
    return "build failed", {
        "error": failed.name,
        "what": printable(failed.what),
        "why": _why(failed),
        "hint": " ".join(printable(line) for line in failed.hint.splitlines()),
        "exit_code": failed.exit_code,
    }


def _why(failed: Failure) -> list[str]:
    return [printable(line) for text in failed.why for line in (text.splitlines() or [""])]


def _count(number: int, noun: str) -> str:
    return f"{number} {noun}" if number == 1 else f"{number} {noun}s"
