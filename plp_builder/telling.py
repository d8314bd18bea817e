"""The last lines of a run: the block of a success, the block of a failure, its log event."""

from __future__ import annotations

from collections.abc import Iterable

from plp_builder.errors import Failure
from plp_builder.terminal import RESET, printable

_RED, _GREEN = "\x1b[31m", "\x1b[32m"


def headed(title: str, facts: Iterable[tuple[str, str]], *, colour: bool = False) -> list[str]:
    """A title in green, below it the facts, aligned. They are printable; one may have no name."""
    return [
        f"{_GREEN}{title}{RESET}" if colour else title,
        *(f"  {name and name + ':':9}{value}" for name, value in facts),
    ]


def failure(failed: Failure, *, colour: bool = False) -> list[str]:
    """One block: what failed with its stable name, why, what to do next.

    The lines of ``why`` stand behind a bar, so that a CI system does not take one that a build
    step printed (``::error::…``) for a command to itself.
    """
    head = f"ERROR {failed.name}:"
    lines = [f"{_RED}{head}{RESET}" if colour else head]
    lines[0] += f" {printable(failed.what)}"
    lines += [
        f"  {'why:' if number == 0 else '':5} | {line}".rstrip()
        for number, line in enumerate(why(failed))
    ]
    hint = [printable(line) for line in failed.hint.splitlines()]
    lines += [
        f"  {'next:' if number == 0 else '':5} {line}".rstrip() for number, line in enumerate(hint)
    ]
    return lines


def unexpected(error: Exception, program: str) -> Failure:
    """An error that ``program`` (``the builder``) does not know, as a failure."""
    return Failure(
        f"{program} met an error that it does not know",
        why=[f"{type(error).__name__}: {error}"],
        hint=f"This is a defect of {program}: please report it with the log above.",
    )


def failure_event(failed: Failure, running: str = "build") -> tuple[str, dict[str, object]]:
    """The same as a log event, named after what was ``running``; ``error`` is the stable name."""
    return f"{running} failed", {
        "error": failed.name,
        "what": printable(failed.what),
        "why": why(failed),
        "hint": " ".join(printable(line) for line in failed.hint.splitlines()),
        "exit_code": failed.exit_code,
    }


def why(failed: Failure) -> list[str]:
    """The reasons of a failure, line by line, printable."""
    return [printable(line) for text in failed.why for line in (text.splitlines() or [""])]
