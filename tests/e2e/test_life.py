"""From start to stop: ended in mid-build, side by side, again and again, on a full disk."""

from __future__ import annotations

import hashlib
import os
import re
import shutil
import subprocess
import time
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import pytest

from tests.e2e.conftest import MakePlaces, Places
from tests.support import image, machine, processes
from tests.support.containers import PRIVILEGED, UNCONFINED, Containers
from tests.support.engine import Engine

SLEEPS = """\
FROM scratch
COPY busybox /bin/busybox
RUN ["/bin/busybox", "sh", "-c", "echo the step has begun; /bin/busybox sleep 600"]
"""
PATIENCE = 60.0


def said(container: Any, text: str) -> bool:
    """Whether the container has said something by now."""
    log: bytes = container.get_wrapped_container().logs()
    return text in log.decode("utf-8", "replace")


def contents(directory: Path) -> list[str]:
    """Everything below a directory."""
    return sorted(str(path.relative_to(directory)) for path in directory.rglob("*"))


def tree_hash(directory: Path) -> str:
    """Changes with any file's content, mode, owner or time."""
    digest = hashlib.sha256()
    for path in sorted(directory.rglob("*")):
        status = path.lstat()
        facts = (status.st_mode, status.st_uid, status.st_mtime_ns, status.st_ctime_ns)
        digest.update(repr((str(path), facts)).encode())
        if path.is_file() and not path.is_symlink():
            digest.update(path.read_bytes())
    return digest.hexdigest()


@pytest.mark.parametrize("rights", [PRIVILEGED, UNCONFINED], ids=["privileged", "unconfined"])
def test_docker_stop_ends_a_build_soon_and_leaves_nothing(
    rights: Mapping[str, Any], start: Containers, places: MakePlaces, engine: Engine
) -> None:
    place = places(files={"Dockerfile": SLEEPS})
    (place.workspace.archive).write_bytes(b"the archive of an earlier build")
    container = start.start(place.mounts, **rights)
    assert processes.until(lambda: said(container, "the step has begun"), PATIENCE)

    name = container.get_wrapped_container().id
    began = time.monotonic()
    engine.docker("stop", "--time", "30", name)
    seconds = time.monotonic() - began
    ended = start.ended(container)

    assert ended.code == 143, ended.log
    assert seconds < 10
    assert "terminated" in ended.log
    assert place.workspace.archive.read_bytes() == b"the archive of an earlier build"
    assert contents(place.workspace.build) == ["container-image.tar"]
    # The lock file of the cache stays; a half-written export does not.
    assert not [path for path in contents(place.workspace.cache) if "staging" in path]


def test_the_first_process_collects_what_it_adopts(
    start: Containers, places: MakePlaces, engine: Engine
) -> None:
    place = places(files={"Dockerfile": SLEEPS})
    container = start.start(place.mounts, **PRIVILEGED)
    assert processes.until(lambda: said(container, "the step has begun"), PATIENCE)
    name = container.get_wrapped_container().id
    engine.docker("exec", name, "sh", "-c", "for i in 1 2 3 4 5; do (sleep 0.2 &); done")

    def zombies() -> list[str]:
        shown = engine.docker("exec", name, "sh", "-c", "cat /proc/[0-9]*/stat").stdout
        return re.findall(r"\(sleep\) Z 1 ", shown)

    def sleepers() -> list[str]:
        shown = engine.docker("exec", name, "sh", "-c", "cat /proc/[0-9]*/stat").stdout
        return re.findall(r"\(sleep\) \S 1 ", shown)

    assert processes.until(lambda: not sleepers(), 10)
    assert not zombies()
    engine.docker("stop", name)
    assert start.ended(container).code == 143


def test_the_source_may_be_read_only_and_is_the_same_afterwards(
    start: Containers, places: MakePlaces
) -> None:
    place = places("odd-names", uid=1001)
    before = tree_hash(place.workspace.source)
    ended = start.run(place.mounts, **PRIVILEGED)
    assert ended.code == 0, ended.log
    assert tree_hash(place.workspace.source) == before


def with_volume(place: Places, volume: str) -> dict[str | Path, str]:
    """The mounts, with a volume for the cache."""
    mounts = place.mounts
    del mounts[place.workspace.cache]
    return {**mounts, volume: "/tmp/cache"}


