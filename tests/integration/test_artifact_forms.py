"""Archives that other programs made, as artifacts: the same image that they see.

Docker 25's form cannot be had of every engine: tests.support.archives builds it, and here an
engine and skopeo read what was built.
"""

from __future__ import annotations

import io
import json
import os
import shutil
import subprocess
import sys
import tarfile
import tempfile
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from plp_builder.errors import ArchiveInvalid
from plp_builder.oci import artifact
from plp_builder.oci.artifact import Artifact
from tests.support import archives, layouts, machine
from tests.support.archives import END, member
from tests.support.daemon import Daemon, context, running
from tests.support.engine import Engine
from tests.support.registry import Registry

LAYERS = tuple(member(name, name.encode() * 1000) + END for name in ("one", "two", "one"))
MADE: dict[str, Callable[..., bytes]] = {
    "docker-save": archives.docker_save,
    "docker-save-25": archives.docker_save_25,
    "crane-pull": archives.crane_pull,
    "skopeo-copy": archives.skopeo_copy,
}


def run(program: str, *arguments: str) -> str:
    done = subprocess.run(
        [machine.command(program), *arguments], capture_output=True, text=True, check=False
    )
    assert done.returncode == 0, f"{program} {arguments}: {done.stderr}"
    return done.stdout


def read(path: Path) -> Artifact:
    with artifact.opened(path) as file:
        return artifact.read(file, check=lambda: None)


def seen_by_skopeo(archive: Path, transport: str = "oci-archive") -> str:
    """The digest of what skopeo takes for the archive's image, whose bytes it shows."""
    shown = run("skopeo", "inspect", "--raw", f"{transport}:{archive}")
    return f"sha256:{layouts.sha256(shown.encode())}"


def same_image(found: Artifact, archive: Path) -> None:
    """What skopeo reads from the docker-archive has the same configuration and layers."""
    config = run("skopeo", "inspect", "--config", "--raw", f"docker-archive:{archive}")
    assert found.images[0].config.digest == f"sha256:{layouts.sha256(config.encode())}"
    assert len(found.images[0].layers) == len(json.loads(config)["rootfs"]["diff_ids"])


@pytest.fixture(scope="module")
def daemon() -> Iterator[Daemon]:
    with running(machine.tools("current")) as started:
        yield started


@pytest.fixture
def source(tmp_path: Path) -> Path:
    return context(tmp_path / "source", [b"one" * 1000, b"two"])


@pytest.fixture
def layout(tmp_path: Path) -> Path:
    """An archive in OCI form with real layers, for programs that convert archives."""
    path = tmp_path / "given.tar"
    path.write_bytes(archives.docker_save_25(LAYERS))
    run("skopeo", "copy", f"docker-archive:{path}", f"oci-archive:{tmp_path / 'given.oci'}:app")
    return tmp_path / "given.oci"


@pytest.fixture
def saved(docker_engine: Engine, tmp_path: Path) -> Iterator[Callable[..., Path]]:
    """Loads an archive into the engine, and gives what docker save makes of its images."""
    names: list[str] = []

    def save(data: bytes, *wanted: str) -> Path:
        path = tmp_path / "loaded.tar"
        path.write_bytes(data)
        docker_engine.docker("load", "--input", str(path))
        names.extend(wanted)
        docker_engine.docker("save", "--output", str(tmp_path / "saved.tar"), *wanted)
        return tmp_path / "saved.tar"

    yield save
    docker_engine.docker("image", "rm", "--force", *names, check=False)


@pytest.mark.parametrize("name", MADE)
def test_an_engine_takes_what_the_helpers_make(name: str, saved: Callable[..., Path]) -> None:
    """So the archives that unit tests use are the ones that they say they are."""
    image = {"crane-pull": "example.com/app:1"}.get(name, "app:1")
    data = MADE[name](LAYERS)
    path = saved(data, image)
    found = read(path)
    given = artifact.read(io.BytesIO(data), check=lambda: None)
    assert found.images[0].config.digest == given.images[0].config.digest
    same_image(found, path)


