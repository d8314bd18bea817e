"""The composite actions and plain examples with the real images in a real engine."""

from __future__ import annotations

import os
import shutil
import signal
import subprocess
import uuid
from collections.abc import Iterator, Mapping
from pathlib import Path
from threading import Thread

import pytest

from tests.support import base_images, builder, hosts, image, processes, registries
from tests.support.actions import Host, Outcome
from tests.support.builder import Workspace
from tests.support.containers import Containers
from tests.support.engine import Engine
from tests.support.machine import SYSTEM_PATH, User
from tests.support.registries import GuardedRegistry, Kind

ACTIONS = Path(__file__).parents[2] / ".github/actions"
RUNNER = 1001
"""The uid of GitHub's hosted runners."""


@pytest.fixture
def workspace() -> Iterator[Workspace]:
    made = builder.new_workspace(User("runner", RUNNER, RUNNER, switch=os.geteuid() == 0))
    yield made
    made.remove()


@pytest.fixture
def host(workspace: Workspace, engine: Engine) -> Host:
    """A runner that says of itself that it is uid 1001, as a hosted one; the engine is real."""
    programs = workspace.root / "bin"
    programs.mkdir()
    (programs / "id").write_text(f"#!/bin/sh\necho {RUNNER}\n")
    (programs / "id").chmod(0o755)
    docker = shutil.which("docker")
    assert docker is not None
    host = Host(
        workspace.root,
        f"{programs}:{Path(docker).parent}:{SYSTEM_PATH}",
        env={"DOCKER_HOST": engine.host} if engine.host else {},
        owner=RUNNER if os.geteuid() == 0 else -1,
    )
    files = {"Dockerfile": "FROM scratch\nCOPY hello /hello\n", "hello": uuid.uuid4().hex}
    for name, text in files.items():
        (host.workspace / name).write_text(text)
        host.own(host.workspace / name)
    return host


@pytest.fixture
def registry(tmp_path: Path) -> Iterator[GuardedRegistry]:
    with registries.running(Kind("registry", "htpasswd"), tmp_path / "registry") as running:
        yield running


def build(host: Host, reference: str, given: Mapping[str, str]) -> Outcome:
    for directory in ("plp-build", "plp-cache"):  # the runner makes them as its own user
        (host.temporary / directory).mkdir(exist_ok=True)
        host.own(host.temporary / directory)
    return host.run(ACTIONS / "build", {"builder-image": reference, **given})


@pytest.mark.parametrize("privileges", ["privileged", "unprivileged"])
def test_build_and_publish(
    host: Host,
    builder_image: str,
    publisher_image: str,
    registry: GuardedRegistry,
    tmp_path: Path,
    privileges: str,
) -> None:
    built = build(host, builder_image, {"privileges": privileges})
    assert built.code == 0, built.said
    archive = Path(built.outputs["archive"])
    assert built.outputs["digest"] == image.read(archive).digest
    assert archive.stat().st_uid == host.workspace.stat().st_uid
    assert registry.credentials is not None
    name = f"team/{uuid.uuid4().hex}"
    published = host.run(
        ACTIONS / "publish",
        {
            "publisher-image": publisher_image,
            "image-repository": f"{registry.address}/{name}",
            "registry-username": registry.credentials[0],
            "registry-password": registry.credentials[1],
            "registry-insecure": "true",
            "docker-options": "--network=host",
        },
    )
    assert published.code == 0, published.said
    assert published.outputs["digest"] == built.outputs["digest"]
    assert "### Published" in published.summary
    found = registry.clients(tmp_path / "clients").digests(name)
    tags = ("main", "main-0123456", "latest")
    assert found == dict.fromkeys(tags, built.outputs["digest"])


def test_a_second_build_finds_the_cache(host: Host, builder_image: str) -> None:
    first, second = (build(host, builder_image, {"source-date-epoch": "1"}) for _ in range(2))
    assert (first.code, second.code) == (0, 0), first.said + second.said
    assert "1 of 1 cached" in second.said
    assert first.outputs == second.outputs


