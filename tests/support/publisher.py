"""Runs the publisher as its users do, in an environment of its own."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

from scripts.set_up.step import ROOT
from tests.support import layouts, machine, processes
from tests.support.layouts import Files

PATIENCE = 120.0
COMMIT = "0123456789abcdef0123456789abcdef01234567"
TAGS = {"PLP_TAG": "v1.2.3", "PLP_BRANCH": "main", "PLP_IS_DEFAULT_BRANCH": "true"}
"""A release on the default branch."""
NAMES = {"1.2.3", "1.2", "1", "main", "main-0123456", "latest"}
"""The tags that it gets."""


@dataclass(frozen=True, slots=True)
class Result:
    """How a run ended, and what it said."""

    code: int
    stderr: str


def environment(
    archive: Path, repository: str, given: Mapping[str, str | None] | None = None
) -> dict[str, str]:
    """A commit's publication of ``archive``; ``given`` adds variables, or takes them away."""
    env: dict[str, str | None] = {
        **{name: value for name, value in os.environ.items() if "COVERAGE" in name},
        "PATH": machine.SYSTEM_PATH,
        "PYTHONPATH": str(ROOT),
        "PLP_ARTIFACT_PATH": str(archive),
        "PLP_IMAGE_REPOSITORY": repository,
        "PLP_COMMIT_SHA": COMMIT,
        **(given or {}),
    }
    return {name: value for name, value in env.items() if value is not None}


def scripted_env(**more: str | None) -> dict[str, str | None]:
    """A release of ``COMMIT`` to a scripted registry that asks for a password."""
    return {
        "PLP_REGISTRY_INSECURE": "true",
        "PLP_REGISTRY_USERNAME": "publisher",
        "PLP_REGISTRY_PASSWORD": "a-password",
        **TAGS,
        **more,
    }


def write(path: Path, files: Files) -> Path:
    path.write_bytes(layouts.tar_of(files))
    return path


def image(directory: Path) -> Path:
    """An archive of one image with two layers, never the same twice."""
    layers = [os.urandom(9999), b"small"]
    return write(directory / "image.tar", layouts.image_files(layers=layers))


def top(files: Files) -> str:
    """The digest of the one entry of a layout."""
    digest: str = json.loads(files["index.json"])["manifests"][0]["digest"]
    return digest


def digest_of(archive: Path) -> str:
    """The same of an archive, as tar(1) reads it."""
    command = ["tar", "-xOf", str(archive), "index.json"]
    index = subprocess.run(command, check=True, capture_output=True).stdout
    return top({"index.json": index})


@contextmanager
def started(env: Mapping[str, str], log: Path) -> Iterator[subprocess.Popen[bytes]]:
    """A publisher that writes its standard error to ``log``; killed at the end of the block."""
    with log.open("wb") as output:
        process = subprocess.Popen(
            [sys.executable, "-m", "publisher"],
            cwd=log.parent,
            env=env,
            stdin=subprocess.DEVNULL,
            stdout=output,
            stderr=output,
            start_new_session=True,
        )
    processes.own.add(process.pid)
    try:
        yield process
    finally:
        process.kill()
        process.wait()
        processes.own.discard(process.pid)


def run(env: Mapping[str, str], directory: Path, timeout: float = PATIENCE) -> Result:
    """Run a publisher to its end; it works in ``directory``."""
    log = directory / "publisher.log"
    with started(env, log) as process:
        code = process.wait(timeout)
    return Result(code, log.read_text(errors="replace"))


def wait_for(condition: Callable[[], object], process: subprocess.Popen[bytes]) -> None:
    """Wait until it holds, while the publisher runs."""
    deadline = time.monotonic() + PATIENCE
    while not condition():
        assert process.poll() is None, f"ended with {process.returncode}"
        assert time.monotonic() < deadline, "it never came"
        time.sleep(0.005)


def end(process: subprocess.Popen[bytes], number: signal.Signals) -> tuple[int, float]:
    """Send a signal; the exit code and how many seconds it took."""
    began = time.monotonic()
    process.send_signal(number)
    return process.wait(PATIENCE), time.monotonic() - began
