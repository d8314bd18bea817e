"""Log events for people and machines; nothing secret, and never an exception."""

from __future__ import annotations

import io
import json
from collections.abc import Iterator
from datetime import UTC, datetime, timedelta, timezone
from pathlib import Path

import pytest

from plp_builder import log

MOMENT = datetime(2026, 1, 2, 12, 3, 1, 250_000, timezone(timedelta(hours=2)))


class Clock:
    """Stands still until a test moves it."""

    def __init__(self) -> None:
        self.now = MOMENT

    def __call__(self) -> datetime:
        return self.now


@pytest.fixture
def clock() -> Clock:
    return Clock()


@pytest.fixture
def stream() -> io.StringIO:
    return io.StringIO()


@pytest.fixture(autouse=True)
def _defaults_again() -> Iterator[None]:
    yield
    log.release()
    log.configure()


def test_console(stream: io.StringIO, clock: Clock) -> None:
    """Aligned; the time is that of the clock's zone."""
    log.configure("console", "debug", stream, clock=clock)
    log.info("daemon ready", user="plp", seconds=0.07)
    log.warning("cache put aside", path=Path("/tmp/my cache"), hint='say "x"')
    log.debug("a name that is too long for its column", ok=True, no=None, l=["a", "b"])
    log.error("failed")
    assert stream.getvalue().splitlines() == [
        "12:03:01 info     daemon ready             user=plp seconds=0.07",
        '12:03:01 warning  cache put aside          path="/tmp/my cache" hint="say \\"x\\""',
        '12:03:01 debug    a name that is too long for its column ok=true no=null l=["a", "b"]',
        "12:03:01 error    failed",
    ]


def test_colour(stream: io.StringIO, clock: Clock) -> None:
    log.configure("console", "info", stream, colour=True, clock=clock)
    log.error("x")
    assert stream.getvalue() == "12:03:01 \x1b[31merror   \x1b[0m x\n"


def test_json(stream: io.StringIO, clock: Clock) -> None:
    """Time in UTC; keys keep their types and their order."""
    log.configure("json", "info", stream, clock=clock)
    log.info(
        "ready", path=Path("/ü"), seconds=0.5, ok=True, none=None, deep={"a": [1, {2}]}, b=b"\xff"
    )
    line = stream.getvalue()
    assert line.isascii()
    assert list(json.loads(line).items()) == [
        ("timestamp", "2026-01-02T10:03:01.250Z"),
        ("level", "info"),
        ("event", "ready"),
        ("path", "/ü"),
        ("seconds", 0.5),
        ("ok", True),
        ("none", None),
        ("deep", {"a": [1, [2]]}),
        ("b", "\ufffd"),
    ]


def test_numbers_that_json_does_not_know(stream: io.StringIO) -> None:
    log.configure("json", "info", stream)
    log.info("x", seconds=float("nan"))
    assert json.loads(stream.getvalue(), parse_constant=pytest.fail)["seconds"] == "nan"


@pytest.mark.parametrize(
    ("level", "written"),
    [
        ("debug", ["d", "i", "w", "e"]),
        ("info", ["i", "w", "e"]),
        ("warning", ["w", "e"]),
        ("error", ["e"]),
    ],
)
def test_levels(level: str, written: list[str], stream: io.StringIO) -> None:
    log.configure("json", level, stream)
    log.debug("d")
    log.info("i")
    log.warning("w")
    log.error("e")
    assert [json.loads(line)["event"] for line in stream.getvalue().splitlines()] == written


@pytest.mark.parametrize("log_format", ["console", "json"])
def test_secrets_are_hidden_wherever_they_are(log_format: str, stream: io.StringIO) -> None:
    log.configure(log_format, "info", stream, ("hunter2", "zweite\nzeile-acht"))
    log.info(
        "event hunter2",
        text="x hunter2",
        path=Path("/hunter2"),
        deep={"hunter2": ["hunter2", {"a": "hunter2"}]},
        raw=b"hunter2",
        error=ValueError("hunter2"),
        lines="zweite\nzeile-acht",
        url="https://me:pw@host/x",
        hunter2=1,
    )
    text = stream.getvalue()
    assert "hunter2" not in text
    assert "zeile-acht" not in text
    assert "me:pw" not in text
    assert text.count("<hidden>") >= 9


def test_a_traceback_is_told_without_secrets(stream: io.StringIO, clock: Clock) -> None:
    log.configure("console", "info", stream, ("hunter2",), clock=clock)
    try:
        raise ValueError("hunter2\x1b[2J")
    except ValueError:
        log.error("internal error", exc_info=True)
    lines = stream.getvalue().splitlines()
    assert lines[0] == "12:03:01 error    internal error"
    assert lines[1] == "    Traceback (most recent call last):"
    assert lines[-1] == "    ValueError: <hidden>"


