"""How long a publisher waits before it tries again."""

from __future__ import annotations

import pytest

from publisher.faults import Fault, Kind
from publisher.retries import BUSY, LONGEST, pause

FAILING = Fault(Kind.FAILING)


def middle() -> float:
    return 0.5


def test_pauses_double_up_to_a_bound() -> None:
    pauses = [pause(FAILING, number, middle) for number in range(1, 9)]
    assert pauses == pytest.approx([1, 2, 4, 8, 16, 30, 30, 30])


def test_pauses_stay_bounded_however_often() -> None:
    assert pause(FAILING, 5000, middle) == pytest.approx(LONGEST)


def test_pauses_differ_from_job_to_job() -> None:
    assert pause(FAILING, 3, lambda: 0.0) == pytest.approx(3.2)
    assert pause(FAILING, 3, lambda: 1.0) == pytest.approx(4.8)


def test_a_busy_registry_gets_more_time() -> None:
    assert pause(Fault(Kind.BUSY), 1, middle) == pytest.approx(BUSY)
    assert pause(Fault(Kind.BUSY), 5, middle) == pytest.approx(16)
