"""One round of one workload: every build of it, what it kept, and whether it is right."""

from __future__ import annotations

import shutil
import tarfile
import time
from collections.abc import Collection, Mapping
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import NamedTuple

from benchmarks import measure
from benchmarks.measure import Run
from benchmarks.rebuild import layers, places
from benchmarks.rebuild.arena import Arena
from benchmarks.rebuild.packages import Packages
from benchmarks.rebuild.places import Place
from benchmarks.rebuild.plan import Scenario, Step
from benchmarks.rebuild.record import Record
from benchmarks.rebuild.results import Error, Sample, Size
from benchmarks.rebuild.subjects import Subject
from benchmarks.rebuild.workloads import FIRST

TIMEOUT = 1200.0
"""Seconds after which a build is ended and counts as failed."""

SERIES = 10


class Cast(NamedTuple):
    """Who builds, by name, and who serves packages (None: nobody)."""

    subjects: Mapping[str, Subject]
    packages: Packages | None


class Turn:
    """A round; a subject that failed sits out the rest of it."""

    def __init__(self, cast: Cast, arena: Arena, record: Record, number: int) -> None:
        self.cast = cast
        self.arena = arena
        self.record = record
        self.number = number
        self.out: set[str] = set()
        self.expected: dict[str, tuple[str, ...]] = {}
        self.extra = 0.0
        """Seconds for what later rounds will not have: once only, or by others."""

    def take(self, step: Step, saving: Collection[str]) -> None:
        """Go through one scenario; the caches of ``saving`` are saved after a cold build."""
        taking = [self.cast.subjects[name] for name in step.subjects]
        began = time.monotonic()
        if step.scenario.kind == "series":
            self._series(step.scenario, taking)
        elif step.scenario.kind == "together":
            self._together(step.scenario, taking)
        else:
            self._single(step.scenario, taking, saving)
        if step.scenario.once:
            self.extra += time.monotonic() - began

    def _single(
        self, scenario: Scenario, taking: Collection[Subject], saving: Collection[str]
    ) -> None:
        self.arena.edit(
            code="second" if scenario.source == "code" else FIRST,
            dependencies="second" if scenario.source == "dependencies" else FIRST,
        )
        for subject in taking:
            if subject.name in self.out or subject.saved in self.out:
                continue
            if scenario.kind == "fresh":
                self._fresh(scenario, subject)
                continue
            began = time.monotonic()
            place = self.arena.places[subject.name]
            self._measured(scenario, subject, place, self.number)
            self.extra += 0.0 if subject.main else time.monotonic() - began
            if scenario.name == "cold" and subject.name not in self.out:
                self._sized(subject, place, 1)
                if subject.name in saving:
                    places.copy(subject.to_save(place), self.arena.saved(subject.name))

    def _fresh(self, scenario: Scenario, subject: Subject) -> None:
        place = subject.place(self.arena.directory / "fresh")
        places.copy(self.arena.saved(subject.saved), subject.to_save(place))
        self._measured(scenario, subject, place, self.number)
        places.remove(subject.around.stage, place.home)

    def _series(self, scenario: Scenario, taking: Collection[Subject]) -> None:
        for count in range(SERIES):
            self.arena.edit(code=f"change {count}", dependencies=FIRST)
            for subject in taking:
                place = self.arena.places[subject.name]
                if subject.name not in self.out:
                    self._measured(scenario, subject, place, count)
                    self._sized(subject, place, count + 2)

    def _together(self, scenario: Scenario, taking: Collection[Subject]) -> None:
        """Two builds with one cache, begun at the same moment; the time until both ended."""
        self.arena.edit(code="left", dependencies=FIRST)
        other = self.arena.directory / "other-source"
        places.copy(self.arena.source, other)
        self.arena.workload.code(other, "right")
        self.arena.touch()
        for subject in taking:
            if subject.name in self.out:
                continue
            place = self.arena.places[subject.name]
            twin = subject.place(self.arena.directory / "twin", place.cache)
            self.arena.settle()
            with ThreadPoolExecutor(2) as pool:
                begun = (
                    pool.submit(self._build, subject, place, self.arena.source),
                    pool.submit(self._build, subject, twin, other),
                )
                runs = [each.result() for each in begun]
            worst = max(runs, key=lambda run: (run.code != 0, run.seconds))
            self._judge(scenario, subject, place, worst, self.number)
            for each in (place, twin):
                subject.after(each)
            places.remove(subject.around.stage, twin.home)
        shutil.rmtree(other)

    def _measured(self, scenario: Scenario, subject: Subject, place: Place, number: int) -> None:
        """Build once. Packages come from loopback: a build for which some had to be fetched
        from the network does not count. It is done again where that is still the same build."""
        packages = self.cast.packages
        before = packages.fetched if packages else 0
        run = self._settled(subject, place)
        if packages and packages.fetched > before and not run.code:
            self.record.tell(self.arena.workload.name, scenario.name, subject.name, "fetched")
            if scenario.name not in {"cold", "unchanged"}:
                return
            if scenario.name == "cold":
                subject.forget(place)
            run = self._settled(subject, place)
        self._judge(scenario, subject, place, run, number)

    def _settled(self, subject: Subject, place: Place) -> Run:
        self.arena.settle()
        run = self._build(subject, place, self.arena.source)
        subject.after(place)
        return run

    def _build(self, subject: Subject, place: Place, source: Path) -> Run:
        place.archive.unlink(missing_ok=True)
        command = subject.command(place, source, base=self.arena.workload.base)
        return measure.run(command.argv, command.env, place.home, timeout=TIMEOUT)

    def _judge(
        self, scenario: Scenario, subject: Subject, place: Place, run: Run, number: int
    ) -> None:
        """A sample, or an error where the build failed or the image is another than it must be."""
        workload = self.arena.workload.name
        wrong = run.output or "it failed" if run.code else self._wrong(scenario, subject, place)
        if wrong:
            self.record.error(Error(workload, scenario.name, subject.name, number, wrong))
            if scenario.kind != "fresh":
                self.out.add(subject.name)
        else:
            sample = Sample(workload, scenario.name, subject.name, number, run.seconds)
            self.record.sample(sample)

    def _wrong(self, scenario: Scenario, subject: Subject, place: Place) -> str:
        """Unchanged builds must have the layers of the cold one, code changes others."""
        try:
            found = layers.diff_ids(place.archive)
        except (OSError, tarfile.TarError, KeyError, ValueError) as error:
            return f"the archive cannot be read: {error!r}"
        if scenario.name == "cold":
            self.expected[subject.name] = found
        same = found == self.expected[subject.saved]
        if scenario.name in {"unchanged", "fresh"} and not same:
            wrong = "the layers are not those of the cold build"
            if subject.exact:
                return wrong
            self.record.note(f"{subject.name}: {self.arena.workload.name} {scenario.name}: {wrong}")
        if scenario.source == "code" and same:
            return "the layers are those of the cold build, though the source has changed"
        return ""

    def _sized(self, subject: Subject, place: Place, builds: int) -> None:
        total = subject.size(place)
        if total is not None:
            saved = places.used(subject.to_save(place))
            self.record.sizes.append(
                Size(self.arena.workload.name, subject.name, builds, total, saved)
            )
