"""What the benchmark makes of its samples: medians, ratios, tables, a plot."""

from __future__ import annotations

import json
from xml.etree import ElementTree as ET

import pytest

from benchmarks.rebuild import plot, tables
from benchmarks.rebuild.results import (
    Error,
    Results,
    Sample,
    Size,
    largest,
    last_lines,
    rows,
)

MEBI = 1 << 20
RESULTS = Results(
    workloads=(("W1", "one <small> file"), ("W2", "many packages"), ("W3", "never begun")),
    scenarios=(("cold", "cold"), ("unchanged", "unchanged"), ("ten", "ten changes")),
    subjects=(("builder", "builder"), ("original", "a script & its cache")),
    samples=(
        *(Sample("W1", "cold", "builder", n, value) for n, value in enumerate((3.0, 1.0, 2.0))),
        *(Sample("W1", "cold", "original", n, value) for n, value in enumerate((4.0, 5.0, 3.0))),
        Sample("W1", "unchanged", "builder", 0, 0.125),
        Sample("W2", "cold", "original", 0, 40.0),
    ),
    sizes=(
        Size("W1", "builder", 1, 10 * MEBI, 4 * MEBI),
        Size("W1", "builder", 1, 12 * MEBI, 5 * MEBI),
        Size("W1", "builder", 11, 20 * MEBI, 6 * MEBI),
    ),
    errors=(Error("W2", "cold", "builder", 1, "it failed\n"),),
    notes=("kaniko: left out: no engine",),
)


def test_rows_are_in_order_with_ratios_of_medians() -> None:
    found = [(row.workload, row.scenario, row.subject, row.ratio) for row in rows(RESULTS)]
    assert found == [
        ("W1", "cold", "builder", 0.5),
        ("W1", "cold", "original", 1.0),
        ("W1", "unchanged", "builder", None),
        ("W2", "cold", "original", 1.0),
    ]
    assert rows(RESULTS)[0].seconds == (3, 1.5, 2.0, 2.5)


def test_the_largest_size_counts() -> None:
    assert largest(RESULTS.sizes)["W1", "builder", 1].total == 12 * MEBI


def test_json_and_back() -> None:
    plain = json.loads(json.dumps(RESULTS.plain()))
    assert Results.read(plain) == RESULTS
    assert plain["medians"][0]["seconds"]["median"] == 2.0


def test_the_text_has_medians_spreads_ratios_sizes_errors_and_notes() -> None:
    text = "\n".join(tables.text(RESULTS))
    assert "2.00 (1.50-2.50)   3   0.500" in text
    assert "12 (5)   20 (6) after 11" in text
    assert "error: W2 cold builder, round 2: it failed" in text
    assert "note: kaniko: left out: no engine" in text
    assert "never begun" not in text


def test_the_markdown_has_a_column_for_each_subject() -> None:
    lines = list(tables.markdown(RESULTS))
    assert lines[lines.index("### W1: one <small> file") + 2 :][:4] == [
        "| Seconds | builder | original |",
        "|---|---|---|",
        "| cold | 2.00 (1.50–2.50) · **0.50** | 4.00 (3.50–4.50) |",  # noqa: RUF001 - prose
        "| unchanged | 0.12 |  |",
    ]
    assert "| W1 | builder | 12 (5) | 20 (6) after 11 |" in lines


def test_nothing_measured_makes_empty_tables() -> None:
    nothing = Results(RESULTS.workloads, RESULTS.scenarios, RESULTS.subjects, (), (), (), ())
    assert list(tables.text(nothing)) == list(tables.markdown(nothing)) == []
    assert ET.fromstring(plot.svg(nothing, "")).tag.endswith("svg")  # noqa: S314 - ours


def bars(text: str) -> list[float]:
    """The widths of the bars, top down; the legend's squares are as high as wide."""
    root = ET.fromstring(text)  # noqa: S314 - ours
    boxes = [each.attrib for each in root.iter() if each.tag.endswith("}rect")]
    return [float(box["width"]) for box in boxes if box.get("x") == str(plot.LABELS)]


def test_the_plot_is_linear_in_each_panel_and_fits() -> None:
    found = bars(plot.svg(RESULTS, "seconds"))
    assert len(found) == 4
    assert found[1] == pytest.approx(2 * found[0], abs=0.2)
    assert found[2] == pytest.approx(found[0] / 16, abs=0.2)
    assert max(found) <= plot.WIDTH - plot.LABELS - plot.NUMBERS


def test_the_plot_says_what_its_bars_are() -> None:
    root = ET.fromstring(plot.svg(RESULTS, plot.caption("2 cores")))  # noqa: S314 - ours
    words = [each.text for each in root.iter() if each.tag.endswith("}text")]
    assert {"W1: one <small> file", "original: a script & its cache", "unchanged"} <= set(words)
    assert "2.00 s (×0.50)" in words  # noqa: RUF001 - a multiplication sign is meant
    assert not any("never begun" in (word or "") for word in words)


def test_the_end_of_what_was_said_fits_one_line() -> None:
    assert last_lines("one\n\n  two  \n") == "one | two"
    assert last_lines("x" * 500 + "\nthe end", 9) == "| the end"
