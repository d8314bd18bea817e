"""The two versions of skopeo that the tests know: the machine's and a newer one."""

from __future__ import annotations

import subprocess
from collections.abc import Mapping
from pathlib import Path
from typing import NamedTuple

from scripts.set_up.newer_skopeo import PROGRAM
from tests.support import machine

NAMES = ("system", "newer")


class Skopeo(NamedTuple):
    """``directory`` holds a program ``skopeo``: first on a PATH it decides which one runs."""

    name: str
    directory: Path

    @property
    def path(self) -> str:
        """A PATH on which this one comes first."""
        return f"{self.directory}:{machine.SYSTEM_PATH}"

    def run(
        self, *arguments: str | Path, env: Mapping[str, str] | None = None
    ) -> subprocess.CompletedProcess[str]:
        """Run it with a policy that accepts everything; whether it failed is the caller's."""
        return subprocess.run(
            [self.directory / "skopeo", "--insecure-policy", *arguments],
            check=False,
            capture_output=True,
            text=True,
            env={"PATH": machine.SYSTEM_PATH, **(env or {})},
        )


def find(name: str) -> Skopeo:
    """The version ``system`` or ``newer``, or the end of the test."""
    if name == "system":
        return Skopeo(name, Path(machine.command("skopeo")).parent)
    if not PROGRAM.exists():
        machine.missing("bin/newer/skopeo (run make setup)")
    return Skopeo(name, PROGRAM.parent)