@pytest.mark.parametrize("kind", ["volume", "bind"])
def test_three_builds_in_a_row_use_one_cache(
    kind: str, start: Containers, places: MakePlaces, engine: Engine
) -> None:
    place = places("site")
    env = {"PLP_SECRETS": "id=token,env=SITE_TOKEN", "SITE_TOKEN": "x" * 20}
    mounts = place.mounts
    volume = f"plp-e2e-{os.getpid()}"
    if kind == "volume":
        engine.docker("volume", "create", volume)
        mounts = with_volume(place, volume)
    try:
        cached = []
        for _ in range(3):
            ended = start.run(mounts, env, **PRIVILEGED)
            assert ended.code == 0, ended.log
            found = re.search(r"steps: +(\d+) of (\d+) cached", ended.log)
            assert found, ended.log
            cached.append((int(found[1]), int(found[2])))
        total = cached[0][1]
        assert cached == [(0, total), (total, total), (total, total)]
    finally:
        if kind == "volume":
            engine.docker("volume", "rm", volume)


def test_two_containers_share_a_cache_volume_at_once(
    start: Containers, places: MakePlaces, engine: Engine
) -> None:
    volume = f"plp-e2e-two-{os.getpid()}"
    engine.docker("volume", "create", volume)
    try:
        both = [places("heredocs"), places("labels-and-args")]
        running = [
            start.start(
                {
                    place.workspace.source: "/source:ro",
                    place.workspace.build: "/build",
                    volume: "/tmp/cache",
                },
                {"PLP_BUILD_ARGS": "VERSION=1"},
                **PRIVILEGED,
            )
            for place in both
        ]
        for place, container in zip(both, running, strict=True):
            ended = start.ended(container)
            assert ended.code == 0, ended.log
            assert image.read(place.workspace.archive).manifest["layers"]
        again = start.run(
            {
                both[0].workspace.source: "/source:ro",
                both[0].workspace.build: "/build",
                volume: "/tmp/cache",
            },
            {"PLP_BUILD_ARGS": "VERSION=1"},
            **PRIVILEGED,
        )
        found = re.search(r"steps: +(\d+) of (\d+) cached", again.log)
        assert found, again.log
        assert found[1] == found[2] != "0"
    finally:
        engine.docker("volume", "rm", volume)


def test_a_full_disk_is_named_and_the_previous_archive_stays(
    start: Containers, places: MakePlaces
) -> None:
    place = places(files={"Dockerfile": "FROM scratch\nCOPY big /\n"})
    (place.workspace.source / "big").write_bytes(os.urandom(6_000_000))
    disk = place.workspace.root / "disk"
    disk.mkdir()
    mount = ["mount", "-t", "tmpfs", "-o", "size=4m", "tmpfs", str(disk)]
    if subprocess.run(mount, check=False).returncode:
        machine.missing("the right to mount a small tmpfs")
    try:
        (disk / "container-image.tar").write_bytes(b"the archive of an earlier build")
        mounts: dict[str | Path, str] = {place.workspace.source: "/source:ro", disk: "/build"}
        ended = start.run(mounts, **PRIVILEGED)
        assert ended.code == 1
        assert "no space left on device" in ended.log.lower()
        assert (disk / "container-image.tar").read_bytes() == b"the archive of an earlier build"
        assert contents(disk) == ["container-image.tar"]
    finally:
        subprocess.run(["umount", disk], check=True)
        shutil.rmtree(disk, ignore_errors=True)


def test_the_result_is_loaded_and_runs(
    start: Containers, places: MakePlaces, engine: Engine
) -> None:
    place = places("heredocs")
    name = f"plp-e2e-loaded-{os.getpid()}:latest"
    ended = start.run(place.mounts, {"PLP_IMAGE": name}, **PRIVILEGED)
    assert ended.code == 0, ended.log
    said_ = engine.docker("load", "--input", str(place.workspace.archive)).stdout
    assert name in said_
    try:
        shown = engine.docker(
            "run", "--rm", "--network=none", name, "/bin/busybox", "echo", "it runs"
        )
        assert shown.stdout == "it runs\n"
    finally:
        engine.docker("image", "rm", "--force", name)
