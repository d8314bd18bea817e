"""Cutting output into lines, and keeping its end."""

from __future__ import annotations

from hypothesis import given
from hypothesis import strategies as st

from plp_builder.streams import Lines, Tail


def cut(chunks: list[bytes], limit: int = 1 << 20) -> list[bytes]:
    found: list[bytes] = []
    lines = Lines(found.append, limit)
    for chunk in chunks:
        lines(chunk)
    lines(b"")
    assert lines.ended
    return found


@given(st.lists(st.binary(max_size=8).filter(lambda line: b"\n" not in line)), st.data())
def test_lines_do_not_depend_on_where_the_stream_was_cut(
    lines: list[bytes], data: st.DataObject
) -> None:
    text = b"".join(line + b"\n" for line in lines)
    chunks = []
    while text:
        size = data.draw(st.integers(1, len(text)))
        chunks.append(text[:size])
        text = text[size:]
    assert cut(chunks) == lines


def test_the_last_line_needs_no_end() -> None:
    assert cut([b"one\ntw", b"o"]) == [b"one", b"two"]


def test_a_flood_without_newlines_is_cut() -> None:
    assert cut([b"x" * 100] * 100 + [b"\nnext\n"], limit=150) == [b"x" * 150, b"next"]


def test_a_tail_keeps_the_end_and_is_bounded() -> None:
    tail = Tail(lines=2, width=3)
    for line in (b"first", b"second", b"\xff ab"):
        tail(line)
    assert tail.text() == ["sec", "� a"]
