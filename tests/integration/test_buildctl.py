"""A call of buildctl before the daemon serves."""

from __future__ import annotations

import os
import signal
import socket
import tempfile
import time
from collections.abc import Iterator
from pathlib import Path

import pytest

from plp_builder.buildkit import Endpoint
from plp_builder.buildkit.buildctl import Call
from plp_builder.process import Stop, Watch
from tests.support import daemon
from tests.support.machine import Tools

PATIENCE = 60.0


@pytest.fixture
def watch() -> Iterator[Watch]:
    with Watch(Stop()) as watch:
        yield watch


@pytest.fixture
def deaf() -> Iterator[socket.socket]:
    """A socket that listens and whose owner never answers."""
    short = tempfile.TemporaryDirectory(dir="/tmp", ignore_cleanup_errors=True)
    with short as directory, socket.socket(socket.AF_UNIX) as server:
        server.bind(f"{directory}/sock")
        server.listen()
        yield server


def call(tools: Tools, server: socket.socket, watch: Watch) -> Call:
    return Call(
        Endpoint(f"unix://{server.getsockname()}"),
        ["debug", "workers"],
        env={"PATH": f"{tools.path}:{os.environ['PATH']}"},
        stdout=None,
        watch=watch,
        early=True,
    )


def test_it_waits_for_a_daemon_that_listens_and_can_be_ended(
    buildkit: Tools, deaf: socket.socket, watch: Watch
) -> None:
    early = call(buildkit, deaf, watch)
    pid = early._child.pid
    deaf.accept()[0].close()  # it has called, and calls again
    assert early._child.poll() is None
    began = time.monotonic()
    early.end()
    early.end()
    assert time.monotonic() - began < PATIENCE
    with pytest.raises(ProcessLookupError):
        os.kill(pid, signal.SIG_DFL)


def test_it_meets_the_daemon_that_takes_the_place_of_the_first(
    buildkit: Tools, deaf: socket.socket, watch: Watch
) -> None:
    """As where the first daemon was not allowed the process sandbox."""
    path = Path(deaf.getsockname())
    early = call(buildkit, deaf, watch)
    deaf.accept()[0].close()
    deaf.close()
    path.unlink()
    with daemon.running(buildkit, path.parent):
        said: list[bytes] = []
        code = early.finish(lambda line, _: said.append(line), lambda _: None)
    assert code == 0, said