def test_docker_save(saved: Callable[..., Path]) -> None:
    """A repeated layer is a link in what engines before 25 save."""
    path = saved(archives.docker_save(LAYERS, tags=["forms:1", "forms:2"]), "forms:1", "forms:2")
    found = read(path)
    same_image(found, path)
    with tarfile.open(path) as tar:
        links = [each for each in tar if each.issym()]
    assert len(links) == (1 if found.form == "docker" else 0)
    assert len({layer.digest for layer in found.images[0].layers}) == 2
    assert [str(platform) for platform in found.platforms] == ["linux/amd64"]


def test_docker_save_of_two_images_is_refused(
    saved: Callable[..., Path], docker_engine: Engine
) -> None:
    saved(archives.docker_save(LAYERS[:1], tags=["forms:one"]), "forms:one")
    path = saved(archives.docker_save(LAYERS[1:], tags=["forms:two"]), "forms:two", "forms:one")
    with pytest.raises(ArchiveInvalid, match="names 2 images") as refused:
        read(path)
    assert {"'forms:one'", "'forms:two'"} == set(refused.value.why)


def test_docker_save_by_id(saved: Callable[..., Path], docker_engine: Engine) -> None:
    """Without a tag. Docker 25 writes an index.json that names nothing."""
    saved(archives.docker_save(LAYERS, tags=["forms:3"]), "forms:3")
    identifier = docker_engine.docker("image", "inspect", "--format", "{{.Id}}", "forms:3")
    path = saved(archives.docker_save(LAYERS, tags=["forms:3"]), identifier.stdout.strip())
    same_image(read(path), path)


@pytest.mark.parametrize("exporter", ["docker", "oci"])
def test_buildkit(daemon: Daemon, source: Path, tmp_path: Path, exporter: str) -> None:
    path = tmp_path / "built.tar"
    with path.open("wb") as output:
        daemon.solve(source, f"--output=type={exporter}", stdout=output)
    found = read(path)
    assert found.form == "oci"
    assert found.top.digest == seen_by_skopeo(path)
    assert found.notes == ()


@pytest.mark.parametrize("compression", ["zstd", "uncompressed", "estargz"])
def test_buildkit_with_other_compressions(
    daemon: Daemon, source: Path, tmp_path: Path, compression: str
) -> None:
    path = tmp_path / "built.tar"
    options = f"compression={compression},force-compression=true"
    with path.open("wb") as output:
        daemon.solve(source, f"--output=type=oci,{options}", stdout=output)
    found = read(path)
    assert found.top.digest == seen_by_skopeo(path)
    assert len(found.notes) == (1 if compression == "uncompressed" else 0)


def test_buildkit_with_platforms_and_attestations(
    daemon: Daemon, source: Path, tmp_path: Path
) -> None:
    path = tmp_path / "built.tar"
    options = ("--opt=platform=linux/amd64,linux/arm64", "--opt=attest:provenance=mode=max")
    with path.open("wb") as output:
        daemon.solve(source, "--output=type=oci", *options, stdout=output)
    found = read(path)
    assert found.top.digest == seen_by_skopeo(path)
    assert [str(platform) for platform in found.platforms] == ["linux/amd64", "linux/arm64"]
    assert len(found.images) == 4


def test_skopeo_copies_of_both_kinds(layout: Path, tmp_path: Path) -> None:
    found = read(layout)
    assert found.top.digest == seen_by_skopeo(layout)
    target = tmp_path / "docker.tar"
    run("skopeo", "copy", f"oci-archive:{layout}", f"docker-archive:{target}:app:1")
    converted = read(target)
    assert converted.form == "docker"
    same_image(converted, target)
    assert converted.images[0].config.digest == found.images[0].config.digest


