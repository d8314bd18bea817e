"""The publisher as an ordinary user, beside other processes of that user."""

from __future__ import annotations

import shutil
import subprocess
import tempfile
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path

import pytest

from tests.support import machine, processes, publisher
from tests.support.machine import User
from tests.support.publisher import digest_of, environment, image, scripted_env
from tests.support.registries import Kind, Registries
from tests.support.scripted_registry import FAULTS, ScriptedRegistry


@pytest.fixture
def archive(tmp_path: Path) -> Path:
    return image(tmp_path)


@pytest.fixture
def ordinary(archive: Path, unprivileged_user: User) -> Iterator[Ordinary]:
    """The archive where another user can read it, and nothing that this user can write to."""
    place = Path(tempfile.mkdtemp(prefix="plp-publish-", dir="/var/tmp"))
    place.chmod(0o755)
    shutil.copy(archive, place / "image.tar")
    (place / "image.tar").chmod(0o444)
    yield Ordinary(unprivileged_user, place / "image.tar")
    shutil.rmtree(place)


@dataclass(frozen=True, slots=True)
class Ordinary:
    """Starts programs as an ordinary user."""

    user: User
    archive: Path

    def start(self, *command: str | Path, env: Mapping[str, str]) -> subprocess.Popen[str]:
        switch = self.user.switch
        return subprocess.Popen(
            command,
            cwd="/",
            env={name: value for name, value in env.items() if "COVERAGE" not in name},
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            text=True,
            user=self.user.uid if switch else None,
            group=self.user.gid if switch else None,
            extra_groups=[] if switch else None,
        )

    def publish(self, repository: str, more: Mapping[str, str | None]) -> subprocess.Popen[str]:
        nowhere = dict.fromkeys(("HOME", "TMPDIR", "XDG_RUNTIME_DIR"), "/nonexistent")
        source = {"PYTHONPATH": str(machine.shared_source())}
        env = environment(self.archive, repository, {**more, **nowhere, **source})
        return self.start(machine.shared_python(), "-m", "publisher", env=env)


def test_an_ordinary_user_publishes_without_a_place_to_write(
    guarded_registries: Registries, ordinary: Ordinary, tmp_path: Path
) -> None:
    """As in a container: no home, no temporary directory, another user than the archive's."""
    registry = guarded_registries[Kind("docker-registry", "htpasswd")]
    with ordinary.publish(f"{registry.address}/team/ordinary", registry.env) as process:
        output, _ = process.communicate(timeout=publisher.PATIENCE)
    assert process.returncode == 0, output
    clients = registry.clients(tmp_path / "clients")
    assert set(clients.digests("team/ordinary").values()) == {digest_of(ordinary.archive)}


@pytest.mark.parametrize("name", ["environ", "mem", "maps", "fd/0"])
def test_other_processes_of_the_same_user_cannot_look_inside(
    name: str, scripted: ScriptedRegistry, ordinary: Ordinary
) -> None:
    """The password is in the environment and in memory; a step beside us may be hostile."""
    scripted.fail("ping", FAULTS["stall"], None)
    with ordinary.publish(f"{scripted.address}/app", scripted_env()) as process:
        try:
            assert processes.until(lambda: scripted.seen)
            env = {"PATH": machine.SYSTEM_PATH, "LC_ALL": "C"}
            path = f"/proc/{process.pid}/{name}"
            with ordinary.start("head", "-c1", path, env=env) as other:
                output, _ = other.communicate(timeout=publisher.PATIENCE)
            assert "Permission denied" in output
        finally:
            process.kill()
