"""What an import costs: whole interpreters, interleaved, compared with one that does nothing."""

from __future__ import annotations

from typing import NamedTuple

from benchmarks.measure import Spread, run, spread
from benchmarks.stage import Stage

STATEMENTS = (
    "pass",
    "import plp_builder.__main__",
    "import plp_builder.__main__, plp_builder.outset",
    "import plp_builder.build",
    "import plp_builder.settings",
    "import plp_builder.log",
    "import pydantic_settings",
    "import structlog",
)


class Cost(NamedTuple):
    """Seconds of an interpreter with that statement."""

    statement: str
    seconds: Spread


def _environment(stage: Stage) -> dict[str, str]:
    package = str(stage.directory / "package")
    return {"PATH": stage.path, "PYTHONPATH": package, "PYTHONDONTWRITEBYTECODE": "1"}


def costs(stage: Stage, rounds: int) -> list[Cost]:
    """Start an interpreter for each statement, ``rounds`` times in turn."""
    seconds: dict[str, list[float]] = {statement: [] for statement in STATEMENTS}
    for _ in range(rounds):
        for statement, values in seconds.items():
            argv = [str(stage.python), "-c", statement]
            result = run(argv, _environment(stage), stage.directory)
            if result.code:
                raise RuntimeError(f"{statement}: {result.output}")
            values.append(result.seconds)
    return [Cost(statement, spread(values)) for statement, values in seconds.items()]
