"""A buildkitd of a test's own, as root and without the builder around it."""

from __future__ import annotations

import os
import shutil
import subprocess
import tempfile
import time
from collections.abc import Iterable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import IO

import pytest

from tests.support.machine import Tools

_READY = 30.0


class Daemon:
    """A running buildkitd of ``tools``; ``solve`` and ``forget`` talk to it by buildctl."""

    def __init__(self, tools: Tools, directory: Path) -> None:
        self.tools = tools
        self._buildctl = tools["buildctl"]
        self._address = f"unix://{directory}/sock"

    def buildctl(
        self, *arguments: str, stdout: int | IO[bytes] = subprocess.DEVNULL
    ) -> subprocess.CompletedProcess[str]:
        return subprocess.run(
            [self._buildctl, "--addr", self._address, *arguments],
            stdout=stdout,
            stderr=subprocess.PIPE,
            text=True,
            timeout=120,
            check=False,
        )

    def solve(
        self, context: Path, *options: str, stdout: int | IO[bytes] = subprocess.DEVNULL
    ) -> str:
        """Build the Dockerfile in ``context``; its plain progress comes back."""
        done = self.buildctl(
            "build",
            "--progress=plain",
            "--frontend=dockerfile.v0",
            f"--local=context={context}",
            f"--local=dockerfile={context}",
            "--opt=build-arg:SOURCE_DATE_EPOCH=0",
            *options,
            stdout=stdout,
        )
        assert done.returncode == 0, done.stderr
        return done.stderr

    def forget(self) -> None:
        """As a daemon that was just made: nothing is left of earlier builds."""
        done = self.buildctl("prune", "--all")
        assert done.returncode == 0, done.stderr


@contextmanager
def running(tools: Tools, directory: Path | None = None) -> Iterator[Daemon]:
    """Start a daemon of this version, in ``directory`` if one is given, and end it again."""
    if os.geteuid() != 0:
        pytest.skip("a daemon without rootlesskit needs root")
    directory = directory or Path(tempfile.mkdtemp(prefix="plp-", dir="/tmp"))
    log = (directory / "log").open("wb")
    process = subprocess.Popen(
        [tools["buildkitd"], "--root", directory / "root", "--addr", f"unix://{directory}/sock"],
        stdout=log,
        stderr=log,
        env=os.environ | {"PATH": f"{tools.path}:{os.environ['PATH']}"},
    )
    try:
        daemon = Daemon(tools, directory)
        deadline = time.monotonic() + _READY
        while daemon.buildctl("debug", "workers").returncode != 0:
            assert process.poll() is None, (directory / "log").read_text()
            assert time.monotonic() < deadline, (directory / "log").read_text()
            time.sleep(0.05)
        yield daemon
    finally:
        process.terminate()
        process.wait(30)
        log.close()
        shutil.rmtree(directory, ignore_errors=True)


def context(directory: Path, layers: Iterable[bytes]) -> Path:
    """A context whose Dockerfile copies each of the ``layers`` by a step of its own."""
    directory.mkdir(parents=True, exist_ok=True)
    lines = ["FROM scratch"]
    for number, data in enumerate(layers):
        (directory / f"file{number}").write_bytes(data)
        lines.append(f"COPY file{number} /")
    (directory / "Dockerfile").write_text("\n".join(lines) + "\n")
    return directory
