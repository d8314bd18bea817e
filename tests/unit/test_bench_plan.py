"""The order of the benchmark's builds."""

from __future__ import annotations

import pytest

from benchmarks.rebuild import plan
from benchmarks.rebuild.plan import SCENARIOS, Entrant

EVERYTHING = frozenset(scenario.name for scenario in SCENARIOS)
BUILDER = Entrant("builder", EVERYTHING, "builder")
PORTABLE = Entrant("portable", frozenset({"fresh", "fresh-code"}), "builder")
ORIGINAL = Entrant("original", EVERYTHING, "original")
PEER = Entrant("peer", plan.PEER_SCENARIOS, "peer", rounds=1)
ALL = (BUILDER, PORTABLE, ORIGINAL, PEER)


def taking(number: int, scenario: str) -> tuple[str, ...]:
    found = {step.scenario.name: step.subjects for step in plan.steps(number, EVERYTHING, ALL)}
    return found.get(scenario, ())


def wanted(
    number: int = 0,
    workload: str = "W2",
    *,
    has_dependencies: bool = True,
    asked: frozenset[str] | set[str] = frozenset(),
) -> frozenset[str]:
    return plan.wanted(number, workload, has_dependencies, asked)


def test_who_begins_changes_every_round() -> None:
    assert taking(0, "unchanged") == ("builder", "original", "peer")
    assert taking(1, "unchanged") == ("original", "builder")
    assert taking(2, "unchanged") == ("builder", "original")


def test_a_subject_takes_part_in_its_scenarios_only() -> None:
    assert taking(0, "fresh") == ("builder", "portable", "original")
    assert taking(0, "cold") == ("builder", "original", "peer")


def test_what_is_done_once_is_done_in_the_first_round() -> None:
    assert taking(0, "ten") == ("builder", "original")
    assert taking(1, "ten") == taking(1, "two") == ()


def test_a_round_begins_cold_and_goes_back_after_a_change() -> None:
    order = [step.scenario.name for step in plan.steps(0, EVERYTHING, ALL)]
    assert order[0] == "cold"
    assert order.index("code") < order.index("back")
    for scenario in SCENARIOS:
        assert all(order.index(before) < order.index(scenario.name) for before in scenario.after)


def test_a_scenario_brings_what_it_builds_upon() -> None:
    assert wanted(asked={"back"}) == {"cold", "code", "back"}
    assert wanted(asked={"cold"}) == {"cold"}


def test_without_dependencies_none_change() -> None:
    assert "dependencies" in wanted()
    assert "dependencies" not in wanted(has_dependencies=False)


def test_some_scenarios_are_measured_in_the_first_rounds_only() -> None:
    assert "code" in wanted(2, "W3")
    assert wanted(4, "W3") == {"cold", "unchanged"}
    assert "code" in wanted(4, "W3", asked={"code"})


@pytest.mark.parametrize("workload", plan.BY_WORKLOAD)
def test_the_usual_scenarios_exist(workload: str) -> None:
    assert {"cold", "unchanged", "code"} <= set(plan.BY_WORKLOAD[workload]) <= EVERYTHING


def test_the_caches_that_fresh_machines_begin_with_are_saved() -> None:
    steps = plan.steps(0, {"cold", "fresh"}, ALL)
    assert plan.saving(steps, ALL) == {"builder", "original"}
    assert plan.saving(plan.steps(0, {"cold", "code"}, ALL), ALL) == frozenset()


def test_rounds_go_through_all_workloads() -> None:
    found = [tuple(unit) for unit in plan.units(2, ["W1", "W2"])]
    assert found == [(0, "W1"), (0, "W2"), (1, "W1"), (1, "W2")]


def test_only_rounds_that_will_end_in_time_are_begun() -> None:
    assert plan.fits([], 1.0)
    assert not plan.fits([], 0.0)
    assert plan.fits([70.0, 50.0], 50.0)
    assert not plan.fits([70.0, 50.0], 49.0)
