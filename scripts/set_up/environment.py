"""The Python environment in .venv: hashed requirements and this project, editable.

The requirements are installed once for a version of Python and kept in the user's cache; every
clone gets a copy, which takes a tenth of the time and needs no network.
"""

from __future__ import annotations

import json
import os
import shutil
import sys
import tempfile
import tomllib
from pathlib import Path

from scripts.set_up.step import ROOT, cache_home, content_key, lock, run, step

_VENV = ROOT / ".venv"
_REQUIREMENTS = ROOT / "requirements/dev.txt"


def _requirements_key() -> str:
    """Changes with the interpreter and the hashed requirements."""
    return content_key(_REQUIREMENTS, os.path.realpath(sys.executable), sys.version)


def _project_key() -> str:
    """Changes with what the installed project says of itself, not with a linter's settings."""
    description = tomllib.loads((ROOT / "pyproject.toml").read_text())
    told = [
        description["build-system"],
        description["project"],
        description["tool"]["hatch"],
        str(ROOT),
        (ROOT / "plp_builder/__init__.py").read_text(),
    ]
    return content_key(json.dumps(told, sort_keys=True))


def _made_from(name: str) -> str:
    try:
        return (_VENV / f".{name}-key").read_text()
    except FileNotFoundError:
        return ""


def _pip(venv: Path, *arguments: str) -> None:
    run([str(venv / "bin/python"), "-m", "pip", "install", "-q", "--no-deps", *arguments])


def _site_packages(venv: Path) -> Path:
    return venv / f"lib/python{sys.version_info.major}.{sys.version_info.minor}/site-packages"


def _kept_requirements() -> Path:
    """A virtual environment of the requirements alone; ``made-at`` is the path in its scripts."""
    target = cache_home() / "python" / _requirements_key()
    with lock(target.with_name(f".{target.name}.lock")):
        if not target.is_dir():
            work = Path(tempfile.mkdtemp(prefix=".making-", dir=target.parent))
            try:
                run([sys.executable, "-m", "venv", str(work)])
                _pip(work, "--require-hashes", "-r", str(_REQUIREMENTS))
                (work / "made-at").write_text(str(work))
                work.rename(target)
            finally:
                shutil.rmtree(work, ignore_errors=True)
    return target


def _start_line(python: Path) -> bytes:
    """What makes a script run by ``python``, also where the path is long or has spaces.

    The kernel takes a path without spaces of up to 127 bytes; beyond that a shell starts it,
    and Python reads the shell's line as a string (pip's scripts do the same).
    """
    path = os.fsencode(python)
    if b" " not in path and len(path) < 125:
        return b"#!" + path + b"\n"
    return b"#!/bin/sh\n'''exec' \"" + path + b'" "$0" "$@"\n\' \'\'\'\n'


def _copy_scripts(kept: Path, venv: Path) -> None:
    """Copy what the requirements put into bin/, pointing scripts to their new place."""
    old = (kept / "made-at").read_bytes()
    for source in (kept / "bin").iterdir():
        target = venv / "bin" / source.name
        if target.exists() or source.is_symlink():
            continue
        content = source.read_bytes()
        first, _, rest = content.partition(b"\n")
        if first.startswith(b"#!" + old):
            content = _start_line(venv / "bin/python") + rest
        elif first == b"#!/bin/sh":
            content = content.replace(old, os.fsencode(venv))
        target.write_bytes(content)
        shutil.copymode(source, target)


def make_environment(venv: Path) -> None:
    """Make a virtual environment that holds the requirements, in place of an older one."""
    kept = _kept_requirements()
    shutil.rmtree(venv, ignore_errors=True)
    run([sys.executable, "-m", "venv", "--without-pip", str(venv)])
    shutil.copytree(_site_packages(kept), _site_packages(venv), symlinks=True, dirs_exist_ok=True)
    _copy_scripts(kept, venv)


def _is_current() -> bool:
    return (
        (_VENV / "bin/python").exists()
        and _made_from("requirements") == _requirements_key()
        and _made_from("project") == _project_key()
    )


def _make() -> str:
    outcome = "project installed again"
    if not (_VENV / "bin/python").exists() or _made_from("requirements") != _requirements_key():
        make_environment(_VENV)
        (_VENV / ".requirements-key").write_text(_requirements_key())
        outcome = f"made with Python {sys.version.split()[0]}"
    # The build backend is one of the hashed requirements, so nothing is fetched here.
    _pip(_VENV, "--no-build-isolation", "--no-index", "--editable", str(ROOT))
    (_VENV / ".project-key").write_text(_project_key())
    return outcome


def install() -> None:
    """Make .venv anew when what it is made from has changed."""
    with step("Python environment") as current:
        current.outcome = "there"
        if not _is_current():
            current.begin("making it, about a minute the first time")
            with lock(ROOT / ".cache/environment.lock"):
                if not _is_current():
                    current.outcome = _make()
