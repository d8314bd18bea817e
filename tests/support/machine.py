"""What this machine offers to integration tests: tools, users, places others can reach."""

from __future__ import annotations

import fcntl
import hashlib
import os
import pwd
import shutil
import stat
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import NoReturn

import pytest

from scripts.set_up import test_user
from scripts.set_up.step import NAME, ROOT, content_key
from scripts.set_up.toolchain import MODULES, place

SYSTEM_PATH = "/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin"


def missing(what: str) -> NoReturn:
    """End the test: a skip, of which tests/conftest.py makes a failure with CI=true."""
    pytest.skip(f"this machine lacks what the test needs: {what}")


def command(name: str) -> str:
    """The path of a program of the system, or the end of the test."""
    path = f"{ROOT / 'bin'}:{os.environ.get('PATH', '')}:{SYSTEM_PATH}"
    return shutil.which(name, path=path) or missing(f"{name} (run make setup)")


def shared_home() -> Path:
    """A directory of the caller's own that every user may read, kept between runs."""
    path = Path("/var/tmp") / f"{NAME}-{os.geteuid()}"
    path.mkdir(mode=0o755, exist_ok=True)
    status = path.lstat()
    if not stat.S_ISDIR(status.st_mode) or status.st_uid != os.geteuid():
        pytest.fail(f"{path} is not a directory of this user: remove it", pytrace=False)
    path.chmod(0o755)
    return path


@contextmanager
def locked(path: Path) -> Iterator[None]:
    """Hold a lock file, so that test runs at the same time make a thing only once."""
    path.parent.mkdir(parents=True, exist_ok=True)
    with path.open("w") as file:
        fcntl.flock(file, fcntl.LOCK_EX)
        yield


def made_once(target: Path, fill: Callable[[Path], None]) -> Path:
    """The directory ``target``; where it is missing, ``fill`` fills a new one that becomes it.

    A failure leaves no target, and of several that want it at once only one makes it.
    """
    if target.exists():
        return target
    with locked(target.with_name(f".{target.name}.lock")):
        if not target.exists():
            work = Path(tempfile.mkdtemp(prefix=".making-", dir=target.parent))
            work.chmod(0o755)
            try:
                fill(work)
                work.rename(target)
            finally:
                shutil.rmtree(work, ignore_errors=True)
    return target


@dataclass(frozen=True, slots=True)
class Tools:
    """One version of BuildKit and its RootlessKit, in a directory that every user can read."""

    name: str
    version: str
    directory: Path

    @property
    def path(self) -> str:
        """A PATH on which these come first."""
        return f"{self.directory}:{SYSTEM_PATH}"

    def __getitem__(self, program: str) -> str:
        """The absolute path of one program: ``tools["buildctl"]``."""
        return str(self.directory / program)


def tools(name: str) -> Tools:
    """The tools ``current`` or ``compat``, as `make setup` placed them in bin/."""
    module = {"current": MODULES[0], "compat": MODULES[1]}[name]
    programs = [package.rpartition("/")[2] for package in module.packages()]
    sources = [module.destination / program for program in programs]
    for source in sources:
        if not source.exists():
            missing(f"{source.relative_to(ROOT)} (run make setup)")
    marks = [f"{source.stat().st_size}:{source.stat().st_mtime_ns}" for source in sources]
    directory = shared_home() / "tools" / f"{module.version()}-{content_key(*marks)}"
    for source in sources:
        place(source, directory / source.name)
    return Tools(name, module.version(), directory)


@dataclass(frozen=True, slots=True)
class User:
    """Who runs a builder; ``switch`` is whether the caller has to become that user."""

    name: str
    uid: int
    gid: int
    switch: bool

    def own(self, path: Path) -> Path:
        """Give a file or directory to this user; returns the path."""
        if self.switch:
            os.chown(path, self.uid, self.gid)
        return path


def user(kind: str) -> User:
    """``root`` or ``unprivileged``: the caller where it fits, else a user to switch to."""
    if kind == "root":
        if os.geteuid() != 0:
            missing("to be root")
        return User("root", 0, 0, switch=False)
    found = test_user.find()
    if found is None:
        missing("an unprivileged user with 65536 subordinate ids (run make setup)")
    return User(found.pw_name, found.pw_uid, found.pw_gid, switch=os.geteuid() == 0)


