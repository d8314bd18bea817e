"""A Docker engine: the machine's own if one runs, else one started for this test run."""

from __future__ import annotations

import json
import os
import shutil
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

from tests.support import base_images, capable_runc, machine, processes

_PROBE = "plp-probe:latest"


@dataclass(frozen=True, slots=True)
class Engine:
    """A Docker engine that answers at ``host`` (empty: where the client looks by itself)."""

    host: str = ""

    def docker(self, *arguments: str, check: bool = True) -> subprocess.CompletedProcess[str]:
        """Run the docker client; with ``check`` a failure fails the test with its output."""
        where = ["--host", self.host] if self.host else []
        done = subprocess.run(
            [machine.command("docker"), *where, *arguments],
            check=False,
            capture_output=True,
            text=True,
        )
        assert not check or done.returncode == 0, f"docker {arguments}: {done.stderr}"
        return done

    def answers(self) -> bool:
        """Whether the engine can be used."""
        done = self.docker("version", "--format", "{{.Server.Version}}", check=False)
        return done.returncode == 0

    def runs_privileged(self) -> bool:
        """Whether a plain `docker run --privileged` starts."""
        rootfs = base_images.busybox_rootfs()
        self.docker("import", str(rootfs), _PROBE)
        try:
            run = ("run", "--rm", "--privileged", "--network=none", _PROBE, "/bin/true")
            return self.docker(*run, check=False).returncode == 0
        finally:
            self.docker("image", "rm", "--force", _PROBE, check=False)


def _wrapper(directory: Path) -> Path:
    """An executable that runs capable_runc with this Python, found without any PATH."""
    script = shutil.copy(capable_runc.__file__, directory / "capable_runc.py")
    path = directory / "capable-runc"
    path.write_text(f'#!/bin/sh\nexec "{sys.executable}" "{script}" "$@"\n')
    path.chmod(0o755)
    return path


def _configuration(directory: Path, *, limited: bool) -> Path:
    configuration: dict[str, object] = {}
    if limited:
        configuration["runtimes"] = {"capable": {"path": str(_wrapper(directory))}}
        configuration["default-runtime"] = "capable"
    path = directory / "daemon.json"
    path.write_text(json.dumps(configuration))
    return path


@contextmanager
def _started(directory: Path, *, limited: bool) -> Iterator[Engine]:
    dockerd = machine.command("dockerd")
    # Sockets need short paths, and pytest's directories have long ones.
    runtime = Path(tempfile.mkdtemp(prefix="plp-e-", dir="/tmp"))
    engine = Engine(f"unix://{runtime}/docker.sock")
    log = directory / "dockerd.log"
    bridge = Path("/sys/class/net/docker0")
    had_bridge = bridge.exists()
    argv = [
        dockerd,
        f"--config-file={_configuration(directory, limited=limited)}",
        f"--host={engine.host}",
        f"--data-root={directory / 'data'}",
        f"--exec-root={runtime / 'exec'}",
        f"--pidfile={runtime / 'dockerd.pid'}",
    ]
    with log.open("ab") as output:
        process = subprocess.Popen(argv, stdout=output, stderr=subprocess.STDOUT)
    processes.own.add(process.pid)
    try:
        deadline = time.monotonic() + 60
        while not engine.answers():
            if process.poll() is not None or time.monotonic() > deadline:
                tail = log.read_text(errors="replace")[-1500:]
                machine.missing(f"a Docker engine (dockerd did not start: {tail})")
            time.sleep(0.1)
        yield engine
    finally:
        process.terminate()
        try:
            process.wait(30)
        except subprocess.TimeoutExpired:
            process.kill()
            process.wait()
        processes.own.discard(process.pid)
        # The engine itself leaves the network namespace of containers without a network.
        for point in processes.mounts_below(runtime):
            subprocess.run(["umount", point], check=False)
        shutil.rmtree(runtime, ignore_errors=True)
        if bridge.exists() and not had_bridge:
            subprocess.run(["ip", "link", "delete", bridge.name], check=False)


@contextmanager
def available(directory: Path) -> Iterator[Engine]:
    """An engine that starts privileged containers; ends what it started, and only that."""
    own = Engine()
    if shutil.which("docker") and own.answers():
        yield own
        return
    if os.geteuid() != 0:
        machine.missing("a running Docker engine, or root to start one")
    with _started(directory, limited=False) as engine:
        works = engine.runs_privileged()
        if works:
            yield engine
    if not works:
        with _started(directory, limited=True) as engine:
            if not engine.runs_privileged():
                machine.missing("a Docker engine that starts privileged containers")
            yield engine
