"""Builds the images' archives natively, and keeps them by their content."""

from __future__ import annotations

import os
import shutil
import subprocess
import sys
import tempfile
from collections.abc import Mapping
from pathlib import Path
from typing import NamedTuple

from scripts.images import bases
from scripts.set_up.step import ROOT, SetupError, cache_home, content_key, lock, step

PREFIX = "plp-container-image"
_KEPT = 6
"""How many versions of each archive stay."""

_PASSED_ON = ("SOURCE_DATE_EPOCH", "GIT_SHA", "GIT_REPOSITORY_URL")
_SECRETS = {
    "pip-conf": ("PIP_CONFIG_FILE", "~/.config/pip/pip.conf", "/etc/pip.conf"),
    "ca": ("SSL_CERT_FILE", "/etc/ssl/certs/ca-certificates.crt"),
}


class Wanted(NamedTuple):
    """``buildkit`` is a version for BUILDKIT_VERSION; empty: what the Dockerfile says."""

    target: str
    buildkit: str = ""

    @property
    def image(self) -> str:
        """The name of the image, and of its file in build/."""
        return f"{PREFIX}-{self.target}"

    @property
    def reference(self) -> str:
        """The name and tag inside the archive."""
        return f"{self.image}:{f'buildkit-{self.buildkit}' if self.buildkit else 'latest'}"


def inputs(root: Path = ROOT) -> list[Path]:
    """Every file that the Dockerfile can see, and itself."""
    found = [root / "Dockerfile"]
    for line in (root / ".dockerignore").read_text().splitlines():
        if line.startswith("!"):
            path = root / line[1:]
            files = path.rglob("*") if path.is_dir() else [path]
            found += [file for file in files if file.is_file() and "__pycache__" not in file.parts]
    return sorted(found)


def archive(wanted: Wanted) -> Path:
    """The archive of an image, built where nothing like it has been built before.

    Raises SetupError with the end of the builder's output.
    """
    real = bases.hub_answers()
    parts: list[str | Path] = []
    for path in inputs():
        parts += [str(path.relative_to(ROOT)), path]
    given = [f"{name}={os.environ.get(name, '')}" for name in _PASSED_ON]
    key = content_key(*parts, *wanted, bases.key(real=real), *given)
    target = cache_home() / "images" / f"{'-'.join(filter(None, wanted))}-{key}.tar"
    with lock(target.with_name(f".{target.name}.lock")):
        if not target.exists():
            with bases.available(real=real) as environment:
                build(wanted, target, environment)
            _forget_old(target.parent, "-".join(filter(None, wanted)))
        os.utime(target)
    return target


def build(wanted: Wanted, target: Path, environment: Mapping[str, str]) -> None:
    """Build an image into the archive ``target``; ``environment`` says where base images are.

    Raises SetupError.
    """
    work = Path(tempfile.mkdtemp(prefix=".making-", dir=target.parent))
    env = {
        **{name: value for name, value in os.environ.items() if not name.startswith("PLP_")},
        **{name: os.environ[name] for name in ("PLP_NO_CACHE", "PLP_PULL") if name in os.environ},
        **environment,
        "PATH": f"{ROOT / 'bin'}:{os.environ.get('PATH', os.defpath)}",
        "PLP_SOURCE_PATH": str(ROOT),
        "PLP_BUILD_PATH": str(work),
        "PLP_CACHE_PATH": str(cache_home() / "images/cache"),
        "PLP_CACHE_MAX_SIZE": "3GB",
        "PLP_TARGET": wanted.target,
        "PLP_IMAGE": wanted.reference,
        "PLP_SECRETS": "\n".join(_secrets()),
        "PLP_BUILD_ARGS": f"BUILDKIT_VERSION={wanted.buildkit}" if wanted.buildkit else "",
    }
    try:
        with (work / "log").open("w+b") as log:
            command = [sys.executable, "-m", "plp_builder"]
            code = subprocess.run(
                command, cwd=ROOT, env=env, check=False, stdout=log, stderr=log
            ).returncode
            log.seek(0)
            said = log.read().decode("utf-8", "replace").splitlines()
        if code:
            raise SetupError(f"{wanted.image} was not built:\n" + "\n".join(said[-40:]))
        (work / "container-image.tar").rename(target)
    finally:
        shutil.rmtree(work, ignore_errors=True)


def _secrets() -> list[str]:
    """The machine's own configuration for pip, for companies' proxies and mirrors."""
    found = []
    for name, (variable, *places) in _SECRETS.items():
        paths = [os.environ.get(variable, ""), *map(os.path.expanduser, places)]
        present = [path for path in paths if path and Path(path).is_file()]
        found += [f"id={name},src={path}" for path in present[:1]]
    return found


def _forget_old(directory: Path, stem: str) -> None:
    found = sorted(directory.glob(f"{stem}-*.tar"), key=lambda path: path.stat().st_mtime)
    for path in found[:-_KEPT]:
        path.unlink(missing_ok=True)
        path.with_name(f".{path.name}.lock").unlink(missing_ok=True)


def bring(wanted: Wanted, directory: Path) -> Path:
    """The archive, also under its image's name in ``directory``."""
    with step(f"{wanted.target} image") as current:
        current.begin("building it, one to three minutes the first time")
        built = archive(wanted)
        current.outcome = "built"
    directory.mkdir(exist_ok=True)
    place = directory / f"{wanted.image}.tar"
    work = place.with_name(f".{place.name}.{os.getpid()}")
    try:
        work.hardlink_to(built)
    except OSError:
        shutil.copyfile(built, work)
    work.replace(place)
    return place