def caller() -> pwd.struct_passwd:
    """The account that runs the tests."""
    return pwd.getpwuid(os.geteuid())


def _others_may_reach(path: Path) -> bool:
    real = path.resolve()
    return all(parent.stat().st_mode & stat.S_IXOTH for parent in (real, *real.parents))


def _shared_interpreter() -> Path:
    own = Path(sys.base_prefix) / "bin" / f"python3.{sys.version_info.minor}"
    if own.exists() and _others_may_reach(own):
        return own
    system = Path("/usr/bin/python3")
    check = "import sys; raise SystemExit(sys.version_info < (3, 11))"
    if not system.exists() or subprocess.run([system, "-c", check], check=False).returncode:
        missing("a Python 3.11 or newer that other users can reach")
    return system


def _requirement(name: str) -> str:
    """The hashed lines of one package in the development requirements."""
    text = (ROOT / "requirements/dev.txt").read_text()
    lines = text.splitlines(keepends=True)
    start = next(i for i, line in enumerate(lines) if line.startswith(f"{name}=="))
    end = start + 1
    while end < len(lines) and lines[end].startswith(" "):
        end += 1
    return "".join(lines[start:end])


def shared_python() -> Path:
    """A Python with the builder's requirements and coverage that every user can run."""
    interpreter = _shared_interpreter()
    run = (ROOT / "requirements/run.txt").read_text()
    wanted = run + _requirement("coverage")
    version = subprocess.run(
        [interpreter, "-VV"], check=True, capture_output=True, text=True
    ).stdout
    target = shared_home() / "python" / content_key(wanted, str(interpreter), version)

    def fill(work: Path) -> None:
        subprocess.run([interpreter, "-m", "venv", "--without-pip", work / "venv"], check=True)
        listed = work / "requirements.txt"
        listed.write_text(wanted)
        pip = [sys.executable, "-m", "pip", "--python", str(work / "venv/bin/python")]
        options = ["install", "-q", "--no-deps", "--require-hashes", "-r", str(listed)]
        subprocess.run([*pip, *options], check=True)

    return made_once(target, fill) / "venv/bin/python"


def _forget_old(directory: Path, seconds: float) -> None:
    for path in directory.iterdir():
        if path.is_dir() and time.time() - path.stat().st_mtime > seconds:
            shutil.rmtree(path, ignore_errors=True)


def shared_source() -> Path:
    """A directory that holds this very plp_builder and publisher, readable by every user."""
    packages = [ROOT / "plp_builder", ROOT / "publisher"]
    digest = hashlib.sha256()
    for path in sorted(path for package in packages for path in package.rglob("*.py")):
        content = path.read_bytes()
        digest.update(f"{path.relative_to(ROOT)}\0{len(content)}\0".encode() + content)
    target = shared_home() / "source" / digest.hexdigest()[:16]

    def fill(work: Path) -> None:
        _forget_old(target.parent, 24 * 3600)
        ignored = shutil.ignore_patterns("__pycache__")
        for package in packages:
            shutil.copytree(package, work / package.name, ignore=ignored)
        subprocess.run(["chmod", "-R", "a+rX", work], check=True)

    return made_once(target, fill)


def package_configuration(environ: Mapping[str, str] = os.environ) -> dict[str, Path]:
    """The machine's pip and npm configuration and its CA bundle, by secret id, if present.

    The ids are those of the projects in tests/contexts: pip-conf, npmrc, ca-bundle.
    """
    home = Path(caller().pw_dir)
    places = {
        "pip-conf": (
            environ.get("PIP_CONFIG_FILE"),
            home / ".config/pip/pip.conf",
            "/etc/pip.conf",
        ),
        "npmrc": (environ.get("NPM_CONFIG_USERCONFIG"), home / ".npmrc", "/etc/npmrc"),
        "ca-bundle": (environ.get("SSL_CERT_FILE"), "/etc/ssl/certs/ca-certificates.crt"),
    }
    found: dict[str, Path] = {}
    for name, candidates in places.items():
        files = [Path(path) for path in candidates if path and Path(path).is_file()]
        if files:
            found[name] = files[0]
    return found
