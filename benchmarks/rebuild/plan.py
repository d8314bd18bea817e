"""What is measured, in which order: pure functions."""

from __future__ import annotations

from collections.abc import Collection, Iterable, Iterator, Mapping, Sequence
from typing import Literal, NamedTuple

Kind = Literal["here", "fresh", "series", "together"]


class Scenario(NamedTuple):
    """``kind``: ``here`` builds on the machine of the builds before; ``fresh`` on one that has
    the saved portable cache only; ``series`` builds ten times, with a new code each time;
    ``together`` two builds at once, with a new code each.

    ``source``: what is built. ``after``: what must have been built there before. ``once``: in
    the first round only.
    """

    name: str
    title: str
    kind: Kind
    source: Literal["first", "code", "dependencies"]
    after: tuple[str, ...] = ()
    once: bool = False


SCENARIOS = (
    Scenario("cold", "cold", "here", "first"),
    Scenario("unchanged", "unchanged", "here", "first", ("cold",)),
    Scenario("fresh", "fresh machine, unchanged", "fresh", "first", ("cold",)),
    Scenario("code", "code change", "here", "code", ("cold",)),
    Scenario("fresh-code", "fresh machine, code change", "fresh", "code", ("cold",)),
    Scenario("back", "A, B, A: the third", "here", "first", ("cold", "code")),
    Scenario("dependencies", "dependency change", "here", "dependencies", ("cold",)),
    Scenario("ten", "each of ten code changes", "series", "code", ("cold",), once=True),
    Scenario("two", "two code changes at once", "together", "code", ("cold",), once=True),
)
"""In the order of a round, which changes the source as seldom as possible."""

PEER_SCENARIOS = frozenset({"cold", "unchanged", "code"})
ALWAYS = 1_000_000
BY_WORKLOAD: Mapping[str, Mapping[str, int]] = {
    "W1": dict.fromkeys(("cold", "unchanged", "code", "back"), ALWAYS),
    "W2": dict.fromkeys((scenario.name for scenario in SCENARIOS), ALWAYS),
    "W3": {"cold": ALWAYS, "unchanged": ALWAYS, "code": 3, "fresh": 1},
    "W4": {"cold": ALWAYS, "unchanged": ALWAYS, "code": 3, "fresh": 1},
    "W5": {"cold": ALWAYS, "unchanged": 3, "code": 3, "dependencies": 3},
}
"""What is measured where nothing else is asked for, and in how many rounds: time is short."""


class Entrant(NamedTuple):
    """What the plan has to know of a subject. ``rounds``: it takes part in so many at most;
    ``saved``: whose saved cache its fresh machines begin with."""

    name: str
    scenarios: frozenset[str]
    saved: str
    rounds: int | None = None


class Step(NamedTuple):
    """One scenario and who goes through it, in order."""

    scenario: Scenario
    subjects: tuple[str, ...]


def wanted(
    number: int, workload: str, has_dependencies: bool, asked: Collection[str]
) -> frozenset[str]:
    """The scenarios of a workload in round ``number``, with what they build upon.

    ``asked`` empty: the usual ones.
    """
    usual = BY_WORKLOAD[workload].items()
    names = set(asked or (name for name, rounds in usual if number < rounds))
    if not has_dependencies:
        names.discard("dependencies")
    for scenario in reversed(SCENARIOS):
        if scenario.name in names:
            names.update(scenario.after)
    return frozenset(names)


def steps(number: int, scenarios: Collection[str], entrants: Sequence[Entrant]) -> list[Step]:
    """The steps of round ``number`` (0 is the first); who begins changes every round."""
    order = entrants if number % 2 == 0 else entrants[::-1]
    found = []
    for scenario in SCENARIOS:
        if scenario.name not in scenarios or (scenario.once and number):
            continue
        taking = tuple(
            entrant.name
            for entrant in order
            if scenario.name in entrant.scenarios
            and (entrant.rounds is None or number < entrant.rounds)
        )
        if taking:
            found.append(Step(scenario, taking))
    return found


def saving(found: Iterable[Step], entrants: Iterable[Entrant]) -> frozenset[str]:
    """Whose cache must be saved after the builds that a fresh machine profits from."""
    fresh = {name for step in found if step.scenario.kind == "fresh" for name in step.subjects}
    return frozenset(entrant.saved for entrant in entrants if entrant.name in fresh)


class Unit(NamedTuple):
    """One round of one workload: what is done whole or left out whole."""

    number: int
    workload: str


def units(rounds: int, workloads: Sequence[str]) -> Iterator[Unit]:
    """Round by round, so that whenever it ends every workload has had as many."""
    for number in range(rounds):
        for workload in workloads:
            yield Unit(number, workload)


def fits(took: Sequence[float], left: float) -> bool:
    """Whether one more round fits into ``left`` seconds, when those before took ``took``.

    The first round of a workload is begun as long as there is any time.
    """
    return left > 0 if not took else min(took) <= left
