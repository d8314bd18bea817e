"""A real registry on a loopback port, with base images under the names Dockerfiles use."""

from __future__ import annotations

import contextlib
import shutil
import socket
import subprocess
import tempfile
import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

from scripts.set_up.step import cache_home
from tests.support import base_images, machine, processes

_CONFIG = """\
version: 0.1
log: {{level: error}}
storage:
  filesystem: {{rootdirectory: "{storage}"}}
  delete: {{enabled: true}}
http: {{addr: "{address}"}}
"""


@dataclass(frozen=True, slots=True)
class Registry:
    """A registry that listens at ``address`` (``127.0.0.1:PORT``), without TLS."""

    address: str

    @property
    def env(self) -> dict[str, str]:
        """Builder variables that make it the mirror of docker.io."""
        return {
            "PLP_REGISTRY_MIRRORS": f"docker.io={self.address}",
            "PLP_INSECURE_REGISTRIES": self.address,
        }

    def buildkitd_config(self) -> str:
        """The same as a buildkitd.toml, for tests that start buildkitd themselves."""
        return (
            f'[registry."docker.io"]\n  mirrors = ["{self.address}"]\n'
            f'[registry."{self.address}"]\n  http = true\n'
        )


def free_port(host: str = "127.0.0.1") -> int:
    """A port of a local address that nobody listens on just now."""
    with socket.socket() as probe:
        probe.bind((host, 0))
        port: int = probe.getsockname()[1]
        return port


def _listens(address: str) -> bool:
    host, _, port = address.rpartition(":")
    with contextlib.suppress(OSError):
        socket.create_connection((host, int(port)), timeout=2).close()
        return True
    return False


@contextmanager
def process(program: str, config: Path, address: str, log: Path) -> Iterator[None]:
    """Run a registry with ``config`` until the block ends, or the tests do; waits until it listens.

    A connection is all that is tried, so the log holds no request that a test did not make.
    """
    with log.open("wb") as output:
        started = subprocess.Popen(
            ["setpriv", "--pdeathsig", "KILL", machine.command(program), "serve", config],
            stdout=output,
            stderr=subprocess.STDOUT,
            env={"PATH": machine.SYSTEM_PATH, "OTEL_TRACES_EXPORTER": "none"},
        )
    processes.own.add(started.pid)
    try:
        deadline = time.monotonic() + 60
        while not _listens(address):
            assert started.poll() is None, log.read_text()
            assert time.monotonic() < deadline, f"No answer from the registry: {log.read_text()}"
            time.sleep(0.02)
        yield
    finally:
        started.kill()
        started.wait()
        processes.own.discard(started.pid)


@contextmanager
def running(storage: Path, host: str = "127.0.0.1") -> Iterator[Registry]:
    """Serve ``storage`` on a free port of ``host``; ends with the block or with the tests."""
    port = free_port(host)
    address = f"{host}:{port}"
    config = storage.with_name(f"{storage.name}-{port}.yml")
    config.write_text(_CONFIG.format(storage=storage, address=address))
    log = storage.with_name(f"{storage.name}-{port}.log")
    with process("docker-registry", config, address, log):
        yield Registry(address)


def prepared_storage() -> Path:
    """The storage of a registry that has the base images; made once for a recipe."""

    def fill(work: Path) -> None:
        with running(work / "storage") as registry:
            for image in base_images.IMAGES:
                image.push(registry.address)

    return machine.made_once(cache_home() / "registry" / base_images.key(), fill) / "storage"


@contextmanager
def with_base_images(directory: Path) -> Iterator[Registry]:
    """A registry of one's own below ``directory``, filled with the base images."""
    storage = directory / "registry"
    shutil.copytree(prepared_storage(), storage)
    with running(storage) as registry:
        yield registry


@contextmanager
def with_all_base_images() -> Iterator[Registry]:
    """The same for the project's own Dockerfile, with BuildKit's images; for reading only."""

    def fill(work: Path) -> None:
        shutil.copytree(prepared_storage(), work / "storage")
        with running(work / "storage") as registry:
            for image in base_images.buildkit_images():
                image.push(registry.address)

    name = f"all-{base_images.buildkit_key()}"
    kept = machine.made_once(cache_home() / "registry" / name, fill) / "storage"
    with tempfile.TemporaryDirectory(prefix="plp-registry-") as directory:
        storage = Path(directory) / "storage"
        storage.symlink_to(kept)
        with running(storage) as registry:
            yield registry
