"""The set-up's effects on a machine: the environment that every clone gets."""

from __future__ import annotations

import re
import shutil
import subprocess
import sys
from pathlib import Path

from scripts.set_up.environment import make_environment
from scripts.set_up.step import ROOT


def test_a_copied_environment_stands_on_its_own(tmp_path: Path) -> None:
    """Its scripts start its own Python, whose packages lie within it."""
    venv = tmp_path / "a venv"
    venv.mkdir()
    (venv / "from-before").touch()
    make_environment(venv)
    assert not (venv / "from-before").exists()
    where = "import pytest, sys; print(sys.prefix, pytest.__file__, sep='\\n')"
    said = subprocess.run(
        [venv / "bin/python", "-c", where], check=True, capture_output=True, text=True
    ).stdout.splitlines()
    assert said[0] == str(venv)
    assert said[1].startswith(f"{venv}/")
    for program in ("pytest", "ruff"):
        subprocess.run([venv / "bin" / program, "--version"], check=True, capture_output=True)
    minor = f"python{sys.version_info.major}.{sys.version_info.minor}"
    assert "making-" not in (venv / "bin/pytest").read_text()
    assert (venv / "lib" / minor / "site-packages/pip").is_dir()


def test_clean_leaves_nothing_of_commands_behind(tmp_path: Path) -> None:
    """What git ignores because a command makes it is what `make clean` removes."""
    shutil.copy(ROOT / "Makefile", tmp_path)
    ours, _, _ = (ROOT / ".gitignore").read_text().partition("# Editors")
    names = re.findall(r"^/([^/\n]+)/?$", ours, re.MULTILINE)
    assert ".hypothesis" in names
    for name in names:
        (tmp_path / name.replace("*", "part")).mkdir()
    subprocess.run(["make", "clean"], cwd=tmp_path, check=True, capture_output=True)
    assert [path.name for path in tmp_path.iterdir()] == ["Makefile"]


def test_the_set_up_knows_one_argument() -> None:
    """A mistyped argument must not start the long way."""
    command = [sys.executable, "-m", "scripts.set_up", "--without-test"]
    done = subprocess.run(command, cwd=ROOT, check=False, capture_output=True, text=True)
    assert (done.returncode, done.stdout) == (1, "")
    assert "--without-tests" in done.stderr
