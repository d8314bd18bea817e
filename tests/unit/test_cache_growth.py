"""How large a state may be, without asking its daemon."""

from __future__ import annotations

import os
from pathlib import Path
from types import SimpleNamespace

import pytest

from plp_builder.cache.growth import Growth

MB = 1_000_000


class Disk:
    """A disk with so many bytes free."""

    def __init__(self) -> None:
        self.free = 1000 * MB

    def __call__(self, _: object) -> SimpleNamespace:
        return SimpleNamespace(f_bfree=self.free, f_frsize=1)


@pytest.fixture
def disk(monkeypatch: pytest.MonkeyPatch) -> Disk:
    found = Disk()
    monkeypatch.setattr(os, "statvfs", found)
    return found


@pytest.fixture
def record(tmp_path: Path) -> Path:
    return tmp_path / "size"


def begun(record: Path, *, empty: bool = False) -> Growth:
    growth = Growth(record)
    growth.begin(empty=empty)
    return growth


def build(record: Path, disk: Disk, size: int, bound: int) -> bool:
    """A build that fills ``size`` bytes of the disk; whether its daemon need not be asked."""
    growth = begun(record)
    disk.free -= size
    harmless = growth.is_harmless(bound)
    growth.keep()
    return harmless


def test_a_new_state_that_has_grown_a_little_is_harmless(record: Path, disk: Disk) -> None:
    growth = begun(record, empty=True)
    disk.free -= 9 * MB
    assert growth.is_harmless(20 * MB)


def test_one_that_fills_half_of_its_bound_is_asked_about(record: Path, disk: Disk) -> None:
    growth = begun(record, empty=True)
    disk.free -= 10 * MB
    assert not growth.is_harmless(20 * MB)


def test_growth_adds_up_over_builds(record: Path, disk: Disk) -> None:
    begun(record, empty=True).keep()
    assert [build(record, disk, 4 * MB, 20 * MB) for _ in range(3)] == [True, True, False]


def test_what_others_free_does_not_make_a_state_smaller(record: Path, disk: Disk) -> None:
    begun(record, empty=True).keep()
    assert build(record, disk, 6 * MB, 20 * MB)
    assert build(record, disk, -500 * MB, 20 * MB)
    assert not build(record, disk, 4 * MB, 20 * MB)


def test_once_in_a_while_the_daemon_is_asked_in_any_case(record: Path, disk: Disk) -> None:
    begun(record, empty=True).keep()
    assert [build(record, disk, 0, 20 * MB) for _ in range(12)].index(False) == 10


def test_what_the_daemon_told_counts_from_then_on(record: Path, disk: Disk) -> None:
    growth = begun(record)
    assert not growth.is_harmless(20 * MB)
    growth.measured(9 * MB)
    growth.keep()
    assert build(record, disk, 0, 20 * MB)
    assert not build(record, disk, MB, 20 * MB)


def test_after_a_killed_build_nothing_is_known(record: Path, disk: Disk) -> None:
    begun(record, empty=True).keep()
    begun(record)
    assert not begun(record).is_harmless(20 * MB)


@pytest.mark.parametrize("text", ["", "[]", "{}", '{"bytes": "x", "builds": 0}', "[" * 9999])
def test_a_damaged_record_says_nothing(record: Path, disk: Disk, text: str) -> None:
    record.write_text(text)
    assert not begun(record).is_harmless(20 * MB)


def test_what_is_not_known_is_not_kept(record: Path, disk: Disk) -> None:
    begun(record).keep()
    assert not record.exists()


def test_a_disk_that_tells_nothing_is_no_comfort(
    record: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def refuse(_: object) -> None:
        raise OSError

    monkeypatch.setattr(os, "statvfs", refuse)
    assert not begun(record, empty=True).is_harmless(20 * MB)