def test_crane(registry: Registry, layout: Path, tmp_path: Path) -> None:
    """Its tarball, and its layout put into an archive by tar."""
    image = f"{registry.address}/forms/crane:1"
    run("skopeo", "copy", "--dest-tls-verify=false", f"oci-archive:{layout}", f"docker://{image}")
    digest = run("crane", "digest", "--insecure", image).strip()

    run("crane", "pull", "--insecure", image, str(tmp_path / "crane.tar"))
    tarball = read(tmp_path / "crane.tar")
    assert tarball.form == "docker"
    same_image(tarball, tmp_path / "crane.tar")
    assert tarball.images[0].layers == read(layout).images[0].layers

    run("crane", "pull", "--insecure", "--format=oci", image, str(tmp_path / "crane"))
    run("tar", "-C", str(tmp_path / "crane"), "-cf", str(tmp_path / "crane-oci.tar"), ".")
    assert read(tmp_path / "crane-oci.tar").top.digest == digest


@pytest.fixture
def storage() -> Iterator[tuple[str, ...]]:
    """Options that give podman and buildah a storage of the test's own."""
    if os.geteuid() != 0:
        machine.missing("root (podman and buildah map users otherwise)")
    # podman takes no runroot of more than 50 characters.
    directory = Path(tempfile.mkdtemp(prefix="plp-s-", dir="/tmp"))
    yield (f"--root={directory}/root", f"--runroot={directory}/run", "--storage-driver=vfs")
    shutil.rmtree(directory)


@pytest.mark.parametrize("form", ["oci-archive", "docker-archive"])
def test_podman(layout: Path, tmp_path: Path, storage: tuple[str, ...], form: str) -> None:
    podman = (*storage, f"--tmpdir={tmp_path}/tmp")
    path = tmp_path / "podman.tar"
    run("podman", *podman, "load", "--input", str(layout))
    (image,) = run("podman", *podman, "images", "--quiet").split()
    run("podman", *podman, "save", f"--format={form}", f"--output={path}", image)
    found = read(path)
    if form == "oci-archive":
        assert found.top.digest == seen_by_skopeo(path)
    else:
        same_image(found, path)
    assert found.images[0].config.digest == read(layout).images[0].config.digest


def test_buildah(layout: Path, tmp_path: Path, storage: tuple[str, ...]) -> None:
    path = tmp_path / "buildah.tar"
    image = run("buildah", *storage, "pull", "--quiet", f"oci-archive:{layout}").strip()
    run("buildah", *storage, "push", image, f"oci-archive:{path}:forms")
    found = read(path)
    assert found.top.digest == seen_by_skopeo(path)
    assert found.images[0].config.digest == read(layout).images[0].config.digest


_MEASURE = """
import sys
from pathlib import Path
from plp_builder.oci import artifact
with artifact.opened(Path(sys.argv[1])) as file:
    found = artifact.read(file, check=lambda: None)
# Not ru_maxrss: that one remembers the process which has started this one.
(peak,) = (line.split()[1] for line in open("/proc/self/status") if line.startswith("VmHWM"))
print(len(found.blobs), peak)
"""


@pytest.mark.parametrize(
    ("size", "layers"),
    [(300_000_000, 3), pytest.param(5_000_000_000, 8, marks=pytest.mark.soak)],
    ids=["300MB", "5GB"],
)
@pytest.mark.parametrize("compressed", [False, True], ids=["plain", "gzip"])
def test_memory_does_not_grow_with_the_archive(
    tmp_path: Path, size: int, layers: int, compressed: bool
) -> None:
    """At most 80 MB, whatever the archive holds; its zeros take no room on the disk."""
    path = tmp_path / "large.tar"
    archives.write_large(path, [size // layers] * layers, compressed=compressed)
    done = subprocess.run(
        [sys.executable, "-c", _MEASURE, path], capture_output=True, text=True, check=False
    )
    assert done.returncode == 0, done.stderr
    blobs, peak = map(int, done.stdout.split())
    assert blobs == layers + 2
    assert peak * 1024 <= 80_000_000
