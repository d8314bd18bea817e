"""The machine's own packages: what is missing is installed, or its absence explained."""

from __future__ import annotations

import os
import re
import shutil
import sys
from collections.abc import Callable, Iterable
from dataclasses import dataclass
from pathlib import Path

from scripts.set_up.step import SetupError, run, step, warn

_SYSTEM_PATH = "/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin"


def has_command(name: str) -> bool:
    """Whether the command is on PATH or where distributions keep administrators' tools."""
    path = os.environ.get("PATH", "") + ":" + _SYSTEM_PATH
    return shutil.which(name, path=path) is not None


def _has_static_busybox() -> bool:
    found = shutil.which("busybox", path=_SYSTEM_PATH)
    if found is None:
        return False
    with Path(found).open("rb") as file:
        return b"/ld-" not in file.read(4096)


def _has_venv() -> bool:
    from importlib.util import find_spec

    return find_spec("ensurepip") is not None and find_spec("venv") is not None


@dataclass(frozen=True, slots=True)
class Package:
    """A distribution package, how to see that it is there, and what it is for."""

    name: str
    present: Callable[[], bool]
    purpose: str
    required: bool = False
    tests_only: bool = False


def _command(
    package: str, command: str, purpose: str, *, required: bool = False, tests_only: bool = False
) -> Package:
    return Package(package, lambda: has_command(command), purpose, required, tests_only)


PACKAGES = (
    _command("git", "git", "Go and the demonstration read commits with it"),
    Package(
        "ca-certificates",
        lambda: Path("/etc/ssl/certs/ca-certificates.crt").exists(),
        "without it no registry's certificate can be checked",
    ),
    _command("runc", "runc", "BuildKit runs build steps with it", required=True),
    _command("uidmap", "newuidmap", "rootless BuildKit maps user ids with it", required=True),
    _command("slirp4netns", "slirp4netns", "a network for build steps apart from the host's"),
    _command("isal", "igzip", "BuildKit unpacks layers faster with it"),
    _command("pigz", "unpigz", "the benchmark's rival unpacks layers with it", tests_only=True),
    _command("skopeo", "skopeo", "reads and pushes archives; the tests check with it"),
    Package("busybox-static", _has_static_busybox, "tests build images around it", tests_only=True),
    _command(
        "docker-registry", "docker-registry", "tests pull base images from it", tests_only=True
    ),
    _command("openssl", "openssl", "makes certificates for tests", tests_only=True),
    _command("debootstrap", "debootstrap", "makes the tests' Debian base image", tests_only=True),
    Package(
        "debian-archive-keyring",
        lambda: Path("/usr/share/keyrings/debian-archive-keyring.gpg").exists(),
        "debootstrap checks Debian's signatures with it",
        tests_only=True,
    ),
    _command("docker.io", "dockerd", "tests load archives into a Docker engine", tests_only=True),
    _command("shellcheck", "shellcheck", "make lint checks shell scripts with it", tests_only=True),
    _command("podman", "podman", "tests read the archives that it saves", tests_only=True),
    _command("buildah", "buildah", "tests read the archives that it pushes", tests_only=True),
    Package("python3-venv", _has_venv, "the Python environment is made with it", required=True),
)


def needed(*, tests: bool) -> tuple[Package, ...]:
    """The packages that a build needs, or with ``tests`` those of the tests as well."""
    return tuple(package for package in PACKAGES if tests or not package.tests_only)


def missing(packages: Iterable[Package]) -> tuple[Package, ...]:
    """Those of ``packages`` that this machine lacks."""
    return tuple(package for package in packages if not package.present())


def _root_prefix() -> tuple[str, ...] | None:
    """What makes a command run as root here, or None where nothing does."""
    if os.geteuid() == 0:
        return ()
    if not shutil.which("sudo"):
        return None
    interactive = sys.stdin.isatty()
    try:
        run(["sudo", "-v"] if interactive else ["sudo", "-n", "true"])
    except SetupError:
        return None
    return ("sudo",) if interactive else ("sudo", "-n")


def _install(names: list[str]) -> str:
    """Install by apt; returns why it failed, or nothing."""
    if not shutil.which("apt-get", path=_SYSTEM_PATH):
        return "this machine has no apt-get (the set-up knows Debian and Ubuntu)"
    prefix = _root_prefix()
    if prefix is None:
        return "this needs root or sudo"
    apt = (*prefix, "env", "DEBIAN_FRONTEND=noninteractive", "apt-get", "-q")
    try:
        run([*apt, "update"])
    except SetupError as error:
        warn(f"apt-get update: {error}")
    try:
        run([*apt, "install", "-y", "--no-install-recommends", *names])
    except SetupError as error:
        return str(error)
    return ""


def debian_mirror() -> str:
    """The mirror of this Debian machine, else debootstrap's own default; empty without either."""
    sources = (
        Path("/etc/apt/sources.list"),
        *sorted(Path("/etc/apt/sources.list.d").glob("*.sources")),
        *sorted(Path("/etc/apt/sources.list.d").glob("*.list")),
    )
    for source in sources:
        for line in source.read_text().splitlines() if source.is_file() else ():
            if line.startswith(("URIs:", "deb ")):
                for word in line.split():
                    if word.startswith("http") and word.rstrip("/").endswith("/debian"):
                        return word
    debootstrap = shutil.which("debootstrap", path=_SYSTEM_PATH)
    script = Path(debootstrap).read_text() if debootstrap else ""
    found = re.search(r'^DEF_MIRROR="(http[^"]+)"', script, re.MULTILINE)
    return found[1] if found else ""


def install(packages: Iterable[Package]) -> None:
    """Bring what is missing of them; raises SetupError where a required one stays missing."""
    absent = missing(packages)
    with step("System packages") as current:
        current.outcome = "all there"
        reason = ""
        if absent:
            current.begin(f"installing {len(absent)}, about a minute")
            reason = _install([package.name for package in absent])
            if reason:
                # One package that a distribution does not know must not cost the others.
                for package in missing(absent):
                    reason = _install([package.name]) or reason
            current.outcome = "installed " + " ".join(
                package.name for package in absent if package.present()
            )
    left = missing(absent)
    for package in left:
        warn(f"{package.name} could not be installed: {package.purpose}.")
    if left:
        warn(f"Reason: {reason}")
    if any(package.required for package in left):
        names = " ".join(package.name for package in left)
        raise SetupError(f"Please install these packages, then run make setup again: {names}")
