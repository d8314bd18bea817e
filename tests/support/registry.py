"""A real registry on a loopback port, with base images under the names Dockerfiles use."""

from __future__ import annotations

import contextlib
import shutil
import socket
import subprocess
import time
import urllib.error
import urllib.request
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


def _free_port() -> int:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        port: int = probe.getsockname()[1]
        return port


def _answers(address: str) -> bool:
    with contextlib.suppress(urllib.error.URLError, ConnectionError):
        urllib.request.urlopen(f"http://{address}/v2/", timeout=2).close()
        return True
    return False


@contextmanager
def running(storage: Path) -> Iterator[Registry]:
    """Serve ``storage`` on a free loopback port; ends with the block or with the tests."""
    program = machine.command("docker-registry")
    address = f"127.0.0.1:{_free_port()}"
    config = storage.with_name(f"{storage.name}.yml")
    config.write_text(_CONFIG.format(storage=storage, address=address))
    log = storage.with_name(f"{storage.name}.log")
    with log.open("wb") as output:
        process = subprocess.Popen(
            ["setpriv", "--pdeathsig", "KILL", program, "serve", config],
            stdout=output,
            stderr=subprocess.STDOUT,
        )
    processes.own.add(process.pid)
    try:
        deadline = time.monotonic() + 30
        while not _answers(address):
            assert process.poll() is None, log.read_text()
            assert time.monotonic() < deadline, f"No answer from the registry: {log.read_text()}"
            time.sleep(0.02)
        yield Registry(address)
    finally:
        process.kill()
        process.wait()
        processes.own.discard(process.pid)


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
