"""The benchmark itself, in its smallest form: it measures, checks and draws."""

from __future__ import annotations

import json
import os
import pwd
import subprocess
import sys
from pathlib import Path
from xml.etree import ElementTree as ET

from scripts.set_up.step import ROOT


def test_a_round_of_the_smallest_rebuild(tmp_path: Path) -> None:
    plot, results = tmp_path / "plots/bench.svg", tmp_path / "bench.json"
    words = ["--only", "rebuild", "--workloads", "W1", "--rounds", "1"]
    words += ["--subjects", "portable", "original", "--scenarios", "fresh", "code"]
    words += ["--directory", "/var/tmp", "--json", str(results), "--plot", str(plot)]
    path = f"{ROOT / 'bin'}:{os.environ['PATH']}"
    done = subprocess.run(
        [sys.executable, "-m", "benchmarks", *words],
        cwd=ROOT,
        # Go keeps its modules below the user's home, which a test before may have hidden.
        env={**os.environ, "HOME": pwd.getpwuid(os.geteuid()).pw_dir, "PATH": path, "QUICK": ""},
        check=False,
        capture_output=True,
        text=True,
    )
    assert done.returncode == 0, done.stdout + done.stderr
    rebuild = json.loads(results.read_text())["rebuild"]
    assert rebuild["errors"] == []
    measured = {(sample["scenario"], sample["subject"]) for sample in rebuild["samples"]}
    # A fresh machine of the one begins with what the other has saved after a cold build.
    builders = {(scenario, "builder") for scenario in ("cold", "code", "fresh")}
    originals = {(scenario, "original") for scenario in ("cold", "code", "fresh")}
    assert measured == {*builders, *originals, ("fresh", "portable")}
    assert ET.parse(plot).getroot().tag.endswith("svg")  # noqa: S314 - ours
    assert "W1: FROM scratch and one file" in done.stdout
