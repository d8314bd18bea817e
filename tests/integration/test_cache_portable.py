"""The portable cache with real builds: shared, damaged, full and raced for."""

from __future__ import annotations

import os
import subprocess
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import pytest

from plp_builder.cache import index
from plp_builder.errors import CacheDamaged, CacheNotUsable
from tests.support import machine
from tests.support.daemon import Daemon, context, running
from tests.support.portable_build import Built


@pytest.fixture(scope="module")
def daemons() -> Iterator[dict[str, Daemon]]:
    with (
        running(machine.tools("current")) as current,
        running(machine.tools("compat")) as compat,
    ):
        yield {"current": current, "compat": compat}


@pytest.fixture(params=["current", "compat"])
def daemon(request: pytest.FixtureRequest, daemons: dict[str, Daemon]) -> Daemon:
    """Each version of BuildKit, with nothing left of earlier builds."""
    daemons[request.param].forget()
    return daemons[request.param]


@pytest.fixture
def source(tmp_path: Path) -> Path:
    return context(tmp_path / "source", [b"one" * 100_000, b"two"])


def test_a_fresh_daemon_takes_its_steps_from_the_cache(
    daemon: Daemon, source: Path, tmp_path: Path
) -> None:
    cold = Built(daemon, source, tmp_path / "cache")
    daemon.forget()
    warm = Built(daemon, source, tmp_path / "cache")
    assert (cold.cached, warm.cached) == (0, 2)
    assert warm.digest == cold.digest
    assert cold.warnings + warm.warnings == []


def test_another_version_takes_them_too(
    daemons: dict[str, Daemon], source: Path, tmp_path: Path
) -> None:
    for daemon in daemons.values():
        daemon.forget()
    made, used = daemons["compat"], daemons["current"]
    cold = Built(made, source, tmp_path / "cache")
    warm = Built(used, source, tmp_path / "cache")
    made.forget()
    back = Built(made, source, tmp_path / "cache")
    assert (cold.cached, warm.cached, back.cached) == (0, 2, 2)


def test_an_image_never_built_before_takes_the_layers_of_others(
    daemon: Daemon, source: Path, tmp_path: Path
) -> None:
    Built(daemon, source, tmp_path / "cache", "one")
    daemon.forget()
    assert Built(daemon, source, tmp_path / "cache", "two").cached == 2


def files_of(cache: Path) -> list[Path]:
    found = [path for path in (cache / "buildkit").rglob("*") if path.is_file()]
    return sorted(path for path in found if not path.name.startswith("."))


def damage_round(daemon: Daemon, source: Path, cache: Path, number: int, cold: str) -> None:
    """Damage one file of the cache in one way; the next build must not care."""
    files = files_of(cache)
    path = files[number % len(files)]
    data = bytearray(path.read_bytes())
    path.chmod(0o644)
    assert data, path
    position = (number * 7919) % len(data)
    if number // len(files) % 2:
        path.write_bytes(data[:position])
    else:
        data[position] ^= 1 << number % 8
        path.write_bytes(data)
    daemon.forget()
    built = Built(daemon, source, cache)
    assert built.digest == cold, (path, position)
    assert all(isinstance(warning, CacheDamaged) for warning in built.warnings)


def test_a_damaged_cache_gives_the_cold_image(daemon: Daemon, source: Path, tmp_path: Path) -> None:
    cold = Built(daemon, source, tmp_path / "cache").digest
    for number in range(len(files_of(tmp_path / "cache")) * 2):
        damage_round(daemon, source, tmp_path / "cache", number, cold)
    daemon.forget()
    assert Built(daemon, source, tmp_path / "cache").cached == 2


@pytest.mark.soak
def test_a_cache_damaged_at_a_hundred_places(daemon: Daemon, source: Path, tmp_path: Path) -> None:
    cold = Built(daemon, source, tmp_path / "cache").digest
    for number in range(100):
        damage_round(daemon, source, tmp_path / "cache", number, cold)


def race(daemon: Daemon, tmp_path: Path, rounds: int) -> None:
    """Eight projects build at once, each with a step of its own that changes every round."""
    cache = tmp_path / "cache"
    tags = [f"p{project}" for project in range(8)]

    def build(tag: str) -> Built:
        return Built(daemon, tmp_path / tag, cache, tag)

    with ThreadPoolExecutor(len(tags)) as pool:
        for number in range(rounds):
            for tag in tags:
                context(tmp_path / tag, [b"shared", f"{tag} {number}".encode()])
            daemon.forget()
            assert [built.warnings for built in pool.map(build, tags)] == [[] for _ in tags]
            kept = index.read(cache / "buildkit")
            assert sorted(map(index.tag_of, kept.entries)) == tags
    daemon.forget()
    assert [build(tag).cached for tag in tags[:1]] == [2]
    assert not list((cache / "buildkit").glob(".staging-*"))


def test_eight_builds_at_once_lose_nothing(daemon: Daemon, tmp_path: Path) -> None:
    race(daemon, tmp_path, 2)


@pytest.mark.soak
def test_eight_builds_at_once_twenty_times(daemon: Daemon, tmp_path: Path) -> None:
    race(daemon, tmp_path, 20)


@pytest.fixture
def small(tmp_path: Path) -> Iterator[Path]:
    """A file system of 600 kB, full as soon as a layer comes."""
    place = tmp_path / "small"
    place.mkdir()
    options = ["-t", "tmpfs", "-o", "size=600k", "tmpfs", str(place)]
    if subprocess.run(["mount", *options], capture_output=True, check=False).returncode:
        pytest.skip("no file system can be mounted here")
    yield place
    subprocess.run(["umount", place], check=True)


def test_a_full_disk_costs_a_warning_and_nothing_else(
    daemon: Daemon, small: Path, tmp_path: Path
) -> None:
    source = context(tmp_path / "source", [os.urandom(1_000_000)])
    built = Built(daemon, source, small)
    assert [type(warning) for warning in built.warnings] == [CacheNotUsable]
    assert {path.name for path in (small / "buildkit").iterdir()} == {".lock"}