def test_an_event_is_one_line_that_no_terminal_obeys(stream: io.StringIO, clock: Clock) -> None:
    log.configure("console", "info", stream, clock=clock)
    log.info("a\nb\x1b[2J", c="d\ne\x1b[2Jf\u202e", g=["\x9b1m"])
    assert (
        stream.getvalue()
        == '12:03:01 info     ab                       c="d\\ne\\u001b[2Jf" g=[""]\n'
    )


class Unspeakable:
    def __str__(self) -> str:
        raise RuntimeError


@pytest.mark.parametrize("keys", [{"x": Unspeakable()}, {"event": 1}])
def test_what_cannot_be_told_does_not_raise(keys: dict[str, object], stream: io.StringIO) -> None:
    log.configure("console", "info", stream)
    log.info("still worth telling", **keys)
    assert "still worth telling" in stream.getvalue()


def test_a_closed_stream_does_not_raise(stream: io.StringIO) -> None:
    log.configure("json", "info", stream)
    stream.close()
    log.info("x")


def test_a_circle_ends(stream: io.StringIO) -> None:
    circle: list[object] = []
    circle.append(circle)
    log.configure("json", "info", stream)
    log.info("x", circle=circle)
    assert stream.getvalue().count("\n") == 1


@pytest.mark.parametrize("level", ["info", "error"])
def test_the_outcome_is_told_at_every_level(level: str, stream: io.StringIO, clock: Clock) -> None:
    log.configure("json", level, stream, ("hunter2",), clock=clock)
    log.outcome("built", {"archive": "x"}, ["not shown"])
    assert json.loads(stream.getvalue()) == {
        "timestamp": "2026-01-02T10:03:01.250Z",
        "level": "info",
        "event": "built",
        "archive": "x",
    }


def test_the_outcome_for_people(stream: io.StringIO) -> None:
    log.configure("console", "error", stream, ("hunter2",))
    log.outcome("built", {"archive": "x"}, ["BUILT", "  archive: x"])
    assert stream.getvalue() == "BUILT\n  archive: x\n"


@pytest.mark.parametrize("log_format", ["console", "json"])
def test_a_secret_falsifies_no_success_and_is_hidden_in_a_failure(
    log_format: str, stream: io.StringIO
) -> None:
    """Also not in what is told after the success."""
    log.configure(log_format, "info", stream, ("image",))
    name = "container-image.tar"
    log.outcome("built", {"archive": name}, [name])
    log.info("later", text=name)
    log.outcome("failed", {"why": [name]}, [name], level="error")
    built, later, failed = stream.getvalue().splitlines()
    assert name in built
    assert "container-<hidden>.tar" in later
    assert "container-<hidden>.tar" in failed
    assert name not in later + failed


def test_deferred_events_keep_their_time_and_obey_a_later_configuration(
    stream: io.StringIO, clock: Clock
) -> None:
    log.configure("console", "debug", stream, clock=clock)
    log.defer()
    log.info("hunter2")
    log.debug("not any more")
    log.configure("json", "info", stream, ("hunter2",), clock=clock)
    assert stream.getvalue() == ""
    clock.now = MOMENT + timedelta(minutes=1)
    log.release()
    log.info("second")
    events = [json.loads(line) for line in stream.getvalue().splitlines()]
    assert [(event["timestamp"], event["event"]) for event in events] == [
        ("2026-01-02T10:03:01.250Z", "<hidden>"),
        ("2026-01-02T10:04:01.250Z", "second"),
    ]


def test_a_redacted_stream(stream: io.StringIO) -> None:
    log.configure(redact=("hunter2",))
    redacted = log.Redacted(stream)
    redacted.write("a hunter2\n")
    redacted.flush()
    assert stream.getvalue() == "a <hidden>\n"


class Terminal(io.StringIO):
    def isatty(self) -> bool:
        return True


@pytest.mark.parametrize(
    ("stream", "environ", "colour"),
    [
        (Terminal(), {}, True),
        (Terminal(), {"NO_COLOR": ""}, True),
        (Terminal(), {"NO_COLOR": "1"}, False),
        (Terminal(), {"TERM": "dumb"}, False),
        (io.StringIO(), {}, False),
    ],
)
def test_colour_only_where_it_is_seen(
    stream: io.StringIO, environ: dict[str, str], colour: bool
) -> None:
    assert log.colourful(stream, environ) is colour


def test_the_default_clock_is_aware() -> None:
    assert log._now().astimezone(UTC).tzinfo is UTC
