"""The rounds of all workloads, as many as time allows."""

from __future__ import annotations

import time
from collections.abc import Sequence
from pathlib import Path
from typing import NamedTuple

from benchmarks.rebuild import places, plan
from benchmarks.rebuild.arena import Arena
from benchmarks.rebuild.record import Record
from benchmarks.rebuild.turn import Cast, Turn
from benchmarks.rebuild.workloads import FIRST, Workload

INTERRUPTED = "interrupted"


class Options(NamedTuple):
    """``scenarios`` empty: the usual ones of each workload; ``minutes``: no further round is
    begun that would not end by then; ``peer_rounds``: in how many of them others take part."""

    rounds: int
    minutes: float
    scenarios: frozenset[str]
    peer_rounds: int = 1


def rounds(
    directory: Path, cast: Cast, workloads: Sequence[Workload], options: Options, record: Record
) -> None:
    """All rounds that fit, below ``directory``; an interrupt ends them, what was seen stays."""
    arenas: dict[str, Arena] = {}
    by_name = {workload.name: workload for workload in workloads}
    took: dict[str, list[float]] = {name: [] for name in by_name}
    began = time.monotonic()
    try:
        for unit in plan.units(options.rounds, list(by_name)):
            left = options.minutes * 60 - (time.monotonic() - began)
            name = unit.workload
            if not plan.fits(took[name], left):
                continue
            if name not in arenas:
                subjects = list(cast.subjects.values())
                arenas[name] = Arena(directory / name, by_name[name], subjects)
            seconds = one(cast, arenas[name], record, unit.number, options)
            took[name].append(seconds)
        why = f"no more fitted into {options.minutes:g} minutes"
    except KeyboardInterrupt:
        why = INTERRUPTED
    record.notes += [
        f"{name}: {len(done)} of {options.rounds} rounds: {why}"
        for name, done in took.items()
        if len(done) < options.rounds
    ]
    for arena in arenas.values():
        for name, subject in cast.subjects.items():
            subject.forget(arena.places[name])
            places.remove(subject.around.stage, arena.places[name].home)


def one(cast: Cast, arena: Arena, record: Record, number: int, options: Options) -> float:
    """Round ``number`` of a workload; its seconds without what later ones will not have."""
    began = time.monotonic()
    workload = arena.workload
    entrants = [
        subject.entrant(options.peer_rounds)
        for subject in cast.subjects.values()
        if subject.mounts or not workload.mounts
    ]
    scenarios = plan.wanted(
        number, workload.name, workload.dependencies is not None, options.scenarios
    )
    steps = plan.steps(number, scenarios, entrants)
    saving = plan.saving(steps, entrants)
    arena.edit(code=FIRST, dependencies=FIRST)
    for name, subject in cast.subjects.items():
        subject.forget(arena.places[name])
    turn = Turn(cast, arena, record, number)
    for step in steps:
        turn.take(step, saving)
    for name in saving:
        places.remove(cast.subjects[name].around.stage, arena.saved(name))
    return time.monotonic() - began - turn.extra
