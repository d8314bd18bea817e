"""The parsers of plain values."""

from __future__ import annotations

from collections.abc import Callable
from contextlib import suppress

import pytest
from hypothesis import given
from hypothesis import strategies as st

from plp_builder import values
from plp_builder.syntax.csv_record import parse_csv_fields
from plp_builder.values import KeyValue, Refused

LINE = st.text(st.characters(exclude_characters="\n", exclude_categories=["Cs"]))


@pytest.mark.parametrize("text", ["true", "1", "yes", "on", "TRUE", " Yes\n"])
def test_true(text: str) -> None:
    assert values.parse_boolean(text) is True


@pytest.mark.parametrize("text", ["false", "0", "no", "off", "Off"])
def test_false(text: str) -> None:
    assert values.parse_boolean(text) is False


@pytest.mark.parametrize(
    ("text", "size"),
    [
        ("1", 1),
        ("10GB", 10_000_000_000),
        ("10 gb", 10_000_000_000),
        ("512MiB", 536_870_912),
        ("500k", 500_000),
        ("1.5kB", 1500),
        ("0.5KiB", 512),
        ("1.0000000001TB", 1_000_000_000_100),
        ("9223372036854775807", 2**63 - 1),
    ],
)
def test_sizes(text: str, size: int) -> None:
    assert values.parse_size(text) == size


@pytest.mark.parametrize(("text", "size"), [("64m", 67_108_864), ("1GB", 2**30), ("1KiB", 1024)])
def test_sizes_as_in_docker_build(text: str, size: int) -> None:
    """docker build counts every unit of --shm-size in 1024."""
    assert values.parse_size(text, base=1024) == size


@pytest.mark.parametrize(
    "text", ["0", "-1", "", ".5", "5.", "1..5", "1e3", "10XB", "GB", "9223372036854775808", "²"]
)
def test_no_sizes(text: str) -> None:
    with pytest.raises(Refused, match=r"size|range"):
        values.parse_size(text)


@pytest.mark.parametrize(
    ("text", "seconds"),
    [
        ("90", 90.0),
        ("60s", 60.0),
        ("1h30m", 5400.0),
        ("1h 30m", 5400.0),
        ("1.5h", 5400.0),
        ("500ms", 0.5),
        ("20d", 1_728_000.0),
    ],
)
def test_durations(text: str, seconds: float) -> None:
    assert values.parse_duration(text) == pytest.approx(seconds)


@pytest.mark.parametrize("text", ["0", "0s", "-1", "1x", "s", "1h30", "21d", "inf", "nan", "1e3"])
def test_no_durations(text: str) -> None:
    with pytest.raises(Refused, match=r"duration|range"):
        values.parse_duration(text)


@pytest.mark.parametrize("text", ["0", "0s", "0m0s", "0.0"])
def test_a_duration_may_be_zero_where_it_is_asked_for(text: str) -> None:
    assert values.parse_duration(text, zero=True) == 0
    assert values.parse_duration("1m", zero=True) == 60
    for beyond in ("-1", "21d"):
        with pytest.raises(Refused, match=r"0 up to 20d|duration"):
            values.parse_duration(beyond, zero=True)


def test_lines_keep_what_follows_the_indent() -> None:
    assert values.parse_lines("  a b \n\n\t\n c") == ((1, "a b "), (4, "c"))


def test_a_carriage_return_at_the_end_of_a_line_is_refused() -> None:
    with pytest.raises(Refused, match="line 1 ends with a carriage return"):
        values.parse_lines("a=b\r\nc=d")


def test_of_two_lines_with_one_key_the_last_counts() -> None:
    pairs = values.parse_key_values("a=1\nb=2\na=3=4")
    assert pairs == (KeyValue("a", "3=4"), KeyValue("b", "2"))


def test_all_bad_lines_are_named() -> None:
    with pytest.raises(Refused) as caught:
        values.parse_key_values("a\nb=1\n=c")
    assert caught.value.problems == ("line 1 is no KEY=value", "line 3 has no key before the =")


@given(st.dictionaries(st.from_regex(r"[a-z.]{1,9}", fullmatch=True), LINE))
def test_key_values_arrive_as_written(pairs: dict[str, str]) -> None:
    """Whatever a value holds besides a newline comes back, or the text is refused."""
    text = "\n".join(f"{key}={value}" for key, value in pairs.items())
    try:
        parsed = values.parse_key_values(text)
    except Refused:
        assert any(value.endswith("\r") for value in pairs.values())
    else:
        assert {pair.key: pair.value for pair in parsed} == pairs


@given(st.lists(st.text(), min_size=1))
def test_quoted_csv_fields_come_back(fields: list[str]) -> None:
    record = ",".join('"' + field.replace('"', '""') + '"' for field in fields)
    assert parse_csv_fields(record) == tuple(fields)


@pytest.mark.parametrize(
    ("record", "fields"),
    [
        ("a,b", ("a", "b")),
        ("a,", ("a", "")),
        ('"a,b",c', ("a,b", "c")),
        ('"a""b"', ('a"b',)),
        (" a , b", (" a ", " b")),
        ('"",x', ("", "x")),
    ],
)
def test_csv_fields(record: str, fields: tuple[str, ...]) -> None:
    assert parse_csv_fields(record) == fields


@pytest.mark.parametrize("record", ['a"b', '"a', '"a"b', '"a""', 'a,"b'])
def test_no_csv(record: str) -> None:
    with pytest.raises(Refused, match="quot"):
        parse_csv_fields(record)


@pytest.mark.parametrize(
    ("text", "hidden"),
    [
        ("https://user:pass@host/x", "https://***@host/x"),
        ("https://host/a@b", "https://host/a@b"),
        ("a=https://u:p@h b=https://v:q@i", "a=https://***@h b=https://***@i"),
        ("https://u:p@ss@host", "https://***@host"),
        ("git@host:path", "git@host:path"),
    ],
)
def test_passwords_in_addresses_are_hidden(text: str, hidden: str) -> None:
    assert values.hide_user_info(text) == hidden


@given(st.text(st.characters()))
def test_shown_text_is_one_short_printable_line(text: str) -> None:
    shown = values.shown(text)
    assert shown.isprintable()
    assert len(shown) <= 2 + 10 * values.MAX_SHOWN


PARSERS: tuple[Callable[[str], object], ...] = (
    values.parse_boolean,
    values.parse_size,
    values.parse_duration,
    values.parse_lines,
    values.parse_items,
    values.parse_key_values,
    parse_csv_fields,
)


@pytest.mark.parametrize("parse", PARSERS)
@given(text=st.text(st.characters()))
def test_every_text_is_a_value_or_refused(parse: Callable[[str], object], text: str) -> None:
    """No parser fails in a way that load() would not tell by name."""
    with suppress(Refused):
        parse(text)


def test_bytes_that_are_no_utf8_are_refused() -> None:
    with pytest.raises(Refused, match="0xe9"):
        values.check_utf8("caf\udce9")


@pytest.mark.parametrize(("text", "value"), [("0", 0), (" 9\n", 9), ("-1", -1)])
def test_integers(text: str, value: int) -> None:
    assert values.parse_integer(text, -1, 9) == value


@pytest.mark.parametrize("text", ["10", "-2", "1.0", "", "0x1", "--1", "1_0", "٣"])
def test_no_integers(text: str) -> None:
    with pytest.raises(Refused, match="use -1 to 9"):
        values.parse_integer(text, -1, 9)
