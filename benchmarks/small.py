"""A small build against upstream's script, and the builder's own memory in large ones."""

from __future__ import annotations

import os
import pwd
import shutil
from collections.abc import Iterable
from pathlib import Path
from typing import Any

from benchmarks.measure import Run, spread
from benchmarks.stage import ROOT, Stage
from benchmarks.subjects import Place, Side, Variant
from scripts.set_up.step import SetupError
from tests.support.generate import large_layer, many_files

SIDES: tuple[Side, ...] = ("builder", "portable", "upstream")


def variants(user: pwd.struct_passwd | None) -> list[Variant]:
    """Root's daemon where we are root, a rootless one where somebody can run it."""
    found = [Variant("root", None)] if os.geteuid() == 0 else []
    if user is not None:
        found.append(Variant("rootless", user))
    if not found:
        raise SetupError("neither root nor a user with subordinate ids: nothing can be built")
    return found


def compare(stage: Stage, variant: Variant, rounds: int) -> Iterable[dict[str, Any]]:
    """Cold and warm builds of all sides, interleaved; who begins changes every round."""
    context = stage.directory / "one-file"
    if not context.exists():
        shutil.copytree(ROOT / "tests" / "contexts" / "scratch-file", context)
    places = {side: Place.make(stage, variant, side) for side in SIDES}
    runs: dict[tuple[str, Side], list[Run]] = {(c, s): [] for c in ("cold", "warm") for s in SIDES}
    for number in range(rounds):
        first = number % len(SIDES)
        order = SIDES[first:] + SIDES[:first]
        for side in order:
            places[side].forget()
        for cache in ("cold", "warm"):
            for side in order:
                runs[cache, side].append(_checked(places[side], context))
    for cache in ("cold", "warm"):
        upstream = _seconds(runs[cache, "upstream"])
        for side in ("builder", "portable"):
            ours = spread(_seconds(runs[cache, side]))
            yield {
                "variant": variant.name,
                "cache": cache,
                "side": side,
                "builder": ours,
                "upstream": spread(upstream) if upstream else None,
                "upstream_failures": rounds - len(upstream),
                "ratio": ours.median / spread(upstream).median if upstream else None,
            }


def _checked(place: Place, context: Path, *, memory: bool = False) -> Run:
    """A build that left an archive; upstream's script may fail to reach its daemon, ours not."""
    place.archive().unlink(missing_ok=True)
    result = place.build_once(context, memory=memory)
    if place.side != "upstream" and (result.code or not place.archive().stat().st_size):
        raise SetupError(f"the builder ended with {result.code}:\n{result.output}")
    return result


def _seconds(runs: Iterable[Run]) -> list[float]:
    return [run.seconds for run in runs if run.code == 0]


def memory(stage: Stage, variant: Variant) -> list[dict[str, Any]]:
    """A cold and a warm build of each large context, watched from outside."""
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
        place.forget()
        shutil.rmtree(place.home, ignore_errors=True)
    return rows
