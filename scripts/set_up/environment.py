"""The Python environment in .venv: hashed requirements and this project, editable."""

from __future__ import annotations

import json
import os
import shutil
import sys
import tomllib

from scripts.set_up.step import ROOT, content_key, lock, run, step

_VENV = ROOT / ".venv"
_REQUIREMENTS = ROOT / "requirements/dev.txt"


def _requirements_key() -> str:
    """Changes with the interpreter, the place and the hashed requirements."""
    return content_key(_REQUIREMENTS, str(ROOT), os.path.realpath(sys.executable), sys.version)


def _project_key() -> str:
    """Changes with what the installed project says of itself, not with a linter's settings."""
    description = tomllib.loads((ROOT / "pyproject.toml").read_text())
    told = [
        description["build-system"],
        description["project"],
        description["tool"]["hatch"],
        (ROOT / "plp_builder/__init__.py").read_text(),
    ]
    return content_key(json.dumps(told, sort_keys=True))


def _made_from(name: str) -> str:
    try:
        return (_VENV / f".{name}-key").read_text()
    except FileNotFoundError:
        return ""


def _pip(*arguments: str) -> None:
    run([str(_VENV / "bin/python"), "-m", "pip", "install", "-q", "--no-deps", *arguments])


def _is_current() -> bool:
    return (
        (_VENV / "bin/python").exists()
        and _made_from("requirements") == _requirements_key()
        and _made_from("project") == _project_key()
    )


def _make() -> str:
    outcome = "project installed again"
    if not (_VENV / "bin/python").exists() or _made_from("requirements") != _requirements_key():
        shutil.rmtree(_VENV, ignore_errors=True)
        run([sys.executable, "-m", "venv", str(_VENV)])
        _pip("--require-hashes", "-r", str(_REQUIREMENTS))
        (_VENV / ".requirements-key").write_text(_requirements_key())
        outcome = f"made with Python {sys.version.split()[0]}"
    # The build backend is one of the hashed requirements, so nothing is fetched here.
    _pip("--no-build-isolation", "--no-index", "--editable", str(ROOT))
    (_VENV / ".project-key").write_text(_project_key())
    return outcome


def install() -> None:
    """Make .venv anew when what it is made from has changed."""
    with step("Python environment") as current:
        current.outcome = "there"
        if not _is_current():
            with lock(ROOT / ".cache/environment.lock"):
                if not _is_current():
                    current.outcome = _make()
