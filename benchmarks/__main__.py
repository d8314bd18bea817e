"""`python -m benchmarks`: compare, measure, print. Slower than hoped is a result, not a failure.

QUICK=1 asks for 7 rounds instead of 21; --rounds, --only and --json say it more exactly.
"""

from __future__ import annotations

import argparse
import json
import os
import platform
import pwd
import shutil
import sys
import tempfile
from collections.abc import Iterable, Sequence
from pathlib import Path
from typing import Any

from benchmarks import imports, publish, report
from benchmarks.measure import Run, spread
from benchmarks.stage import ROOT, Stage, set_up
from benchmarks.subjects import Place, Side, Variant
from scripts.set_up import test_user
from scripts.set_up.step import SetupError, run
from tests.support.generate import large_layer, many_files

ROUNDS, QUICK_ROUNDS = 21, 7
SIDES: tuple[Side, Side] = ("builder", "upstream")
PARTS = ("imports", "compare", "memory", "publish")


def main(arguments: Sequence[str] | None = None) -> int:
    options = _options(arguments)
    user = test_user.find()
    work = Path(tempfile.mkdtemp(prefix="plp-bench-", dir=options.directory))
    try:
        stage = set_up(work, user)
        results: dict[str, Any] = {"machine": _machine(stage)}
        _tell(report.machine(results["machine"]))
        variants = _variants(user)
        if "imports" in options.only:
            costs = imports.costs(stage, options.rounds)
            results["imports"] = [
                {"statement": cost.statement, **cost.seconds._asdict()} for cost in costs
            ]
            _tell(report.imports(costs))
        if "compare" in options.only:
            rows = [row for variant in variants for row in _compare(stage, variant, options.rounds)]
            _tell(report.comparison(rows))
            results["comparison"] = [_plain(row) for row in rows]
        if "memory" in options.only:
            results["memory"] = _memory(stage, variants[-1])
            _tell(report.memory(results["memory"]))
        if "publish" in options.only:
            published = list(publish.costs(work, min(options.rounds, QUICK_ROUNDS)))
            results["publish"] = [_plain(cost._asdict()) for cost in published]
            _tell(report.publish(published, publish.skopeo_version()))
        if options.json:
            options.json.write_text(json.dumps(results, indent=2) + "\n")
    except SetupError as error:
        print(error, file=sys.stderr)
        return 1
    finally:
        shutil.rmtree(work, ignore_errors=True)
    return 0


def _options(arguments: Sequence[str] | None) -> argparse.Namespace:
    quick = os.environ.get("QUICK", "") not in {"", "0"}
    parser = argparse.ArgumentParser(prog="python -m benchmarks", description=__doc__)
    parser.add_argument("--rounds", type=int, default=QUICK_ROUNDS if quick else ROUNDS)
    parser.add_argument("--only", nargs="+", choices=PARTS, default=PARTS)
    parser.add_argument("--json", type=Path, help="also write the results to this file")
    parser.add_argument("--directory", default="/var/tmp", help="4 GB are needed")  # noqa: S108
    options = parser.parse_args(arguments)
    if options.rounds < 1:
        parser.error("--rounds must be at least 1")
    return options


def _variants(user: pwd.struct_passwd | None) -> list[Variant]:
    """Root's daemon where we are root, a rootless one where somebody can run it."""
    variants = [Variant("root", None)] if os.geteuid() == 0 else []
    if user is not None:
        variants.append(Variant("rootless", user))
    if not variants:
        raise SetupError("neither root nor a user with subordinate ids: nothing can be built")
    return variants


def _compare(stage: Stage, variant: Variant, rounds: int) -> Iterable[dict[str, Any]]:
    """Cold and warm builds of both sides, interleaved; who begins changes every round."""
    context = stage.directory / "one-file"
    if not context.exists():
        shutil.copytree(ROOT / "tests" / "contexts" / "scratch-file", context)
    places = {side: Place.make(stage, variant, side) for side in SIDES}
    runs: dict[tuple[str, Side], list[Run]] = {(c, s): [] for c in ("cold", "warm") for s in SIDES}
    for number in range(rounds):
        order = SIDES if number % 2 == 0 else SIDES[::-1]
        for side in order:
            places[side].forget()
        for cache in ("cold", "warm"):
            for side in order:
                runs[cache, side].append(_checked(places[side], context))
    for cache in ("cold", "warm"):
        builder, upstream = (_seconds(runs[cache, side]) for side in SIDES)
        yield {
            "variant": variant.name,
            "cache": cache,
            "builder": spread(builder),
            "upstream": spread(upstream) if upstream else None,
            "upstream_failures": rounds - len(upstream),
            "ratio": spread(builder).median / spread(upstream).median if upstream else None,
        }


def _checked(place: Place, context: Path, *, memory: bool = False) -> Run:
    """A build that left an archive; upstream's script may fail to reach its daemon, ours not."""
    place.archive().unlink(missing_ok=True)
    result = place.build_once(context, memory=memory)
    if place.side == "builder" and (result.code or not place.archive().stat().st_size):
        raise SetupError(f"the builder ended with {result.code}:\n{result.output}")
    return result


def _seconds(runs: Iterable[Run]) -> list[float]:
    return [run.seconds for run in runs if run.code == 0]


def _memory(stage: Stage, variant: Variant) -> list[dict[str, Any]]:
    """A cold build of each large context, watched from outside."""
    rows = []
    for name, make in (("30,000 files", many_files), ("1 GiB layer", large_layer)):
        context = make(stage.directory / name.replace(" ", "-").replace(",", ""))
        place = Place.make(
            stage, Variant(f"{variant.name}-{context.name}", variant.user), "builder"
        )
        for cache in ("cold", "warm"):
            result = _checked(place, context, memory=True)
            rows.append(
                {
                    "context": f"{name}, {cache}",
                    "peak_bytes": result.peak,
                    "seconds": result.seconds,
                }
            )
        shutil.rmtree(context)
        shutil.rmtree(place.home, ignore_errors=True)
    return rows


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
