"""What was seen, and what it comes to: pure functions."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Sequence
from typing import Any, NamedTuple

from benchmarks.measure import Spread, spread

YARDSTICK = "original"
"""The subject to which all ratios are."""


class Sample(NamedTuple):
    """One measured build; ``number`` is its round, or its place in a series."""

    workload: str
    scenario: str
    subject: str
    number: int
    seconds: float


class Size(NamedTuple):
    """What a subject's cache needs on the disk after ``builds`` builds, every inode once.

    ``saved``: the part of it that a host would save for a fresh machine.
    """

    workload: str
    subject: str
    builds: int
    total: int
    saved: int


class Error(NamedTuple):
    """A build that failed, or that gave other layers than it should: no number."""

    workload: str
    scenario: str
    subject: str
    number: int
    text: str


class Row(NamedTuple):
    """All samples of one kind; ``ratio`` of the medians, None without the yardstick's."""

    workload: str
    scenario: str
    subject: str
    seconds: Spread
    ratio: float | None


class Results(NamedTuple):
    """Everything of one run. ``subjects`` and ``workloads``: name and title, in order."""

    workloads: tuple[tuple[str, str], ...]
    scenarios: tuple[tuple[str, str], ...]
    subjects: tuple[tuple[str, str], ...]
    samples: tuple[Sample, ...]
    sizes: tuple[Size, ...]
    errors: tuple[Error, ...]
    notes: tuple[str, ...]

    def plain(self) -> dict[str, Any]:
        """For JSON, with the medians beside the samples that they come from."""
        return {
            "workloads": dict(self.workloads),
            "scenarios": dict(self.scenarios),
            "subjects": dict(self.subjects),
            "medians": [{**row._asdict(), "seconds": row.seconds._asdict()} for row in rows(self)],
            "samples": [sample._asdict() for sample in self.samples],
            "sizes": [size._asdict() for size in self.sizes],
            "errors": [error._asdict() for error in self.errors],
            "notes": list(self.notes),
        }

    @classmethod
    def read(cls, plain: dict[str, Any]) -> Results:
        """The reverse of :meth:`plain`. KeyError or TypeError for anything else."""
        return cls(
            tuple(plain["workloads"].items()),
            tuple(plain["scenarios"].items()),
            tuple(plain["subjects"].items()),
            tuple(Sample(**each) for each in plain["samples"]),
            tuple(Size(**each) for each in plain["sizes"]),
            tuple(Error(**each) for each in plain["errors"]),
            tuple(plain["notes"]),
        )


def rows(results: Results) -> list[Row]:
    """One row for each workload, scenario and subject that has samples, in their order."""
    return list(_rows(results))


def _rows(results: Results) -> Iterator[Row]:
    for workload, _ in results.workloads:
        for scenario, _ in results.scenarios:
            found = {
                subject: spread(values)
                for subject, _ in results.subjects
                if (values := _seconds(results.samples, workload, scenario, subject))
            }
            base = found.get(YARDSTICK)
            for subject, seconds in found.items():
                ratio = seconds.median / base.median if base else None
                yield Row(workload, scenario, subject, seconds, ratio)


def _seconds(
    samples: Iterable[Sample], workload: str, scenario: str, subject: str
) -> Sequence[float]:
    return [
        sample.seconds
        for sample in samples
        if (sample.workload, sample.scenario, sample.subject) == (workload, scenario, subject)
    ]


def largest(sizes: Iterable[Size]) -> dict[tuple[str, str, int], Size]:
    """The largest size by workload, subject and number of builds."""
    found: dict[tuple[str, str, int], Size] = {}
    for size in sizes:
        key = (size.workload, size.subject, size.builds)
        if key not in found or size.total > found[key].total:
            found[key] = size
    return found


def last_lines(text: str, most: int = 300) -> str:
    """The end of what a program said, in one line."""
    return " | ".join(line.strip() for line in text.splitlines() if line.strip())[-most:]
