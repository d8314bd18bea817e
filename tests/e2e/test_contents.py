"""What the images hold, and what they must not."""

from __future__ import annotations

import json
import re
import stat
import tarfile
from collections.abc import Iterator
from pathlib import Path
from typing import IO, NamedTuple

import pytest

from plp_builder import __version__
from scripts.images.build import Wanted, archive
from scripts.images.contents import weigh
from tests.support import machine
from tests.support.engine import Engine

LIMITS = {"builder": 250e6, "publisher": 150e6}
"""Bytes unpacked above the base image."""

OPEN_TO_ALL = {"tmp", "var/tmp"}
LEFTOVERS = re.compile(
    r"^(root/\.cache|home/plp/\.|var/cache/.|var/log/.|var/lib/apt/lists/.|etc/pip\.conf|run/ca"
    r"|run/secrets|src|opt/build|root/\.(pip|config|netrc|npmrc|docker|ssh))"
    r"|/pip/__init__\.py$|bin/(gcc|cc|make|ld|pip3?)$|\.(whl|deb)$|/__pycache__/[^/]+\.pyc\.\d+$"
)


class Image(NamedTuple):
    """An image's name in the engine, and its files as one container sees them."""

    target: str
    reference: str
    members: dict[str, tarfile.TarInfo]
    tar: Path

    def file(self, name: str) -> bytes:
        """The content of a file."""
        with tarfile.open(self.tar) as tar:
            found: IO[bytes] | None = tar.extractfile(name)
            assert found is not None
            return found.read()


@pytest.fixture(scope="module", params=["builder", "publisher"])
def image(
    request: pytest.FixtureRequest,
    engine: Engine,
    tmp_path_factory: pytest.TempPathFactory,
) -> Iterator[Image]:
    """Each of the two images."""
    reference = request.getfixturevalue(f"{request.param}_image")
    tar = tmp_path_factory.mktemp("export") / "files.tar"
    container = engine.docker("create", reference).stdout.strip()
    try:
        engine.docker("export", "--output", str(tar), container)
    finally:
        engine.docker("rm", "--volumes", container)
    with tarfile.open(tar) as opened:
        members = {member.name.removesuffix("/"): member for member in opened}
    yield Image(request.param, reference, members, tar)
    tar.unlink()


def test_nothing_runs_with_more_rights_than_its_caller(image: Image) -> None:
    special = [
        name for name, member in image.members.items()
        if member.isfile() and member.mode & (stat.S_ISUID | stat.S_ISGID)
    ]  # fmt: skip
    assert special == []


def test_nothing_can_be_written_by_everybody_but_tmp(image: Image) -> None:
    open_to_all = {
        name for name, member in image.members.items()
        if not member.issym() and member.mode & stat.S_IWOTH
        and not name.startswith(("dev/", "proc", "sys"))
    }  # fmt: skip
    assert open_to_all == OPEN_TO_ALL


def test_nothing_of_the_build_is_left(image: Image) -> None:
    assert [name for name in image.members if LEFTOVERS.search(name)] == []


def test_nothing_of_this_machine_is_inside(image: Image) -> None:
    """Neither pip's configuration nor the certificates that the build was given."""
    given = [path.read_bytes().strip() for path in machine.package_configuration().values()]
    given += [b"BEGIN OPENSSH PRIVATE KEY", b"BEGIN RSA PRIVATE KEY"]
    sized = {len(text) for text in given[:-2]}
    with tarfile.open(image.tar) as tar:
        for member in tar:
            if member.isreg() and any(0 <= member.size - size <= 2 for size in sized):
                file = tar.extractfile(member)
                assert file is not None
                assert file.read().strip() not in given, member.name
    assert "root/.pip" not in image.members


def test_bytecode_is_there_and_is_never_compared_with_dates(image: Image) -> None:
    """PEP 552: flags 1 is a hash that nobody checks."""
    own = [
        name for name in image.members
        if name.endswith(".pyc") and name.startswith(("opt/plp/", "usr/lib/python3"))
    ]  # fmt: skip
    sources = [
        name for name in image.members
        if name.endswith(".py") and name.startswith("opt/plp/lib/")
    ]  # fmt: skip
    compiled = {re.sub(r"__pycache__/(.*)\.cpython-\d+\.pyc", r"\1.py", name) for name in own}
    assert set(sources) <= compiled
    with tarfile.open(image.tar) as tar:
        for name in own:
            file = tar.extractfile(name)
            assert file is not None
            assert int.from_bytes(file.read(8)[4:], "little") == 1, name


def test_configuration_and_labels(image: Image, engine: Engine) -> None:
    (told,) = json.loads(engine.docker("image", "inspect", image.reference).stdout)
    config = told["Config"]
    program = f"/opt/plp/bin/plp-{image.target}"
    assert config["Entrypoint"] == ["/opt/plp/bin/python", "-IS", program]
    assert config["StopSignal"] == "SIGTERM"
    assert not config.get("Healthcheck")
    assert config["User"] == {"builder": "", "publisher": "1000:1000"}[image.target]
    volumes = {"builder": ["/var/tmp"], "publisher": []}[image.target]
    assert list(config.get("Volumes") or {}) == volumes
    labels = {key.removeprefix("org.opencontainers.image."): value
              for key, value in config["Labels"].items()}  # fmt: skip
    assert labels["version"] == __version__
    assert labels["licenses"] == "Apache-2.0"
    assert {"title", "description", "source", "revision"} <= labels.keys()
    assert labels["title"] == f"plp-container-image-{image.target}"


def test_helpers_of_the_builder_have_one_capability_each(
    engine: Engine, builder_image: str
) -> None:
    script = (
        "import os; print(*[os.getxattr(f'/usr/bin/new{k}idmap', 'security.capability').hex()"
        " for k in 'ug'])"
    )
    options = ["--rm", "--network=none", "--entrypoint=/usr/bin/python3"]
    shown = engine.docker("run", *options, builder_image, "-c", script).stdout.split()
    # vfs_cap_data of linux/capability.h, version 2, effective; bits 7 and 6.
    assert shown == [f"01000002{1 << bit:02x}000000" + "00" * 12 for bit in (7, 6)]


def test_git_and_ssh_work_without_what_was_taken_out(engine: Engine, builder_image: str) -> None:
    script = (
        "set -eu; cd /tmp; git init -q a; cd a; echo x > f; git add f;"
        "git -c user.name=a -c user.email=a@b commit -qm first; cd ..;"
        "git clone -q file:///tmp/a b; cat b/f; ssh -V; fuse-overlayfs --version >/dev/null;"
        "igzip --version >/dev/null"
    )
    run = ["run", "--rm", "--network=none", "--entrypoint=sh", builder_image, "-c", script]
    assert engine.docker(*run).stdout == "x\n"


@pytest.mark.parametrize("target", LIMITS)
def test_the_images_are_small(target: str) -> None:
    assert weigh(archive(Wanted(target))).above <= LIMITS[target]
