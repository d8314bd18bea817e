"""The last lines of a run, letter by letter."""

from __future__ import annotations

from pathlib import Path

from plp_builder.errors import BuildFailed, DockerfileNotFound, ToolNotFound
from plp_builder.results.console import (
    Success,
    failure,
    failure_event,
    success,
    success_event,
)

DIGEST = "sha256:" + "ab" * 32
BUILT = Success(
    seconds=75.26,
    digest=DIGEST,
    archive=Path("/build/container-image.tar"),
    size=12_345_678,
    steps_total=8,
    steps_cached=6,
    warnings=1,
)


def test_success() -> None:
    assert success(BUILT) == [
        "BUILT",
        "  archive: /build/container-image.tar (12.3 MB)",
        f"  digest:  {DIGEST}",
        "  steps:   6 of 8 cached",
        "  checks:  1 warning, see above",
        "  time:    1m15s",
    ]


def test_success_of_a_build_that_had_nothing_to_do() -> None:
    outcome = Success(seconds=0.52, steps_total=3, steps_cached=3)
    assert success(outcome) == ["BUILT", "  steps:   3 of 3 cached", "  time:    0.5s"]


def test_success_of_a_build_without_steps() -> None:
    assert success(Success(seconds=0.5)) == ["BUILT", "  time:    0.5s"]


def test_colour() -> None:
    assert success(Success(seconds=1), colour=True)[0] == "\x1b[32mBUILT\x1b[0m"
    failed = DockerfileNotFound("Dockerfile not found")
    assert failure(failed, colour=True) == [
        "\x1b[31mERROR dockerfile-not-found:\x1b[0m Dockerfile not found"
    ]


def test_success_as_an_event() -> None:
    assert success_event(BUILT) == (
        "build succeeded",
        {
            "archive": "/build/container-image.tar",
            "size": 12_345_678,
            "digest": DIGEST,
            "steps": 8,
            "cached": 6,
            "warnings": 1,
            "seconds": 75.26,
        },
    )


FAILED = BuildFailed(
    'step "RUN false" failed with exit code 1',
    why=["one", "two\nthree", "", "::error::four"],
    hint="Correct it.\nThen build again.",
)


def test_failure() -> None:
    assert failure(FAILED) == [
        'ERROR build-failed: step "RUN false" failed with exit code 1',
        "  why:  | one",
        "        | two",
        "        | three",
        "        |",
        "        | ::error::four",
        "  next: Correct it.",
        "        Then build again.",
    ]


def test_failure_without_reasons_has_its_own_hint() -> None:
    assert failure(ToolNotFound("buildctl is not on PATH")) == [
        "ERROR tool-not-found: buildctl is not on PATH",
        f"  next: {ToolNotFound.default_hint}",
    ]


def test_a_failure_cannot_command_the_terminal() -> None:
    failed = BuildFailed("a\x1b[2Jb\r", why=["c\x1b]0;t\x07d", "e\rf\u2028g"], hint="h\x9b1mi")
    assert failure(failed) == [
        "ERROR build-failed: ab",
        "  why:  | cd",
        "        | e",
        "        | f",
        "        | g",
        "  next: hi",
    ]


def test_failure_as_an_event() -> None:
    assert failure_event(FAILED) == (
        "build failed",
        {
            "error": "build-failed",
            "what": 'step "RUN false" failed with exit code 1',
            "why": ["one", "two", "three", "", "::error::four"],
            "hint": "Correct it. Then build again.",
            "exit_code": 1,
        },
    )
