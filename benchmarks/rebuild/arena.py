"""Where one workload is built: its source, a machine for each subject, saved caches."""

from __future__ import annotations

import os
import time
from collections.abc import Sequence
from pathlib import Path

from benchmarks.rebuild.subjects import Subject
from benchmarks.rebuild.workloads import FIRST, Workload, prepare

SETTLED = 2.5
"""Seconds that a source has not changed when it is built: no subject is to suffer from clocks
that tell two changes apart only by so much."""


class Arena:
    """The directories of one workload, below ``directory``, which does not exist yet."""

    def __init__(self, directory: Path, workload: Workload, subjects: Sequence[Subject]) -> None:
        directory.mkdir()
        directory.chmod(0o755)
        self.directory = directory
        self.workload = workload
        self.source = prepare(workload, directory / "source")
        self.places = {each.name: each.place(directory / each.name) for each in subjects}
        self.texts = {"code": FIRST, "dependencies": FIRST}
        self.touch()

    def saved(self, name: str) -> Path:
        """Where the portable cache of a subject is kept for fresh machines."""
        return self.directory / f"saved-{name}"

    def edit(self, **texts: str) -> None:
        """Give code and dependencies these texts; what has them already is not touched."""
        for kind, text in texts.items():
            change = self.workload.code if kind == "code" else self.workload.dependencies
            if change is not None and self.texts[kind] != text:
                change(self.source, text)
                self.texts[kind] = text
                self.touch()

    def touch(self) -> None:
        """A source has just been changed."""
        self.changed = time.monotonic()

    def settle(self) -> None:
        """Wait until the source is old enough, and until what was left to be written is."""
        os.sync()
        time.sleep(max(0.0, self.changed + SETTLED - time.monotonic()))
