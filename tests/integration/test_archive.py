"""Archives of real builds, read by programs that were not written here."""

from __future__ import annotations

import json
import subprocess
from collections.abc import Iterator
from pathlib import Path

import pytest

from plp_builder.oci.archive import Archive
from plp_builder.output import open_output
from tests.support import machine
from tests.support.daemon import Daemon, context, running

NAME = "container-image.tar"
DOCKER = "type=docker,oci-mediatypes=true,rewrite-timestamp=true"
OCI = "type=oci,rewrite-timestamp=true"


@pytest.fixture(scope="module", params=["current", "compat"])
def daemon(request: pytest.FixtureRequest) -> Iterator[Daemon]:
    with running(machine.tools(request.param)) as started:
        yield started


def build(
    daemon: Daemon, source: Path, output: str, *options: str, names: tuple[str, ...] = ()
) -> tuple[Path, Archive]:
    """One build into an archive beside ``source``."""
    target = source.parent / "build"
    target.mkdir(exist_ok=True)
    with open_output(target, NAME) as opened:
        daemon.solve(source, f"--output={output}", *options, stdout=opened.file)
        return target / NAME, opened.publish(lambda: None, references=names)


def skopeo(*arguments: str) -> str:
    return subprocess.run(
        [machine.command("skopeo"), *arguments], capture_output=True, text=True, check=True
    ).stdout


@pytest.fixture
def source(tmp_path: Path) -> Path:
    return context(tmp_path / "source", [b"one" * 1000, b"two"])


def test_others_read_the_archive(daemon: Daemon, source: Path) -> None:
    path, found = build(daemon, source, DOCKER)
    for transport in ("oci-archive", "docker-archive"):
        shown = json.loads(skopeo("inspect", f"{transport}:{path}"))
        assert len(shown["Layers"]) == 2
    assert json.loads(skopeo("inspect", f"oci-archive:{path}"))["Digest"] == found.top.digest
    crane = [machine.command("crane"), "validate", "--tarball", str(path)]
    said = subprocess.run(crane, check=True, capture_output=True, text=True).stdout
    assert said.startswith("PASS")


def test_all_names_are_in_the_archive(daemon: Daemon, source: Path) -> None:
    names = ("app:1", "localhost:5000/team/app", "docker.io/library/app:2")
    path, found = build(daemon, source, f"{DOCKER},name={names[0]}", names=names)
    expected = ["app:1", "localhost:5000/team/app:latest", "app:2"]
    assert json.loads(skopeo("list-tags", f"docker-archive:{path}"))["Tags"] == expected
    for tag in expected:
        skopeo("inspect", f"docker-archive:{path}:{tag}")
    skopeo("inspect", f"oci-archive:{path}")
    assert found.ref_names == ("docker.io/library/app:1",)


@pytest.mark.parametrize("compression", ["gzip", "zstd", "uncompressed", "estargz"])
def test_every_compression_verifies(daemon: Daemon, source: Path, compression: str) -> None:
    _, found = build(daemon, source, f"{DOCKER},compression={compression},force-compression=true")
    assert len(found.images[0].layers) == 2


def test_an_image_without_layers(daemon: Daemon, source: Path) -> None:
    (source / "Dockerfile").write_text("FROM scratch\nLABEL a=b\n")
    path, found = build(daemon, source, DOCKER)
    assert found.images[0].layers == ()
    skopeo("inspect", f"oci-archive:{path}")


def test_platforms_and_attestations(daemon: Daemon, source: Path) -> None:
    path, found = build(
        daemon,
        source,
        OCI,
        "--opt=platform=linux/amd64,linux/arm64",
        "--opt=attest:provenance=mode=min",
    )
    assert [str(platform) for platform in found.platforms] == ["linux/amd64", "linux/arm64"]
    assert not found.has_docker_manifest
    raw = json.loads(skopeo("inspect", "--raw", f"oci-archive:{path}"))
    # BuildKit 0.21 gives both platforms one and the same attestation.
    assert len(raw["manifests"]) == 4
    manifests = {image.manifest.digest for image in found.images}
    assert manifests == {entry["digest"] for entry in raw["manifests"]}


def test_the_same_build_gives_the_same_bytes(daemon: Daemon, source: Path) -> None:
    names = ("app:1", "example.com/b:2")
    first = build(daemon, source, f"{DOCKER},name=app:1", names=names)[0].read_bytes()
    daemon.forget()
    again = build(daemon, source, f"{DOCKER},name=app:1", names=names)[0].read_bytes()
    assert first == again
