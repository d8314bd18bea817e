"""The results as text: for a terminal, and as Markdown for the documentation."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Sequence

from benchmarks.measure import Spread
from benchmarks.rebuild.results import YARDSTICK, Results, Row, Size, largest, last_lines, rows

MEBI = 1 << 20


def text(results: Results) -> Iterator[str]:
    """Everything, one line for each workload, scenario and subject."""
    titles = dict(results.scenarios)
    found = rows(results)
    for workload, title in results.workloads:
        of_workload = [row for row in found if row.workload == workload]
        if not of_workload:
            continue
        yield f"{workload}: {title}; seconds: median (middle half) of n, ratio to {YARDSTICK}"
        before = ""
        for row in of_workload:
            name = titles[row.scenario] if row.scenario != before else ""
            yield f"  {name:<28}{row.subject:<14}{_line(row)}"
            before = row.scenario
        yield ""
    yield from _sizes_text(results)
    for error in results.errors:
        words = f"{error.workload} {error.scenario} {error.subject}, round {error.number + 1}"
        yield f"error: {words}: {last_lines(error.text, 1000)}"
    yield from (f"note: {note}" for note in results.notes)


def _line(row: Row) -> str:
    ratio = "" if row.ratio is None or row.subject == YARDSTICK else f"{row.ratio:8.3f}"
    return f"{_seconds(row.seconds):>24} {row.seconds.of:>3}{ratio}".rstrip()


def _sizes_text(results: Results) -> Iterator[str]:
    table = list(_sizes(results))
    if not table:
        return
    yield "Cache on the disk, MiB: all (what a host saves for fresh machines)"
    table.insert(0, ("", "", "after 1 build", "at the end"))
    for workload, subject, one, most in table:
        yield f"  {workload:<4}{subject:<14}{one:>18}{most:>18}".rstrip()
    yield ""


def _sizes(results: Results) -> Iterator[tuple[str, str, str, str]]:
    """Workload, subject, the size after one build, the size after the most builds."""
    found = largest(results.sizes)
    for workload, _ in results.workloads:
        for subject, _ in results.subjects:
            of = [size for key, size in found.items() if key[:2] == (workload, subject)]
            if not of:
                continue
            one = found.get((workload, subject, 1))
            last = max(of, key=lambda size: size.builds)
            more = f"{_size(last)} after {last.builds}" if last.builds > 1 else ""
            yield (workload, subject, _size(one) if one else "", more)


def _size(size: Size) -> str:
    return f"{size.total / MEBI:.0f} ({size.saved / MEBI:.0f})"


def _seconds(seconds: Spread, dash: str = "-") -> str:
    """Two digits after the point below ten seconds, else one."""
    digits = 2 if seconds.median < 10 else 1
    if seconds.of == 1:
        return f"{seconds.median:.{digits}f}"
    middle = f"{seconds.low:.{digits}f}{dash}{seconds.high:.{digits}f}"
    return f"{seconds.median:.{digits}f} ({middle})"


def markdown(results: Results) -> Iterator[str]:
    """A table for each workload: a row for each scenario, a column for each subject."""
    titles = dict(results.scenarios)
    found = rows(results)
    for workload, title in results.workloads:
        of_workload = [row for row in found if row.workload == workload]
        if not of_workload:
            continue
        names = [
            name for name, _ in results.subjects if any(r.subject == name for r in of_workload)
        ]
        yield f"### {workload}: {title}"
        yield ""
        cells = {(row.scenario, row.subject): _cell(row) for row in of_workload}
        scenarios = [name for name, _ in results.scenarios if any(key[0] == name for key in cells)]
        lines = [
            [titles[each], *(cells.get((each, name), "") for name in names)] for each in scenarios
        ]
        yield from _table(["Seconds", *names], lines)
        yield ""
    table = list(_sizes(results))
    if table:
        yield "### Caches"
        yield ""
        yield from _table(["Workload", "Subject", "MiB after one build", "at the end"], table)
        yield ""


def _cell(row: Row) -> str:
    seconds = _seconds(row.seconds, "–")  # noqa: RUF001 - prose
    if row.ratio is None or row.subject == YARDSTICK:
        return seconds
    return f"{seconds} · **{row.ratio:.{2 if row.ratio >= 0.1 else 3}f}**"


def _table(head: Sequence[str], lines: Iterable[Sequence[str]]) -> Iterator[str]:
    yield f"| {' | '.join(head)} |"
    yield "|" + "---|" * len(head)
    for line in lines:
        yield f"| {' | '.join(line)} |"
