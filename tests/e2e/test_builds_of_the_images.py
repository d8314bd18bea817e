"""The images' own builds: twice the same, and by an engine's classic builder."""

from __future__ import annotations

import os
import subprocess
from collections.abc import Iterator
from pathlib import Path

import pytest

from plp_builder import __version__
from scripts.images import bases
from scripts.images.build import Wanted, build
from scripts.set_up.step import ROOT
from tests.support import base_images, image, machine
from tests.support.engine import Engine

CLASSIC = "plp-container-image-builder:classic"
DOCKERFILE = (ROOT / "Dockerfile").read_text()


def test_the_label_tells_the_version() -> None:
    assert DOCKERFILE.count(f"ARG VERSION={__version__}\n") == 2


def test_nothing_tells_of_stand_ins() -> None:
    lines = [line for line in DOCKERFILE.splitlines() if line.startswith("FROM ")]
    assert {line.split()[1] for line in lines} == {
        "moby/buildkit:v${BUILDKIT_VERSION}-rootless", "debian:trixie-slim", "python",
    }  # fmt: skip


@pytest.mark.soak
@pytest.mark.parametrize("target", ["builder", "publisher"])
def test_two_builds_from_nothing_are_the_same(
    target: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("SOURCE_DATE_EPOCH", "1700000000")
    monkeypatch.setenv("PLP_NO_CACHE", "true")
    digests = set()
    with bases.available(real=bases.hub_answers()) as environment:
        for number in range(2):
            archive = tmp_path / f"{number}.tar"
            build(Wanted(target), archive, environment)
            digests.add(image.read(archive).digest)
    assert len(digests) == 1


@pytest.fixture
def company_bases(engine: Engine, tmp_path: Path) -> Iterator[None]:
    """The base images in the engine, with pip's configuration where the machine has one."""
    if bases.hub_answers():
        yield
        return
    made = []
    for base in (base_images.IMAGES[0], base_images.buildkit_images()[0]):
        made.append(f"{base.repository.removeprefix('library/')}:{base.tags[0]}")
        engine.docker("import", str(base.rootfs()), made[-1])
    given = machine.package_configuration()
    lines = [f"FROM {made[0]}", "ENV PATH=/usr/local/bin:/usr/bin:/bin:/usr/sbin:/sbin"]
    for name, place in (("pip-conf", "/etc/pip.conf"), ("ca-bundle", "/etc/company-ca.pem")):
        if name in given:
            (tmp_path / name).write_bytes(given[name].read_bytes())
            lines.append(f"COPY {name} {place}")
    lines.append("ENV PIP_CERT=/etc/company-ca.pem")
    (tmp_path / "Dockerfile").write_text("\n".join(lines) + "\n")
    _classic("docker", "build", "-q", "-t", made[0], str(tmp_path))
    yield
    for name in made:
        engine.docker("image", "rm", "--force", name, check=False)


def _classic(*words: str) -> None:
    done = subprocess.run(
        words,
        cwd=ROOT,
        env={**os.environ, "DOCKER_BUILDKIT": "0"},
        check=False,
        capture_output=True,
        text=True,
    )
    assert done.returncode == 0, done.stdout[-4000:] + done.stderr[-4000:]


@pytest.mark.soak
def test_the_classic_builder_takes_the_documented_command(
    company_bases: None, engine: Engine
) -> None:
    (line,) = [line for line in (ROOT / "docs/images.md").read_text().splitlines()
               if "DOCKER_BUILDKIT=0 docker" in line]  # fmt: skip
    _classic("bash", "-euo", "pipefail", "-c", line.replace("-builder -f", "-builder:classic -f"))
    try:
        shown = engine.docker("run", "--rm", "--network=none", CLASSIC, "--version").stdout
        assert __version__ in shown
        assert "0.32.2" in shown
    finally:
        engine.docker("image", "rm", "--force", CLASSIC)
