"""What is seen while it is seen, with a line for who waits."""

from __future__ import annotations

import sys
import time
from collections.abc import Sequence

from benchmarks.rebuild import plan
from benchmarks.rebuild.results import Error, Results, Sample, Size, last_lines
from benchmarks.rebuild.subjects import Subject
from benchmarks.rebuild.workloads import Workload


class Record:
    """Collects samples, sizes, errors and notes."""

    def __init__(self) -> None:
        self.samples: list[Sample] = []
        self.sizes: list[Size] = []
        self.errors: list[Error] = []
        self.notes: list[str] = []
        self.began = time.monotonic()

    def sample(self, sample: Sample) -> None:
        self.samples.append(sample)
        self.tell(sample.workload, sample.scenario, sample.subject, f"{sample.seconds:8.2f} s")

    def error(self, error: Error) -> None:
        self.errors.append(error)
        text = f"error: {last_lines(error.text)}"
        self.tell(error.workload, error.scenario, error.subject, text)

    def note(self, text: str) -> None:
        """Say it once."""
        if text not in self.notes:
            self.notes.append(text)

    def tell(self, workload: str, scenario: str, subject: str, outcome: str) -> None:
        """Print a line with the time since the beginning."""
        minutes, seconds = divmod(int(time.monotonic() - self.began), 60)
        words = f"{workload:<4}{scenario:<14}{subject:<14}{outcome}"
        print(f"{minutes:3d}:{seconds:02d}  {words}", file=sys.stderr, flush=True)

    def results(self, workloads: Sequence[Workload], subjects: Sequence[Subject]) -> Results:
        return Results(
            tuple((workload.name, workload.title) for workload in workloads),
            tuple((scenario.name, scenario.title) for scenario in plan.SCENARIOS),
            tuple((subject.name, subject.title) for subject in subjects),
            tuple(self.samples),
            tuple(self.sizes),
            tuple(self.errors),
            tuple(self.notes),
        )
