"""The portable cache under the whole builder: many builds at once, and damage of every kind."""

from __future__ import annotations

import hashlib
import json
import random
from pathlib import Path

import pytest

from tests.support import machine
from tests.support.builder import MakeWorkspace, RunBuilder, StartBuilder, Workspace

PROJECTS = 8
DOCKERFILE = """\
FROM scratch
COPY --chmod=755 busybox /bin/busybox
RUN ["/bin/busybox", "sh", "-c", "echo shared > /shared"]
COPY own /own
RUN ["/bin/busybox", "sh", "-c", "/bin/busybox cat /own /own > /twice"]
"""


def prepare(place: Workspace, own: str) -> dict[str, str]:
    """A project of five steps; the variables of its build."""
    busybox = Path(machine.command("busybox")).read_bytes()
    place.write({"Dockerfile": DOCKERFILE, "busybox": busybox, "own": own})
    return {**place.env, "SOURCE_DATE_EPOCH": "1700000000"}


def race(workspace: MakeWorkspace, start_builder: StartBuilder, rounds: int) -> None:
    """Each project changes in every round; afterwards all of them are found in the cache."""
    places = [workspace() for _ in range(PROJECTS)]
    shared = {"PLP_CACHE_PATH": str(places[0].cache)}

    def environment(number: int, round_: int) -> dict[str, str]:
        url = f"https://git.example/project-{number}"
        env = prepare(places[number], f"{number} {round_}")
        return {**env, **shared, "GIT_REPOSITORY_URL": url}

    for round_ in range(rounds):
        runs = [start_builder(environment(number, round_)) for number in range(PROJECTS)]
        for run in runs:
            result = run.wait(300)
            assert result.code == 0, result.output
            assert "cache-" not in result.stderr, result.stderr
    for number in range(PROJECTS):
        result = start_builder(environment(number, rounds - 1)).wait()
        assert "4 of 4 cached" in result.stderr, result.stderr


def test_eight_builds_at_once(workspace: MakeWorkspace, start_builder: StartBuilder) -> None:
    race(workspace, start_builder, 1)


@pytest.mark.soak
def test_eight_builds_at_once_twenty_times(
    workspace: MakeWorkspace, start_builder: StartBuilder
) -> None:
    race(workspace, start_builder, 20)


def damage(workspace: MakeWorkspace, run_builder: RunBuilder, places: int) -> None:
    """Truncate or flip a random file of the cache at a random place, and build again."""
    place = workspace()
    env = prepare(place, "content")
    draw = random.Random("damage")  # noqa: S311 - the same places each time
    cold = run_builder({**env, "PLP_CACHE_STRATEGY": "off"})
    assert cold.code == 0, cold.output
    expected = hashlib.sha256(place.archive.read_bytes()).hexdigest()
    assert run_builder(env).code == 0
    for _ in range(places):
        blobs = place.cache / "buildkit" / "blobs" / "sha256"
        files = [place.cache / "buildkit" / "index.json", *sorted(blobs.iterdir())]
        # A build that finds all in the state leaves the rest as it is: one may be empty already.
        victim = draw.choice([file for file in files if file.stat().st_size])
        data = bytearray(victim.read_bytes())
        position = draw.randrange(len(data))
        victim.chmod(0o644)
        if draw.random() < 0.5:
            victim.write_bytes(data[:position])
        else:
            data[position] ^= draw.randrange(1, 256)
            victim.write_bytes(data)
        result = run_builder(env)
        assert result.code == 0, result.output
        assert hashlib.sha256(place.archive.read_bytes()).hexdigest() == expected, victim
    assert "4 of 4 cached" in run_builder(env).stderr
    json.loads((place.cache / "buildkit" / "index.json").read_bytes())


def test_a_few_damaged_places(workspace: MakeWorkspace, run_builder: RunBuilder) -> None:
    damage(workspace, run_builder, 5)


@pytest.mark.soak
def test_a_hundred_damaged_places(workspace: MakeWorkspace, run_builder: RunBuilder) -> None:
    damage(workspace, run_builder, 100)
