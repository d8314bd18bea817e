"""The script that runs a program without waiting for the disk, on the real kernel."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import pytest

from plp_builder.buildkit import nosync
from scripts.set_up.step import ROOT

SCRIPT = [sys.executable, "-I", "-S", nosync.__file__]
ASKS = "import os; os.fsync(os.pipe()[0]); os.sync(); print('answered')"
"""fsync(2) of a pipe is EINVAL, if the kernel is asked."""


def run(*words: str, parent: int = 0) -> subprocess.CompletedProcess[str]:
    command = [*SCRIPT, str(parent), *words]
    return subprocess.run(command, capture_output=True, text=True, timeout=60, check=False)


def test_the_question_fails_without_the_filter() -> None:
    done = subprocess.run([sys.executable, "-c", ASKS], capture_output=True, check=False)
    assert b"Invalid argument" in done.stderr


@pytest.mark.skipif(os.geteuid() != 0, reason="a filter takes root or a user namespace")
def test_syncing_succeeds_at_once() -> None:
    done = run(sys.executable, "-c", ASKS)
    assert done.stdout == "answered\n", done.stderr


def test_where_the_filter_is_refused_the_program_runs_all_the_same() -> None:
    drop = [] if os.geteuid() else ["setpriv", "--bounding-set=-all", "--inh-caps=-all"]
    user = ["--reuid=65534", "--clear-groups"] if os.geteuid() == 0 else []
    shared = Path("/usr/bin/python3")
    if not shared.exists():
        pytest.skip("needs a Python that every user can run")
    script = Path(nosync.__file__).read_text()
    words = [*drop, *user, str(shared), "-I", "-S", "-c", script, "0", "echo", "ran"]
    done = subprocess.run(words, capture_output=True, text=True, timeout=60, check=False)
    assert done.stdout == "ran\n", done.stderr


def test_a_program_whose_parent_is_gone_is_not_started() -> None:
    assert run("echo", "ran", parent=os.getpid()).stdout == "ran\n"
    done = run("echo", "ran", parent=1)
    assert done.stdout == ""
    assert "the parent process has ended" in done.stderr


TELLS = """
import os
from plp_builder.buildkit import nosync
print(nosync.live_with(os.getppid()), nosync.live_with(1))
print(nosync.install("vax"), nosync.install(os.uname().machine))
"""


@pytest.mark.skipif(os.geteuid() != 0, reason="a filter takes root or a user namespace")
def test_both_parts_tell_whether_they_worked() -> None:
    done = subprocess.run(
        [sys.executable, "-c", TELLS], capture_output=True, cwd=ROOT, check=False, text=True
    )
    assert done.stdout.split() == ["True", "False", "False", "True"], done.stderr
