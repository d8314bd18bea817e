"""The medians as a picture: a panel for each workload, in SVG 1.1, without any library."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from html import escape

from benchmarks.rebuild.results import YARDSTICK, Results, Row, rows

WIDTH = 860
LABELS = 190
NUMBERS = 130
"""Room for what is written left of the bars and right of them."""

BAR, GAP, GROUP, HEAD = 12, 2, 10, 34
COLOURS = ("#0a7d5a", "#5bbf9b", "#5b6b7f", "#97a3b3", "#c98a2b", "#4a78c2", "#9467a8")
INK = "#1f2933"


def caption(machine: str) -> str:
    """What the bars are, and of which machine."""
    return f"Seconds, median and middle half. {machine}"


def svg(results: Results, above: str) -> str:
    """A whole document. Bars are medians, whiskers the middle half; linear from zero."""
    found = rows(results)
    names = [name for name, _ in results.subjects if any(row.subject == name for row in found)]
    colours = {name: COLOURS[number % len(COLOURS)] for number, name in enumerate(names)}
    body: list[str] = []
    top = HEAD
    body += _legend(results, colours, top)
    top += 20 * len(colours) + 16
    for workload, title in results.workloads:
        of_workload = [row for row in found if row.workload == workload]
        if of_workload:
            body.append(_text(16, top, f"{workload}: {title}", bold=True))
            lines, top = _panel(of_workload, dict(results.scenarios), colours, top + 14)
            body += lines
            top += 24
    head = (
        f'<svg xmlns="http://www.w3.org/2000/svg" width="{WIDTH}" height="{top}" '
        f'viewBox="0 0 {WIDTH} {top}" font-family="system-ui, sans-serif" font-size="12">'
    )
    background = f'<rect width="{WIDTH}" height="{top}" fill="#ffffff"/>'
    return "\n".join([head, background, _text(16, 22, above), *body, "</svg>", ""])


def _legend(results: Results, colours: Mapping[str, str], top: int) -> Iterator[str]:
    titles = dict(results.subjects)
    for number, (name, colour) in enumerate(colours.items()):
        line = top + 20 * number
        yield f'<rect x="16" y="{line}" width="{BAR}" height="{BAR}" fill="{colour}"/>'
        words = name if titles[name] == name else f"{name}: {titles[name]}"
        yield _text(34, line + BAR - 2, words)


def _panel(
    found: Sequence[Row], titles: Mapping[str, str], colours: Mapping[str, str], top: int
) -> tuple[list[str], int]:
    """The bars of a workload and where they end."""
    most = max(row.seconds.high for row in found) or 1.0
    scale = (WIDTH - LABELS - NUMBERS) / most
    lines: list[str] = []
    start = top
    scenario = ""
    for row in found:
        if row.scenario != scenario:
            top += GROUP if scenario else 0
            scenario = row.scenario
            lines.append(_text(LABELS - 8, top + BAR - 2, titles[scenario], anchor="end"))
        lines += _bar(row, colours[row.subject], scale, top)
        top += BAR + GAP
    axis = f'<path d="M{LABELS} {start - 3}V{top}" stroke="{INK}" fill="none"/>'
    return [*lines, axis], top


def _bar(row: Row, colour: str, scale: float, top: int) -> Iterator[str]:
    seconds = row.seconds
    width = max(1.0, seconds.median * scale)
    yield f'<rect x="{LABELS}" y="{top}" width="{width:.1f}" height="{BAR}" fill="{colour}"/>'
    left, right = (LABELS + value * scale for value in (seconds.low, seconds.high))
    middle = top + BAR / 2
    if seconds.of > 1:
        yield f'<path d="M{left:.1f} {middle}H{right:.1f}" stroke="{INK}" fill="none"/>'
    words = f"{seconds.median:.2f} s"
    if row.ratio is not None and row.subject != YARDSTICK:
        words += f" (×{row.ratio:.2f})"  # noqa: RUF001 - a multiplication sign is meant
    yield _text(round(max(right, LABELS + width)) + 6, top + BAR - 2, words)


def _text(x: int, y: int, words: str, *, anchor: str = "start", bold: bool = False) -> str:
    weight = ' font-weight="600"' if bold else ""
    where = f'x="{x}" y="{y}" text-anchor="{anchor}"'
    return f'<text {where} fill="{INK}"{weight}>{escape(words, quote=False)}</text>'
