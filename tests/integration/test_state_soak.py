"""A state through many kills and many changes: always the cold image, never beyond its bound."""

from __future__ import annotations

import logging
import os
import random
import signal
import time
from collections.abc import Callable
from pathlib import Path

import pytest

from tests.support import processes
from tests.support.builder import MakeWorkspace, StartBuilder
from tests.support.kept import Kept
from tests.support.machine import Tools

MakeKept = Callable[..., Kept]
LOG = logging.getLogger(__name__)
MEGABYTE = 1_000_000
_RECALL = 0.5
"""Seconds that a build takes which solves nothing."""

BUSY = """\
FROM scratch AS base
COPY --chmod=755 busybox /bin/busybox
RUN ["/bin/busybox", "sh", "-c", "/bin/busybox mkdir /data && /bin/busybox seq 1 500000 > /data/b"]
FROM base
COPY code /code
RUN --mount=type=cache,target=/kept \\
    ["/bin/busybox", "sh", "-c", "echo run >> /kept/log; /bin/busybox cat /code /data/b > /data/c"]
RUN ["/bin/busybox", "sh", "-c", "/bin/busybox cp /data/c /data/d"]
"""
"""Steps that take long enough to be killed in."""

GROWING = """\
FROM scratch
COPY --chmod=755 busybox /bin/busybox
COPY large /large
RUN --mount=type=cache,target=/k \\
    ["/bin/busybox", "sh", "-c", "echo run >> /k/log; /bin/busybox wc -l < /k/log > /runs"]
COPY code /code
RUN --mount=type=cache,target=/k \\
    ["/bin/busybox", "sh", "-c", "echo run >> /k/log; echo $(/bin/busybox wc -l < /k/log) runs"]
"""
"""A large layer below a changing one, and a cache mount that counts the runs."""


@pytest.fixture
def make(
    workspace: MakeWorkspace, start_builder: StartBuilder, tools: dict[str, Tools]
) -> MakeKept:
    def made(dockerfile: str, *, version: str = "current", user: str = "root") -> Kept:
        place = workspace(user)
        return Kept(place, start_builder, tools[version], user=user, dockerfile=dockerfile)

    return made


def size_of(directory: Path) -> int:
    """What it takes on the disk, each file once."""
    seen: dict[int, int] = {}
    for parent, directories, files in os.walk(directory):
        for name in (*directories, *files):
            try:
                status = os.lstat(os.path.join(parent, name))  # noqa: PTH118 - thousands of them
            except FileNotFoundError:
                continue
            seen[status.st_ino] = status.st_blocks * 512
    return sum(seen.values())


def kill_all(run: Callable[[], tuple[processes.Process, ...]]) -> None:
    """SIGKILL to everything at once, again until nothing is left."""
    while tree := run():
        for process in tree:
            try:
                os.kill(process.pid, signal.SIGKILL)
            except ProcessLookupError:
                continue
        time.sleep(0.01)


def kills(kept: Kept, number: int) -> None:
    """Kill that many builds of changed code, each followed by one that ends well.

    And one of code that has not changed, which asks no daemon to solve.
    """
    draw = random.Random(f"kills {number}")  # noqa: S311 - the same moments each time
    kept.run()
    began = time.monotonic()
    kept.change("0")
    kept.run()
    longest = time.monotonic() - began
    sound = 0
    for round_ in range(1, number + 1):
        kept.change(f"{round_}")
        for most in (longest, _RECALL):
            run = kept.start()
            time.sleep(draw.uniform(0, 1.1 * most))
            run.process.poll()
            kill_all(run.tree)
            run.destroy()
            assert kept.built() == kept.cold(), round_
        left = [path.name for path in kept.state.iterdir()]
        assert not [name for name in left if name.startswith("aside-")], left
        for place in ("root/runc-overlayfs/content/ingest", "layout/ingest"):
            found = kept.state / place
            assert not found.exists() or list(found.iterdir()) == [], place
        sound = round_
    assert sound == number


def test_a_few_kills(make: MakeKept) -> None:
    kills(make(BUSY), 3)


@pytest.mark.soak
@pytest.mark.timeout(7200)
@pytest.mark.parametrize(
    ("version", "user", "number"),
    [("current", "root", 50), ("compat", "root", 25), ("current", "unprivileged", 25)],
)
def test_many_kills(make: MakeKept, version: str, user: str, number: int) -> None:
    kills(make(BUSY, version=version, user=user), number)


def changes(kept: Kept, number: int, bound: int, large: int, small: int) -> list[tuple[int, int]]:
    """That many changes of the code; the sizes of both caches after each.

    ``large`` and ``small`` are the bytes of the layer that stays and of the one that changes.
    """
    draw = random.Random("changes")  # noqa: S311 - the same content each time
    kept.place.write({"large": draw.randbytes(large)})
    sizes = []
    image = large + small + 2 * MEGABYTE
    for round_ in range(number):
        kept.place.write({"code": draw.randbytes(small)})
        result = kept.run(CACHE_MAX_SIZE=str(bound))
        assert f" {round_ + 2} runs" in result.output, "the cache mount has been lost"
        found = size_of(kept.place.cache / "state"), size_of(kept.place.cache / "buildkit")
        sizes.append(found)
        LOG.info("change %d: state %d bytes, portable cache %d bytes", round_ + 1, *found)
        assert max(found) <= bound + image, sizes
    return sizes


def test_a_few_changes_stay_below_a_small_bound(make: MakeKept) -> None:
    changes(make(GROWING), 6, 60 * MEGABYTE, 8 * MEGABYTE, 4 * MEGABYTE)


@pytest.mark.soak
@pytest.mark.timeout(7200)
@pytest.mark.parametrize("version", ["current", "compat"])
def test_fifty_changes_stay_below_the_bound(make: MakeKept, version: str) -> None:
    kept = make(GROWING, version=version)
    changes(kept, 50, 1000 * MEGABYTE, 200 * MEGABYTE, 25 * MEGABYTE)
