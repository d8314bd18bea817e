"""Which records of builds the daemon has to be told to forget."""

from __future__ import annotations

from pathlib import Path

import pytest

from plp_builder.cache.records import MOST, Records


@pytest.fixture
def place(tmp_path: Path) -> Path:
    return tmp_path / "records"


def begun(place: Path, *, empty: bool = False) -> Records:
    records = Records(place)
    records.begin(empty=empty)
    return records


def test_records_without_a_secret_wait_until_there_are_many(place: Path) -> None:
    due = []
    for _ in range(MOST + 1):
        records = begun(place)
        due.append(records.due)
        records.keep()
    assert due == [False] * MOST + [True]


def test_a_build_that_made_none_does_not_count(place: Path) -> None:
    for _ in range(2 * MOST):
        begun(place).keep(more=False)
    begun(place).keep()
    assert place.read_text() == "1\n"


def test_those_that_were_forgotten_do_not_count(place: Path) -> None:
    for _ in range(MOST):
        begun(place).keep()
    records = begun(place)
    records.forgotten()
    records.keep()
    assert place.read_text() == "0\n"
    assert not begun(place).due


def test_one_that_may_not_wait_counts_as_all_of_them_until_it_is_forgotten(place: Path) -> None:
    records = begun(place, empty=True)
    records.not_harmless()
    records.keep()
    assert begun(place).due
    records = begun(place)
    records.not_harmless()
    records.forgotten()
    records.keep()
    assert not begun(place).due


def test_what_a_killed_build_has_recorded_cannot_wait(place: Path) -> None:
    begun(place).keep()
    begun(place)
    assert begun(place).due


def test_an_empty_state_has_none(place: Path) -> None:
    begun(place)
    assert not begun(place, empty=True).due


@pytest.mark.parametrize("content", [b"", b"?", b"-1", b"1e3", b"\xff", b"9999", b"\xc2\xb2"])
def test_what_cannot_be_read_is_not_relied_on(place: Path, content: bytes) -> None:
    place.write_bytes(content)
    assert begun(place).due


def test_nor_is_what_is_no_file(place: Path) -> None:
    place.mkdir()
    assert begun(place).due
