"""`python -m benchmarks`: compare, measure, print. Slower than hoped is a result, not a failure.

QUICK=1 asks for what fits into five minutes; the options say it more exactly. JSON and a plot go
to build/ or where --json and --plot say.
"""

from __future__ import annotations

import argparse
import json
import os
import platform
import pwd
import shutil
import signal
import sys
import tempfile
from collections.abc import Iterable, Sequence
from pathlib import Path
from typing import Any, NamedTuple

from benchmarks import imports, publish, report, small
from benchmarks.rebuild import contest, plan, plot, tables
from benchmarks.rebuild.results import Results
from benchmarks.rebuild.run import INTERRUPTED, Options
from benchmarks.rebuild.workloads import WORKLOADS
from benchmarks.stage import Stage, set_up
from scripts.set_up import test_user
from scripts.set_up.step import ROOT, SetupError, run

PARTS = ("imports", "compare", "memory", "publish", "rebuild")


class Usual(NamedTuple):
    """What is done where no option says otherwise. ``rounds`` of the small measurements,
    of whole rebuilds, and of publications; ``minutes`` for the rebuilds."""

    parts: tuple[str, ...]
    rounds: tuple[int, int, int]
    minutes: float
    workloads: tuple[str, ...]
    subjects: tuple[str, ...]
    scenarios: tuple[str, ...] = ()


FULL = Usual(PARTS, (21, 5, 7), 35, tuple(w.name for w in WORKLOADS), contest.NAMES)
QUICK = Usual(
    ("rebuild",),
    (7, 2, 3),
    3.5,
    ("W1", "W2", "W4"),
    ("builder", "portable", "original"),
    ("cold", "unchanged", "fresh", "code"),
)


def main(arguments: Sequence[str] | None = None) -> int:
    options = _options(arguments)
    # So that whatever ends us, builds are ended and directories removed.
    signal.signal(signal.SIGTERM, signal.default_int_handler)
    user = test_user.find()
    work = Path(tempfile.mkdtemp(prefix="plp-bench-", dir=options.directory))
    failed = False
    try:
        stage = set_up(work, user)
        results: dict[str, Any] = {"machine": _machine(stage)}
        _tell(report.machine(results["machine"]))
        results |= _small(stage, user, options)
        if "rebuild" in options.only:
            compared = _rebuilds(stage, user, options)
            results["rebuild"] = compared.plain()
            failed = any(error.subject in {"builder", "portable"} for error in compared.errors)
            failed |= any(note.endswith(INTERRUPTED) for note in compared.notes)
            _tell(tables.text(compared))
            options.plot.parent.mkdir(parents=True, exist_ok=True)
            machine = ", ".join(report.machine(results["machine"]))
            options.plot.write_text(plot.svg(compared, plot.caption(machine)))
            print(f"plot: {options.plot}")
        options.json.parent.mkdir(parents=True, exist_ok=True)
        options.json.write_text(json.dumps(results, indent=2) + "\n")
        print(f"results: {options.json}")
    except SetupError as error:
        print(error, file=sys.stderr)
        return 1
    except KeyboardInterrupt:
        print("interrupted", file=sys.stderr)
        return 1
    finally:
        shutil.rmtree(work, ignore_errors=True)
    return int(failed)


def _options(arguments: Sequence[str] | None) -> argparse.Namespace:
    usual = QUICK if os.environ.get("QUICK", "") not in {"", "0"} else FULL
    parser = argparse.ArgumentParser(prog="python -m benchmarks", description=__doc__)
    parser.add_argument("--rounds", type=int, help="of every measurement")
    parser.add_argument("--only", nargs="+", choices=PARTS, default=usual.parts)
    parser.add_argument("--workloads", nargs="+", choices=FULL.workloads, default=usual.workloads)
    scenarios = [scenario.name for scenario in plan.SCENARIOS]
    parser.add_argument("--scenarios", nargs="+", choices=scenarios, default=usual.scenarios)
    parser.add_argument("--subjects", nargs="+", choices=contest.NAMES, default=usual.subjects)
    parser.add_argument(
        "--minutes", type=float, default=usual.minutes, help="begin no round of rebuilds after it"
    )
    parser.add_argument(
        "--peer-rounds", type=int, default=1, help="of rebuilds, in which other tools take part"
    )
    parser.add_argument("--json", type=Path, default=ROOT / "build/bench.json")
    parser.add_argument("--plot", type=Path, default=ROOT / "build/bench.svg")
    parser.add_argument("--directory", default="/var/tmp", help="15 GB are needed")  # noqa: S108
    options = parser.parse_args(arguments)
    if options.rounds is not None and options.rounds < 1:
        parser.error("--rounds must be at least 1")
    options.usual = Usual(
        usual.parts,
        (options.rounds,) * 3 if options.rounds else usual.rounds,
        options.minutes,
        tuple(options.workloads),
        tuple(options.subjects),
    )
    return options


def _small(
    stage: Stage, user: pwd.struct_passwd | None, options: argparse.Namespace
) -> dict[str, Any]:
    """The measurements of single processes, small builds and publications."""
    results: dict[str, Any] = {}
    rounds, _, publications = options.usual.rounds
    if "imports" in options.only:
        costs = imports.costs(stage, rounds)
        results["imports"] = [
            {"statement": cost.statement, **cost.seconds._asdict()} for cost in costs
        ]
        _tell(report.imports(costs))
    if "compare" in options.only:
        rows = [
            row for variant in small.variants(user) for row in small.compare(stage, variant, rounds)
        ]
        _tell(report.comparison(rows))
        results["comparison"] = [_plain(row) for row in rows]
    if "memory" in options.only:
        results["memory"] = small.memory(stage, small.variants(user)[-1])
        _tell(report.memory(results["memory"]))
    if "publish" in options.only:
        published = list(publish.costs(stage.directory, publications))
        results["publish"] = [_plain(cost._asdict()) for cost in published]
        _tell(report.publish(published, publish.skopeo_version()))
    return results


def _rebuilds(stage: Stage, user: pwd.struct_passwd | None, options: argparse.Namespace) -> Results:
    usual: Usual = options.usual
    wanted = [
        workload for name in usual.workloads for workload in WORKLOADS if workload.name == name
    ]
    asked = Options(
        usual.rounds[1], usual.minutes, frozenset(options.scenarios), options.peer_rounds
    )
    return contest.compare(stage, user, usual.subjects, wanted, asked)


def _plain(row: dict[str, Any]) -> dict[str, Any]:
    return {
        key: value._asdict() if hasattr(value, "_asdict") else value for key, value in row.items()
    }


def _machine(stage: Stage) -> dict[str, str]:
    memory = os.sysconf("SC_PHYS_PAGES") * os.sysconf("SC_PAGE_SIZE") / (1 << 30)
    version = run([stage.python, "-c", "import platform; print(platform.python_version())"])
    buildkit = run([stage.directory / "bin" / "buildkitd", "--version"]).split()[2]
    return {
        "cores": str(os.cpu_count()),
        "memory": f"{memory:.0f} GiB",
        "Linux": ".".join(platform.release().split(".")[:2]),
        "Python": version.strip(),
        "BuildKit": buildkit,
    }


def _tell(lines: Iterable[str]) -> None:
    print(*lines, "", sep="\n", flush=True)


if __name__ == "__main__":
    sys.exit(main())
