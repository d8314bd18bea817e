"""Archives assembled from layouts that BuildKit made: equal to its own, and read by others."""

from __future__ import annotations

import json
import os
import subprocess
import tempfile
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import NamedTuple

import pytest

from plp_builder.cache.verification import Record, verify
from plp_builder.oci import archive, layout
from plp_builder.oci.archive import Archive
from plp_builder.oci.layout import BlobDamaged
from plp_builder.oci.model import Descriptor, parse_descriptor
from plp_builder.output import open_output
from tests.support import machine
from tests.support.daemon import Daemon, context, running
from tests.support.engine import Engine

NAME = "container-image.tar"
OPTIONS = "oci-mediatypes=true,rewrite-timestamp=true"
SEVERAL = "--opt=platform=linux/amd64,linux/arm64"


class Kept(NamedTuple):
    """A layout, and the image in it that a solve has just made."""

    directory: Path
    top: Descriptor
    record: Record


@pytest.fixture(scope="module", params=["current", "compat"])
def daemon(request: pytest.FixtureRequest) -> Iterator[Daemon]:
    with running(machine.tools(request.param)) as started:
        yield started


@pytest.fixture
def source(tmp_path: Path) -> Path:
    return context(tmp_path / "source", [os.urandom(3_000_000), b"two"])


def no_check() -> None:
    return None


def exported(daemon: Daemon, source: Path, output: str, *options: str) -> Path:
    """The archive as BuildKit itself writes it."""
    path = source.parent / "exported.tar"
    with path.open("wb") as file:
        daemon.solve(source, f"--output={output}", *options, stdout=file)
    return path


def kept(daemon: Daemon, source: Path, output: str, *options: str) -> Kept:
    """The same in a layout, verified."""
    directory, metadata = source.parent / "layout", source.parent / "metadata.json"
    where = f"tar=false,dest={directory}"
    daemon.solve(source, f"--output={output},{where}", f"--metadata-file={metadata}", *options)
    said = json.loads(metadata.read_text())["containerimage.descriptor"]
    top = parse_descriptor(said, "the image")
    record = Record.read(directory)
    needed = [node.descriptor for node in layout.reachable(directory, top)]
    assert verify(directory, needed, record, check=no_check) == []
    record.write(directory)
    return Kept(directory, top, record)


def assembled(
    image: Kept, build: Path, names: tuple[str, ...] = (), archive_format: str = "auto"
) -> tuple[Path, Archive]:
    build.mkdir(exist_ok=True)
    with open_output(build, NAME) as output:
        output.assemble(
            image.directory,
            image.top,
            names=names,
            archive_format=archive_format,
            holds=image.record.holds,
            check=no_check,
        )
        return build / NAME, output.publish(no_check, verified=True)


def skopeo(*arguments: str) -> str:
    return subprocess.run(
        [machine.command("skopeo"), *arguments], capture_output=True, text=True, check=True
    ).stdout


@pytest.mark.parametrize("names", [(), ("app:1",), ("localhost:5000/team/app",)])
@pytest.mark.parametrize(("kind", "options"), [("docker", ()), ("oci", ()), ("oci", (SEVERAL,))])
def test_it_is_the_archive_that_buildkit_writes(
    daemon: Daemon,
    source: Path,
    kind: str,
    options: tuple[str, ...],
    names: tuple[str, ...],
) -> None:
    """Byte for byte, so that a build gives the same archive whatever is kept for the next."""
    output = ",".join([OPTIONS, *(f"name={name}" for name in names)])
    theirs = exported(daemon, source, f"type={kind},{output}", *options)
    image = kept(daemon, source, f"type=oci,{output}", *options)
    ours, found = assembled(image, source.parent / "build", names, kind)
    assert ours.read_bytes() == theirs.read_bytes()
    with ours.open("rb") as file:
        assert archive.verify(file) == found


@pytest.mark.parametrize("compression", ["gzip", "zstd", "uncompressed", "estargz"])
def test_every_compression(daemon: Daemon, source: Path, compression: str) -> None:
    output = f"type=oci,{OPTIONS},compression={compression},force-compression=true"
    path, found = assembled(kept(daemon, source, output), source.parent / "build")
    assert len(found.images[0].layers) == 2
    skopeo("copy", f"docker-archive:{path}", f"dir:{source.parent / 'copy'}")


def test_an_image_without_layers(daemon: Daemon, source: Path) -> None:
    (source / "Dockerfile").write_text("FROM scratch\nLABEL a=b\n")
    theirs = exported(daemon, source, f"type=docker,{OPTIONS}")
    ours, _ = assembled(kept(daemon, source, f"type=oci,{OPTIONS}"), source.parent / "build")
    assert ours.read_bytes() == theirs.read_bytes()


