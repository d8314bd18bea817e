"""What builds leave in a kept state and in the portable cache beside it, however they end."""

from __future__ import annotations

import shutil
import signal
import subprocess
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from tests.support.builder import MakeWorkspace, StartBuilder
from tests.support.kept import Kept, cached
from tests.support.machine import Tools

MakeKept = Callable[[], Kept]
STEPS = 5
SAYS = 'RUN ["/bin/busybox", "sh", "-c", "echo said_$((1000+234))_aloud; {then}"]\n'
"""A step that prints what no file of the project, and no argument of the step, holds."""
WORDS = "said_1234_aloud"
SAID = WORDS.encode()


@pytest.fixture
def make(
    workspace: MakeWorkspace, start_builder: StartBuilder, tools: dict[str, Tools]
) -> MakeKept:
    return lambda: Kept(workspace("root"), start_builder, tools["current"])


@pytest.fixture
def kept(make: MakeKept) -> Kept:
    return make()


def holds(directory: Path, text: bytes) -> list[Path]:
    """The files in which the text stands."""
    return [path for path in directory.rglob("*") if path.is_file() and text in path.read_bytes()]


def on_a_fresh_machine(kept: Kept, make: MakeKept) -> int:
    """How many steps are cached where nothing but the portable cache is there."""
    other = make()
    shutil.copytree(kept.place.source, other.place.source, dirs_exist_ok=True)
    shutil.copytree(kept.place.cache / "buildkit", other.place.cache / "buildkit")
    return cached(other.run())


def test_what_a_step_has_printed_is_not_kept(kept: Kept) -> None:
    dockerfile = kept.place.source / "Dockerfile"
    dockerfile.write_text(dockerfile.read_text() + SAYS.format(then="true"))
    assert WORDS in kept.run().output
    assert holds(kept.place.cache, SAID) == []


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGKILL])
def test_nor_after_a_build_that_was_ended_and_one_in_which_nothing_is_printed(
    kept: Kept, number: signal.Signals
) -> None:
    kept.run()
    dockerfile = kept.place.source / "Dockerfile"
    good = dockerfile.read_text()
    dockerfile.write_text(good + SAYS.format(then="sleep 600"))
    run = kept.start()
    run.wait_for(WORDS)
    run.send(number)
    run.wait()
    dockerfile.write_text(good)
    assert cached(kept.run()) == STEPS
    assert holds(kept.place.cache, SAID) == []


def test_what_builds_were_made_of_is_not_kept_beside_the_image(kept: Kept) -> None:
    """BuildKit's account of a build has its arguments, used or not."""
    kept.run()
    kept.run(BUILD_ARGS="NOBODY=asked_for_this")
    assert holds(kept.worker / "content", b"asked_for_this") == []


def test_builds_that_change_nothing_do_not_make_the_state_larger(kept: Kept) -> None:
    def blobs() -> int:
        return len(list((kept.worker / "content/blobs/sha256").iterdir()))

    kept.run()
    before = blobs()
    counts = []
    for _ in range(12):
        kept.run()
        counts.append(blobs())
    assert max(counts) < before + 50
    assert min(counts[-3:]) <= before + 6


def test_the_portable_cache_has_what_a_failed_build_has_built(kept: Kept, make: MakeKept) -> None:
    kept.run()
    kept.change("two")
    dockerfile = kept.place.source / "Dockerfile"
    good = dockerfile.read_text()
    dockerfile.write_text(good + 'RUN ["/bin/busybox", "false"]\n')
    assert kept.start().wait().code == 1
    dockerfile.write_text(good)
    assert cached(kept.run()) == STEPS
    assert on_a_fresh_machine(kept, make) == STEPS


def test_it_has_the_last_image_after_a_return_to_an_older_one(kept: Kept, make: MakeKept) -> None:
    for code in ("one", "two", "one"):
        kept.change(code)
        kept.run()
    assert on_a_fresh_machine(kept, make) == STEPS


def test_it_has_what_was_built_while_it_took_no_part(kept: Kept, make: MakeKept) -> None:
    kept.run()
    kept.change("two")
    kept.run(CACHE_STRATEGY="state")
    assert cached(kept.run()) == STEPS
    assert on_a_fresh_machine(kept, make) == STEPS


def test_it_has_what_a_build_could_not_finish(kept: Kept, make: MakeKept) -> None:
    """The disk for the archive is full; with room for it everything is there."""
    kept.run()
    kept.change("two")
    build = kept.place.build
    subprocess.run(["mount", "-t", "tmpfs", "-o", "size=64k", "tmpfs", build], check=True)
    try:
        assert "archive-not-written" in kept.start().wait().output
    finally:
        subprocess.run(["umount", build], check=True)
    assert cached(kept.run()) == STEPS
    assert on_a_fresh_machine(kept, make) == STEPS


@pytest.fixture
def small_disk(kept: Kept, tmp_path: Path) -> Iterator[None]:
    """The cache of ``kept`` lies on a disk of its own, of 60 MB."""
    image = tmp_path / "disk"
    with image.open("wb") as file:
        file.truncate(60_000_000)
    subprocess.run(["/sbin/mkfs.ext4", "-q", image], check=True)
    subprocess.run(["mount", "-o", "loop", image, kept.place.cache], check=True)
    yield
    subprocess.run(["umount", "--lazy", kept.place.cache], check=True)


@pytest.mark.usefixtures("small_disk")
def test_a_disk_that_is_full_of_what_is_kept_costs_what_is_kept(kept: Kept) -> None:
    dockerfile = kept.place.source / "Dockerfile"
    random = "/bin/busybox dd if=/dev/urandom of=/large bs=1M count=8"
    dockerfile.write_text(
        dockerfile.read_text() + f'RUN ["/bin/busybox", "sh", "-c", "{random} # $(cat /code)"]\n'
    )
    said = []
    for code in ("one", "two", "three", "four"):
        kept.change(code)
        said.append(kept.run().output)
    assert any("state-not-carried" in output for output in said)
    assert all("BUILT" in output for output in said)
