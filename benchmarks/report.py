"""The results as text for people."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from typing import Any

from benchmarks.imports import Cost
from benchmarks.measure import Spread
from benchmarks.publish import Cost as PublishCost

MILLI = 1000
MEBI = 1 << 20
GOAL = 80
"""MiB that the builder's own process may need at its peak."""


def machine(facts: dict[str, Any]) -> Iterator[str]:
    yield ", ".join(f"{key} {value}" for key, value in facts.items())


def comparison(rows: Sequence[dict[str, Any]]) -> Iterator[str]:
    """``FROM scratch`` and one file, whole process, all sides in turn in one run."""
    yield "FROM scratch and one file, whole process, milliseconds: median (middle half)"
    head = f"{'daemon':<12}{'cache':<8}{'subject':<10}{'milliseconds':>22}"
    yield f"{head}{'upstream script':>22}{'ratio':>8}"
    for row in rows:
        builder, upstream = row["builder"], row["upstream"]
        ratio = f"{row['ratio']:.2f}" if row["ratio"] else "none"
        line = f"{row['variant']:<12}{row['cache']:<8}{row['side']:<10}"
        line += f"{_ms(builder):>22}{_ms(upstream):>22}"
        failed = row["upstream_failures"]
        yield f"{line}{ratio:>8}" + (f"  (script failed {failed} times)" if failed else "")


def memory(rows: Sequence[dict[str, Any]]) -> Iterator[str]:
    """Peak memory of the builder's own process, its children not counted."""
    yield f"Peak memory of the builder's own process (goal: at most {GOAL} MiB)"
    for row in rows:
        peak = row["peak_bytes"] / MEBI
        yield f"{row['context']:<24}{peak:>8.1f} MiB {row['seconds']:>8.1f} s"


def imports(costs: Sequence[Cost]) -> Iterator[str]:
    """Imports in whole interpreters; the second number is what came on top of `pass`."""
    yield "Imports, milliseconds of a whole interpreter: median (middle half), more than `pass`"
    base = costs[0].seconds.median
    for cost in costs:
        more = (cost.seconds.median - base) * MILLI
        yield f"{cost.statement:<32}{_ms(cost.seconds):>22}{more:>+8.0f}"


def publish(costs: Sequence[PublishCost], skopeo: str) -> Iterator[str]:
    """1 GiB to a new registry on loopback, whole process, beside plain `skopeo copy`."""
    yield f"1 GiB to a registry on loopback, seconds: median (middle half); {skopeo}"
    yield (
        f"{'layers':<8}{'subject':<12}{'seconds':>22}{'ratio':>8}{'on a core':>12}"
        f"{'extra disk':>14}{'own memory':>14}"
    )
    for cost in costs:
        of = cost.seconds
        seconds = f"{of.median:.2f} ({of.low:.2f}-{of.high:.2f})"
        ratio = f"{cost.ratio:.2f}" if cost.ratio else ""
        disk, own = (f"{value / MEBI:.0f} MiB" for value in (cost.disk, cost.memory))
        row = f"{cost.layers:<8}{cost.subject:<12}{seconds:>22}{ratio:>8}"
        yield f"{row}{cost.processor.median:>12.2f}{disk:>14}{own:>14}"


def _ms(value: Spread | None) -> str:
    if value is None:
        return "none"
    return f"{value.median * MILLI:.0f} ({value.low * MILLI:.0f}-{value.high * MILLI:.0f})"