def test_secrets_and_odd_paths(host: Host, builder_image: str) -> None:
    source = host.workspace / 'a "b", c'
    source.mkdir()
    (host.workspace / "Dockerfile").rename(source / "Dockerfile")
    (host.workspace / "hello").rename(source / "hello")
    host.env["NPM_TOKEN"] = "secret-value"
    given = {"source-path": source.name, "secrets": "id=npm,env=NPM_TOKEN"}
    ended = build(host, builder_image, {**given, "environment": "NPM_TOKEN"})
    assert ended.code == 0, ended.said
    assert "secret-value" not in ended.said
    refused = build(host, builder_image, given)
    assert refused.code == 1
    assert "NPM_TOKEN" in refused.said


def test_a_failed_build_fails_the_step(host: Host, builder_image: str) -> None:
    ended = build(host, builder_image, {"dockerfile": "absent"})
    assert ended.code == 1
    assert "Dockerfile not found" in ended.said
    assert ended.outputs["digest"] == ""


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM], ids=lambda each: each.name)
def test_a_cancelled_job_leaves_no_container(
    host: Host, builder_image: str, engine: Engine, number: signal.Signals
) -> None:
    shutil.copy(base_images.static_busybox(), host.workspace / "busybox")
    (host.workspace / "Dockerfile").write_text(
        'FROM scratch\nCOPY busybox /bin/busybox\nRUN ["/bin/busybox", "sleep", "600"]\n'
    )
    given = {"builder-image": builder_image, "docker-options": f"--label=test={host.root.name}"}
    steps = host.start(ACTIONS / "build", given)
    outcomes: list[Outcome] = []
    thread = Thread(target=lambda: outcomes.append(steps.finish(120)))
    thread.start()
    log = host.root / "steps/log"
    processes.until(lambda: log.exists() and "RUN" in log.read_text(errors="replace"), 60)
    assert steps.process is not None
    steps.process.send_signal(number)
    thread.join(60)
    assert outcomes[0].code == 143, outcomes[0].said
    label = f"label=test={host.root.name}"
    assert engine.docker("ps", "--all", "--quiet", "--filter", label).stdout == ""
    assert list((host.temporary / "plp-build").iterdir()) == []


def test_the_script_for_plain_docker(
    host: Host,
    builder_image: str,
    publisher_image: str,
    start: Containers,
    registry: GuardedRegistry,
    tmp_path: Path,
) -> None:
    """As it stands, but for the network: the tests' registry listens on the machine alone."""
    for path in (host.workspace, *host.workspace.iterdir()):
        os.chown(path, os.geteuid(), os.getegid())  # git reads no clone of somebody else
    for arguments in (
        ["init", "-q", "-b", "main"],
        ["add", "."],
        ["-c", "user.name=a", "-c", "user.email=a@example.com", "commit", "-q", "-m", "a"],
    ):
        subprocess.run(["git", *arguments], cwd=host.workspace, check=True)
    assert registry.credentials is not None
    name = f"team/{uuid.uuid4().hex}"
    script = hosts.read("docker.sh").replace("--read-only", "--network=host --read-only")
    assert builder_image == "plp-container-image-builder:latest"
    done = subprocess.run(
        ["sh", "-c", script, "docker.sh", str(host.workspace), f"{registry.address}/{name}"],
        check=False,
        capture_output=True,
        text=True,
        env={
            **host.env,
            "PATH": f"{host.path.partition(':')[2]}",
            "HOME": str(tmp_path),
            "PLP_REGISTRY_USERNAME": registry.credentials[0],
            "PLP_REGISTRY_PASSWORD": registry.credentials[1],
            "PLP_REGISTRY_INSECURE": "true",
        },
    )
    try:
        assert done.returncode == 0, done.stdout + done.stderr
        assert f"Loaded image: {registry.address}/{name}:local" in done.stdout
        found = registry.clients(tmp_path / "clients").digests(name)
        assert len(found) == 2
        assert len(set(found.values())) == 1
        inspected = start.engine.docker("image", "inspect", f"{registry.address}/{name}:local")
        assert name in inspected.stdout
    finally:
        start.engine.docker("image", "rm", "-f", f"{registry.address}/{name}:local", check=False)
        start.engine.docker("volume", "rm", "-f", "plp-cache", check=False)