def test_platforms_and_attestations(daemon: Daemon, source: Path) -> None:
    options = (SEVERAL, "--opt=attest:provenance=mode=min")
    path, found = assembled(
        kept(daemon, source, f"type=oci,{OPTIONS}", *options), source.parent / "build"
    )
    assert [str(platform) for platform in found.platforms] == ["linux/amd64", "linux/arm64"]
    raw = json.loads(skopeo("inspect", "--raw", f"oci-archive:{path}"))
    assert len(raw["manifests"]) == 4
    with path.open("rb") as file:
        assert archive.verify(file) == found


def test_others_read_it(daemon: Daemon, source: Path) -> None:
    names = ("app:1", "localhost:5000/team/app", "docker.io/library/app:2")
    image = kept(daemon, source, f"type=oci,{OPTIONS},name={names[0]}")
    path, found = assembled(image, source.parent / "build", names)
    assert found.top.digest == image.top.digest
    for number, transport in enumerate(("oci-archive", "docker-archive")):
        skopeo("copy", f"{transport}:{path}", f"dir:{source.parent / str(number)}")
    assert json.loads(skopeo("inspect", f"oci-archive:{path}"))["Digest"] == found.top.digest
    tags = ["app:1", "localhost:5000/team/app:latest", "app:2"]
    assert json.loads(skopeo("list-tags", f"docker-archive:{path}"))["Tags"] == tags
    crane = [machine.command("crane"), "validate", "--tarball", str(path)]
    said = subprocess.run(crane, check=True, capture_output=True, text=True).stdout
    assert said.startswith("PASS")


def test_an_engine_loads_it(daemon: Daemon, source: Path, docker_engine: Engine) -> None:
    names = (f"plp-assembly-{os.urandom(4).hex()}:1", f"plp-assembly-{os.urandom(4).hex()}:2")
    path, found = assembled(
        kept(daemon, source, f"type=oci,{OPTIONS},name={names[0]}"), source.parent / "build", names
    )
    try:
        docker_engine.docker("load", "--input", str(path))
        for name in names:
            shown = docker_engine.docker("image", "inspect", "--format", "{{.Id}}", name).stdout
            assert shown.strip() in {found.top.digest, found.config_digests[0]}
    finally:
        docker_engine.docker("image", "rm", "--force", *names, check=False)


def test_a_layout_of_several_images_gives_the_one_that_is_asked_for(
    daemon: Daemon, source: Path
) -> None:
    first = kept(daemon, source, f"type=oci,{OPTIONS}")
    alone, _ = assembled(first, source.parent / "alone")
    (source / "file1").write_bytes(b"changed")
    second = kept(daemon, source, f"type=oci,{OPTIONS}")
    assert second.top.digest != first.top.digest
    again, _ = assembled(first._replace(record=second.record), source.parent / "again")
    assert again.read_bytes() == alone.read_bytes()
    assert assembled(second, source.parent / "other")[1].top.digest == second.top.digest


def test_onto_another_file_system(daemon: Daemon, source: Path) -> None:
    """Where the kernel does not copy from one to the other by itself."""
    image = kept(daemon, source, f"type=oci,{OPTIONS}")
    here, _ = assembled(image, source.parent / "build")
    memory = Path("/dev/shm")
    if memory.stat().st_dev == source.stat().st_dev:
        pytest.skip("/dev/shm is on the same file system")
    with tempfile.TemporaryDirectory(dir=memory) as build:
        there, _ = assembled(image, Path(build))
        assert there.read_bytes() == here.read_bytes()


def _rewrite(path: Path) -> None:
    data = path.read_bytes()
    path.chmod(0o644)
    path.write_bytes(data)


def _replace(path: Path) -> None:
    copy = path.with_name("copy")
    copy.write_bytes(path.read_bytes())
    os.utime(copy, ns=(path.stat().st_atime_ns, path.stat().st_mtime_ns))
    copy.replace(path)


@pytest.mark.parametrize("change", [_rewrite, _replace])
def test_what_was_touched_since_it_was_verified_is_not_taken(
    daemon: Daemon, source: Path, change: Callable[[Path], None]
) -> None:
    image = kept(daemon, source, f"type=oci,{OPTIONS}")
    largest = max((image.directory / layout.BLOBS).iterdir(), key=lambda path: path.stat().st_size)
    change(largest)
    with pytest.raises(BlobDamaged, match="changed after it had been verified") as caught:
        assembled(image, source.parent / "build")
    assert caught.value.digest.encoded == largest.name
    assert list((source.parent / "build").iterdir()) == []
