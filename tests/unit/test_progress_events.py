"""No line can harm the parser, and what BuildKit says arrives."""

from __future__ import annotations

import json
from datetime import UTC, datetime

import pytest
from hypothesis import given
from hypothesis import strategies as st

from plp_builder.progress.events import CheckWarning, Log, Status, Text, Vertex, parse
from tests.support.streams import recorded, watch

KEYS = st.sampled_from(
    [
        "digest",
        "name",
        "started",
        "completed",
        "cached",
        "error",
        "progressGroup",
        "id",
        "vertex",
        "current",
        "total",
        "stream",
        "data",
        "timestamp",
        "short",
        "detail",
        "url",
        "sourceInfo",
        "filename",
        "range",
        "start",
        "end",
        "line",
    ]
)
SCALARS = st.none() | st.booleans() | st.integers() | st.floats() | st.text(max_size=8)
VALUES = SCALARS | st.lists(SCALARS, max_size=2) | st.dictionaries(KEYS, SCALARS, max_size=3)
ITEMS = SCALARS | st.dictionaries(KEYS, VALUES, max_size=6)
KINDS = st.sampled_from(["vertexes", "statuses", "logs", "warnings"])


def test_vertex() -> None:
    line = (
        b'{"vertexes":[{"digest":"sha256:a","inputs":["sha256:b"],"name":"[1/2] RUN x",'
        b'"started":"2026-11-21T08:05:55.373117793Z","completed":"2026-11-21T10:05:56+02:00",'
        b'"cached":true,"error":"no","progressGroup":{"id":"g","name":"group","weak":true}}]}\n'
    )
    started = datetime(2026, 11, 21, 8, 5, 55, 373117, UTC).timestamp()
    completed = datetime(2026, 11, 21, 8, 5, 56, 0, UTC).timestamp()
    assert parse(line) == (
        Vertex("sha256:a", "[1/2] RUN x", started, completed, True, "no", "g", "group"),
    )


def test_status_and_log() -> None:
    line = (
        b'{"statuses":[{"id":"transferring context:","vertex":"v","current":29,"total":30}],'
        b'"logs":[{"vertex":"v","stream":2,"data":"b29wcwo=","timestamp":"1970-01-01T00:00:01Z"}]}'
    )
    assert parse(line) == (
        Status("v", "transferring context:", 29, 30),
        Log("v", 2, b"oops\n", 1.0),
    )


def test_warning_with_its_lines() -> None:
    (found,) = [
        event
        for line in recorded("warnings")
        for event in parse(line)
        if isinstance(event, CheckWarning) and event.short.startswith("LegacyKeyValueFormat")
    ]
    assert (found.file, found.line, found.last_line) == ("Dockerfile", 4, 4)
    assert found.url == "https://docs.docker.com/go/dockerfile/rule/legacy-key-value-format/"
    assert found.detail == ("Legacy key/value format with whitespace separator should not be used",)


def test_the_lines_of_a_warning_span_all_its_ranges() -> None:
    places = [{"start": {"line": 7}, "end": {"line": 9}}, *({"start": {"line": n}} for n in (4, 5))]
    line = json.dumps({"warnings": [{"range": places}]}).encode()
    (found,) = parse(line)
    assert isinstance(found, CheckWarning)
    assert (found.line, found.last_line) == (4, 9)


def test_output_comes_before_the_completion_that_shares_its_message() -> None:
    line = (
        b'{"vertexes":[{"digest":"v","started":"1970-01-01T00:00:01Z",'
        b'"completed":"1970-01-01T00:00:02Z"},{"digest":"w"}],"logs":[{"vertex":"v","data":"YQ=="}]}'
    )
    assert [type(event) for event in parse(line)] == [Vertex, Log, Vertex]


@pytest.mark.parametrize(
    ("line", "text"),
    [
        (b"error: failed to solve: x\n", "error: failed to solve: x"),
        (b"   2 |     COPY a b\r\n", "   2 |     COPY a b"),
        (b"\xff\xfe text", "\ufffd\ufffd text"),
        (b'{"msg":"another library"}', '{"msg":"another library"}'),
        (b"{not json", "{not json"),
        (b"[1, 2]", "[1, 2]"),
    ],
)
def test_what_is_no_status_is_text(line: bytes, text: str) -> None:
    assert parse(line) == (Text(text),)


@pytest.mark.parametrize("line", [b"", b"\n", b"   \n", b"{}", b'{"vertexes":null}'])
def test_nothing_is_nothing(line: bytes) -> None:
    assert parse(line) == ()


def test_a_status_that_was_cut_does_not_flood_the_console() -> None:
    line = b'{"logs":[{"data":"' + b"A" * 100_000
    assert parse(line) == (Text("buildctl wrote 100018 bytes of progress that cannot be read"),)


def test_a_long_text_is_cut() -> None:
    (text,) = parse(b"x" * 1_000_000)
    assert isinstance(text, Text)
    assert len(text.text) == 65536


@pytest.mark.parametrize(
    "line",
    [
        b'{"vertexes":' + b"[" * 100_000,
        b'{"vertexes":[{"started":"99999-01-01T00:00:00Z"},{"started":"0001-01-01T00:00:00Z"}]}',
        b'{"statuses":[{"current":' + b"9" * 5000 + b"}]}",
        b'{"statuses":[{"current":1e999,"total":-5}]}',
        b'{"logs":[{"data":"*not base64*"},{"data":"A"},{"data":5},"x",null]}',
        b'{"vertexes":{"digest":"x"},"logs":3,"warnings":[{"range":[{"start":5}],"detail":"x"}]}',
    ],
)
def test_wrong_types_and_wild_values_are_survived(line: bytes) -> None:
    for event in parse(line):
        assert isinstance(event, (Vertex, Status, Log, CheckWarning, Text))


@given(st.binary())
def test_any_bytes_are_survived(line: bytes) -> None:
    parse(line)
    parse(b"{" + line)


@given(st.lists(st.dictionaries(KINDS, st.lists(ITEMS, max_size=3)), max_size=3))
def test_any_json_is_survived(statuses: list[object]) -> None:
    """By the parser and by what shows the events."""
    watch(json.dumps(status).encode() for status in statuses)
