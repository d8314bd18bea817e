"""Machines that give a publication too little: it is told, and at once."""

from __future__ import annotations

import os
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

from plp_builder.errors import ResourcesExhausted
from plp_builder.process import Stop, Watch
from publisher.faults import Kind
from publisher.skopeo import Registry, Runner, inspect
from tests.support import layouts, machine

REGISTRY = Registry("127.0.0.1:1/app", "/dev/null", "", True, ())
REGISTERS = "".join(f"r{number}    0x{number:x}\n" for number in range(100))
STACKS = f"\ngoroutine 1 [running]:\nmain.main()\n{REGISTERS}"

pytestmark = pytest.mark.integration


@pytest.fixture
def watch() -> Iterator[Watch]:
    with Watch(Stop()) as watch:
        yield watch


def runner(script: str, directory: Path, watch: Watch) -> Runner:
    """With a skopeo that does what the shell script says."""
    program = directory / "skopeo"
    program.write_text(f"#!/bin/sh\n{script}\n")
    program.chmod(0o755)
    environ = {"PATH": f"{directory}:{os.environ['PATH']}"}
    return Runner(REGISTRY, environ, watch, stall_timeout=60, moved=lambda: 0, tick=lambda: None)


@pytest.mark.parametrize(
    ("said", "lack"),
    [
        ("runtime/cgo: pthread_create failed: Resource temporarily unavailable", "threads"),
        ("runtime: failed to create new OS thread (have 5 already; errno=11)", "threads"),
        ("fatal error: runtime: out of memory", "memory"),
        ("runtime: pipe failed with 24", "open files"),
    ],
)
def test_a_skopeo_that_lacks_something_is_told_by_its_first_words(
    said: str, lack: str, watch: Watch, tmp_path: Path
) -> None:
    """Behind them come the stacks of all goroutines, and all registers."""
    (tmp_path / "said").write_text(f"{said}\nSIGABRT: abort\n{STACKS}")
    starved = runner(f"cat {tmp_path}/said >&2; exit 2", tmp_path, watch)
    with pytest.raises(ResourcesExhausted, match=f"gives skopeo no more {lack}") as told:
        starved.run(inspect(REGISTRY, REGISTRY.tag("1")))
    assert told.value.why == (said,)
    assert "ulimit" in told.value.hint


def test_a_crash_is_told_by_its_first_words(watch: Watch, tmp_path: Path) -> None:
    (tmp_path / "said").write_text(f"panic: a defect\n{STACKS}")
    broken = runner(f"cat {tmp_path}/said >&2; exit 2", tmp_path, watch)
    fault = broken.run(inspect(REGISTRY, REGISTRY.tag("1"))).fault
    assert fault is not None
    assert (fault.kind, fault.said) == (Kind.UNKNOWN, ("panic: a defect",))


def test_a_real_skopeo_without_descriptors(watch: Watch, tmp_path: Path) -> None:
    starved = runner(f'ulimit -n 6; exec {machine.command("skopeo")} "$@"', tmp_path, watch)
    with pytest.raises(ResourcesExhausted, match="gives skopeo no more open files"):
        starved.run(inspect(REGISTRY, REGISTRY.tag("1")))


def publish(before: str, directory: Path, **env: str) -> subprocess.CompletedProcess[str]:
    """A publication to where no registry is, after the shell has done something ``before``."""
    archive = directory / "image.tar"
    archive.write_bytes(layouts.tar_of(layouts.image_files()))
    env = {
        "PATH": os.environ["PATH"],
        "PYTHONPATH": os.pathsep.join(path for path in sys.path if path),
        "PLP_ARTIFACT_PATH": str(archive),
        "PLP_IMAGE_REPOSITORY": "127.0.0.1:1/team/app",
        "PLP_COMMIT_SHA": "0123456789abcdef0123456789abcdef01234567",
        "PLP_REGISTRY_INSECURE": "true",
        "PLP_PUSH_RETRIES": "0",
        **env,
    }
    return subprocess.run(
        ["sh", "-c", f'{before}; exec "$0" -m publisher', sys.executable],
        env=env,
        capture_output=True,
        text=True,
        timeout=120,
        check=False,
    )


@pytest.mark.parametrize("limit", range(5, 20))
def test_a_publication_of_few_descriptors_ends_soon_and_says_why(
    limit: int, tmp_path: Path
) -> None:
    """Whatever it is that there is no descriptor for: an import, the archive, a pipe."""
    done = publish(f"ulimit -n {limit}", tmp_path)
    assert done.returncode == 1
    assert "Traceback" not in done.stderr
    # With enough of them, the registry is what is not there.
    assert ("ERROR resources-exhausted" in done.stderr) != (
        "ERROR registry-not-reachable" in done.stderr
    )


def test_a_working_directory_that_was_removed_is_no_obstacle(tmp_path: Path) -> None:
    """Only what is named relative to it has no place."""
    before = f"mkdir {tmp_path}/gone; cd {tmp_path}/gone; rmdir ../gone"
    done = publish(before, tmp_path, PLP_DRY_RUN="true", PLP_RESULT_FILE="result.json")
    assert done.returncode == 0, done.stderr
    assert "result.json could not be written" in done.stderr
