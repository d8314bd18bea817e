"""The set-up's effects on a machine: the environment that every clone gets."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

from scripts.set_up.environment import make_environment


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
