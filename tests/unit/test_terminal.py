"""Clean text, units for people, and a writer that never raises."""

from __future__ import annotations

import errno
import io
import unicodedata

import pytest
from hypothesis import given
from hypothesis import strategies as st

from plp_builder.terminal import Writer, human_duration, human_size, printable, shorten


@pytest.mark.parametrize(
    ("text", "shown"),
    [
        ("plain text\tand tab", "plain text\tand tab"),
        ("grün, 日本語, 👩‍🚀, \ue0b0", "grün, 日本語, 👩‍🚀, \ue0b0"),
        ("\x1b[1;31mred\x1b[0m", "red"),
        ("\x1b[2K\x1b[1A\x1b[?25lx", "x"),
        ("\x1b]0;title\x07x\x1b]8;;http://a\x1b\\y", "xy"),
        ("\x1bPdevice control\x1b\\x", "x"),
        ("\x1b(B\x1b7x\x1bc", "x"),
        ("\x9b31mx\x85y", "xy"),
        ("a\bb\x7fc\x00d\x07", "abcd"),
        ("one\rtwo\nthree\u2028four", "onetwothreefour"),
        ("\u202euser\u2066x\u2069\u200f", "userx"),
        ("lone \ud800 surrogate", "lone  surrogate"),
        ("ends in \x1b", "ends in "),
        ("ends in \x1b[12", "ends in "),
    ],
)
def test_nothing_that_a_terminal_obeys_is_left(text: str, shown: str) -> None:
    assert printable(text) == shown


@given(st.text(), st.booleans())
def test_no_control_character_is_ever_left(text: str, colour: bool) -> None:
    shown = printable(f"\x1b[{text}\x1b]{text}", colour=colour)
    kinds = {unicodedata.category(letter) for letter in shown if letter not in "\t\x1b"}
    assert kinds.isdisjoint({"Cc", "Cs", "Zl", "Zp"})
    assert colour or "\x1b" not in shown


@given(st.text())
def test_clean_text_stays_clean(text: str) -> None:
    assert printable(printable(text)) == printable(text)


@pytest.mark.parametrize(
    ("text", "shown"),
    [
        ("plain", "plain"),
        ("\x1b[31mred", "\x1b[31mred\x1b[0m"),
        ("\x1b[2J\x1b[38;5;1mred\x1b[0m.\x1b[H", "\x1b[38;5;1mred\x1b[0m.\x1b[0m"),
        ("\x1b]0;t\x07", ""),
    ],
)
def test_colours_may_stay(text: str, shown: str) -> None:
    assert printable(text, colour=True) == shown


@pytest.mark.parametrize(
    ("size", "shown"),
    [
        (0, "0 B"),
        (999, "999 B"),
        (1000, "1.0 kB"),
        (999_949, "999.9 kB"),
        (999_950, "1.0 MB"),
        (12_345_678, "12.3 MB"),
        (10_000_000_000, "10.0 GB"),
        (5 * 10**15, "5000.0 TB"),
    ],
)
def test_sizes(size: int, shown: str) -> None:
    assert human_size(size) == shown


@pytest.mark.parametrize(
    ("seconds", "shown"),
    [
        (-1, "0.0s"),
        (0.04, "0.0s"),
        (12.34, "12.3s"),
        (59.94, "59.9s"),
        (59.96, "1m00s"),
        (90, "1m30s"),
        (3599.6, "1h00m"),
        (7500, "2h05m"),
    ],
)
def test_durations(seconds: float, shown: str) -> None:
    assert human_duration(seconds) == shown


def test_shorten() -> None:
    assert shorten("four", 4) == "four"
    assert shorten("fives", 4) == "fiv…"


def test_lines_are_written_and_flushed() -> None:
    raw = io.BytesIO()
    stream = io.TextIOWrapper(io.BufferedWriter(raw), "utf-8")
    Writer(stream).lines(("a", "b"))
    assert raw.getvalue() == b"a\nb\n"


@pytest.mark.parametrize("encoding", ["ascii", "latin-1"])
def test_what_the_stream_cannot_hold_is_escaped(encoding: str) -> None:
    raw = io.BytesIO()
    stream = io.TextIOWrapper(raw, encoding)
    Writer(stream).lines(("日",))
    assert raw.getvalue() == b"\\u65e5\n"


class Failing(io.StringIO):
    """A stream whose writes fail, and that counts them."""

    def __init__(self, error: Exception) -> None:
        super().__init__()
        self.error = error
        self.writes = 0

    def write(self, text: str) -> int:  # noqa: ARG002
        self.writes += 1
        raise self.error


@pytest.mark.parametrize(
    "error", [BrokenPipeError(), OSError(errno.EIO, "I/O error"), ValueError("closed file")]
)
def test_a_broken_stream_is_left_alone(error: Exception) -> None:
    stream = Failing(error)
    writer = Writer(stream)
    writer.lines(("a",))
    writer.lines(("b",))
    assert stream.writes == 1


def test_a_slow_reader_loses_lines_but_not_the_stream() -> None:
    stream = Failing(BlockingIOError())
    writer = Writer(stream)
    writer.lines(("a",))
    writer.lines(("b",))
    assert stream.writes == 2


def test_no_stream_at_all() -> None:
    Writer(None).lines(("a",))
