"""The composite actions: their steps run for real, with a docker that runs the programs natively.

What only an engine can show (mounts, users, privileges) is in tests/e2e.
"""

from __future__ import annotations

import json
import shlex
import signal
import sys
import uuid
from collections.abc import Mapping
from pathlib import Path
from threading import Thread

import pytest

from plp_builder import __version__
from tests.support import docker_stand_in, image, machine, processes
from tests.support.actions import Host, Outcome
from tests.support.machine import Tools
from tests.support.registries import Kind, Registries

ACTIONS = Path(__file__).parents[2] / ".github/actions"
BUILD, PUBLISH = ACTIONS / "build", ACTIONS / "publish"
SHA = "0123456789abcdef0123456789abcdef01234567"


class Runner:
    """A runner whose docker is a stand-in, and what that was asked for."""

    def __init__(self, root: Path, path: str) -> None:
        self.calls_file = root / "calls"
        self.calls_file.touch()
        docker = root / "bin/docker"
        docker.parent.mkdir()
        start = shlex.join([sys.executable, docker_stand_in.__file__])
        docker.write_text(f'#!/bin/sh\nexec {start} "$@"\n')
        docker.chmod(0o755)
        self.docker = docker
        self.host = Host(
            root / "a runner, with a comma",
            f"{docker.parent}:{path}",
            env={"DOCKER_STAND_IN_LOG": str(self.calls_file)},
        )

    @property
    def calls(self) -> list[list[str]]:
        return [json.loads(line) for line in self.calls_file.read_text().splitlines()]

    def write(self, files: Mapping[str, str]) -> None:
        for name, text in files.items():
            (self.host.workspace / name).write_text(text)

    def build(self, **given: str) -> Outcome:
        return self.host.run(BUILD, {name.replace("_", "-"): text for name, text in given.items()})

    def publish(self, **given: str) -> Outcome:
        named = {name.replace("_", "-"): text for name, text in given.items()}
        return self.host.run(PUBLISH, named)


@pytest.fixture
def runner(tmp_path: Path, tools: Mapping[str, Tools]) -> Runner:
    return Runner(tmp_path, tools["current"].path)


def test_a_build_tells_its_archive_and_digest(runner: Runner) -> None:
    runner.write({"Dockerfile": "FROM scratch\nCOPY hello /hello\n", "hello": "hello"})
    outcome = runner.build()
    assert outcome.code == 0, outcome.said
    archive = runner.host.temporary / "plp-build/container-image.tar"
    read = image.read(archive)
    assert outcome.outputs == {"archive": str(archive), "digest": read.digest}
    assert f"`{read.digest}`" in outcome.summary
    assert f"{archive.stat().st_size} bytes" in outcome.summary
    assert read.files["hello"] == b"hello"
    annotations = read.manifest["annotations"]
    assert annotations["org.opencontainers.image.source"] == "https://github.com/Octo/Project"
    assert annotations["org.opencontainers.image.revision"] == SHA
    (build, look) = runner.calls
    assert "--privileged" in build
    assert f'type=bind,"src={runner.host.workspace}",dst=/source,readonly' in build
    assert build[-1] == f"ghcr.io/octo/plp-container-image-builder:{__version__}"
    assert {"--cap-drop=ALL", "--read-only", "--network=none"} <= set(look)


def test_a_second_build_finds_the_cache(runner: Runner) -> None:
    runner.write({"Dockerfile": "FROM scratch\nCOPY Dockerfile /a\n"})
    first = runner.build(cache_path="kept", source_date_epoch="1700000000")
    second = runner.build(cache_path="kept", source_date_epoch="1700000000")
    assert (first.code, second.code) == (0, 0), second.said
    assert "1 of 1 cached" in second.said
    assert first.outputs == second.outputs
    assert (runner.host.workspace / "kept/buildkit").is_dir()


def test_values_arrive_as_they_are(runner: Runner, tmp_path: Path) -> None:
    """Nothing of a workflow becomes part of a script, or of another value."""
    bad = f"$(touch {tmp_path}/a) `touch {tmp_path}/b` ; touch {tmp_path}/c \"'\\ ${{{{ x }}}} *"
    runner.write({"Dockerfile": "FROM scratch\nARG NOTE\nLABEL note=${NOTE}\nCOPY * /\n"})
    outcome = runner.build(
        build_args=f"NOTE={bad}\nOTHER=x", labels=f"org.example.bad={bad}", image="example/app:1"
    )
    assert outcome.code == 0, outcome.said
    config = image.read(Path(outcome.outputs["archive"])).config["config"]
    assert config["Labels"]["note"] == bad
    assert config["Labels"]["org.example.bad"] == bad
    assert not [path for name in "abc" if (path := tmp_path / name).exists()]


def test_secrets_come_from_the_named_variables_alone(runner: Runner) -> None:
    runner.write({"Dockerfile": "FROM scratch\nCOPY Dockerfile /a\n"})
    runner.host.env |= {"NPM_TOKEN": "secret-value-1", "OTHER_TOKEN": "secret-value-2"}
    outcome = runner.build(secrets="id=npm,env=NPM_TOKEN", environment="NPM_TOKEN\n")
    assert outcome.code == 0, outcome.said
    build = runner.calls[0]
    assert [build[at + 1] for at, word in enumerate(build) if word == "--env"][-1] == "NPM_TOKEN"
    assert "OTHER_TOKEN" not in build
    everything = outcome.said + outcome.summary + runner.calls_file.read_text()
    assert "secret-value" not in everything
    without = runner.build(secrets="id=npm,env=NPM_TOKEN")
    assert without.code == 1
    assert "NPM_TOKEN" in without.said


def test_the_unprivileged_form(runner: Runner) -> None:
    runner.write({"Dockerfile": "FROM scratch\nCOPY Dockerfile /a\n"})
    outcome = runner.build(
        privileges="unprivileged",
        builder_image="registry.example.com/builder@sha256:" + "0" * 64,
        docker_options="--label=a b\n--network=host\n",
    )
    assert outcome.code == 0, outcome.said
    build = runner.calls[0]
    assert "--privileged" not in build
    assert {"--security-opt=seccomp=unconfined", "--security-opt=apparmor=unconfined"} <= set(build)
    assert build[-3:] == [
        *("--label=a b", "--network=host", "registry.example.com/builder@sha256:" + "0" * 64)
    ]


@pytest.mark.parametrize(
    ("environment", "wanted", "asked"),
    [
        ("github-hosted", "auto", True),
        ("self-hosted", "auto", False),
        ("self-hosted", "true", True),
        ("github-hosted", "false", False),
    ],
)
def test_user_namespaces_are_allowed_where_the_runner_lives_for_one_job(
    runner: Runner, tmp_path: Path, environment: str, wanted: str, *, asked: bool
) -> None:
    sudo = runner.docker.with_name("sudo")
    sudo.write_text(f'#!/bin/sh\necho "$@" >>{shlex.quote(str(tmp_path / "sudo"))}\n')
    sudo.chmod(0o755)
    runner.host.environment = environment
    runner.build(allow_user_namespaces=wanted, source_path="absent")
    switch = Path("/proc/sys/kernel/apparmor_restrict_unprivileged_userns")
    restricted = switch.exists() and switch.read_text().strip() != "0"
    assert (tmp_path / "sudo").exists() == (asked and restricted)


def test_no_archive_no_outputs(runner: Runner) -> None:
    """Also where an older archive lies in the directory."""
    runner.write({"Dockerfile": "FROM scratch\nCOPY Dockerfile /a\n"})
    assert runner.build().code == 0
    outcome = runner.build(outputs="none")
    assert outcome.code == 0, outcome.said
    assert outcome.outputs == {"archive": "", "digest": ""}
    assert outcome.summary == ""


def test_a_failed_build_fails_the_step(runner: Runner) -> None:
    outcome = runner.build(dockerfile="absent/Dockerfile")
    assert outcome.code == 1
    assert "Dockerfile not found" in outcome.said
    assert outcome.outputs == {"archive": "", "digest": ""}
    assert len(runner.calls) == 1


@pytest.mark.parametrize(
    ("given", "says"),
    [
        ({"privileges": "none"}, "::error::privileges: none is neither"),
        ({"environment": "A=b"}, "::error::environment: A=b is no name"),
        ({"source-path": "absent"}, "::error::source-path: there is no directory"),
        ({"build-path": "a\n::warning::b"}, "::error::a path must be a single line"),
        ({"environment": "100%\n"}, "::error::environment: 100%25 is no name"),
        ({"docker-config": "absent"}, "::error::docker-config: there is no directory"),
    ],
)
def test_what_cannot_be_used_is_told_before_anything_runs(
    runner: Runner, given: Mapping[str, str], says: str
) -> None:
    outcome = runner.host.run(BUILD, given)
    assert outcome.code == 1
    assert says in outcome.said
    assert "::warning::" not in outcome.said.splitlines()
    assert runner.calls == []


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM], ids=lambda each: each.name)
def test_a_cancelled_job_stops_the_container(
    runner: Runner, tmp_path: Path, number: signal.Signals
) -> None:
    runner.docker.write_text(
        f"#!/bin/sh\ncd {shlex.quote(str(tmp_path))}\n"
        "trap 'echo > stopped; exit 143' TERM\necho > started\nwhile :; do sleep 0.05; done\n"
    )
    steps = runner.host.start(BUILD, {})
    outcomes: list[Outcome] = []
    thread = Thread(target=lambda: outcomes.append(steps.finish(60)))
    thread.start()
    processes.until((tmp_path / "started").exists, 30)
    assert steps.process is not None
    steps.process.send_signal(number)
    thread.join(60)
    assert outcomes[0].code == 143, outcomes[0].said
    assert (tmp_path / "stopped").exists()


def built(runner: Runner) -> str:
    """Builds something; returns its digest."""
    runner.write({"Dockerfile": "FROM scratch\nCOPY id /\n", "id": uuid.uuid4().hex})
    outcome = runner.build()
    assert outcome.code == 0, outcome.said
    return outcome.outputs["digest"]


PULL_REQUEST = {
    "event": {
        "pull_request": {"number": 42, "head": {"sha": "f" * 40}},
        "repository": {"default_branch": "main"},
    },
    "ref_name": "42/merge",
}


@pytest.mark.parametrize(
    ("github", "tags"),
    [
        ({}, ["main-0123456", "main", "latest"]),
        ({"ref_name": "feature/a"}, ["feature-a-0123456", "feature-a"]),
        ({"ref_type": "tag", "ref_name": "v1.2.3"}, ["1.2.3", "1.2", "1"]),
        (PULL_REQUEST, ["pr-42-fffffff", "pr-42"]),
        ({**PULL_REQUEST, "ref_name": "main"}, ["pr-42-fffffff", "pr-42"]),
    ],
    ids=["default-branch", "branch", "version", "pull-request", "pull-request-target"],
)
def test_what_was_built_is_published(
    runner: Runner,
    guarded_registries: Registries,
    tmp_path: Path,
    github: Mapping[str, str],
    tags: list[str],
) -> None:
    registry = guarded_registries[Kind("registry", "htpasswd")]
    digest = built(runner)
    runner.host.github |= github
    assert registry.credentials is not None
    name = f"team/{uuid.uuid4().hex}"
    outcome = runner.publish(
        image_repository=f"{registry.address}/{name}",
        registry_username=registry.credentials[0],
        registry_password=registry.credentials[1],
        registry_insecure="true",
    )
    assert outcome.code == 0, outcome.said
    repository = f"{registry.address}/{name}"
    assert outcome.outputs["digest"] == digest
    assert outcome.outputs["image"] == f"{repository}@{digest}"
    assert set(outcome.outputs["tags"].splitlines()) == {f"{repository}:{tag}" for tag in tags}
    assert "### Published" in outcome.summary
    found = registry.clients(tmp_path / "clients").digests(name)
    assert found == dict.fromkeys(tags, digest)
    publish = runner.calls[-1]
    assert publish[-1] == f"ghcr.io/octo/plp-container-image-publisher:{__version__}"
    assert {"--read-only", "--cap-drop=ALL", "--security-opt=no-new-privileges"} <= set(publish)
    assert "--privileged" not in publish
    assert registry.credentials[1] not in runner.calls_file.read_text() + outcome.said


def test_credentials_and_trust_are_mounted(
    runner: Runner, guarded_registries: Registries, tmp_path: Path
) -> None:
    registry = guarded_registries[Kind("registry", "tls")]
    digest = built(runner)
    clients = registry.clients(tmp_path / "clients")
    clients.environment()  # writes config.json
    name = f"team/{uuid.uuid4().hex}"
    outcome = runner.publish(
        image_repository=f"{registry.address}/{name}",
        docker_config=str(tmp_path / "clients"),
        registry_ca_path=str(registry.authority),
        extra_tags="extra",
    )
    assert outcome.code == 0, outcome.said
    assert clients.digests(name) == dict.fromkeys(
        ["main-0123456", "main", "latest", "extra"], digest
    )


def test_publishing_nothing_fails(runner: Runner) -> None:
    outcome = runner.publish(image_repository="localhost:1/a")
    assert outcome.code == 1
    assert "::error::artifact-path: there is no file or directory" in outcome.said
    assert runner.calls == []


def test_a_failure_of_the_publisher_fails_the_step(runner: Runner) -> None:
    """Its exit code says why: 3 is an archive that is not valid."""
    (runner.host.workspace / "container-image.tar").write_bytes(b"x")
    outcome = runner.publish(image_repository="localhost:1/a", artifact_path="container-image.tar")
    assert outcome.code == 3
    assert "### Not published" in outcome.summary
    assert outcome.outputs == {"digest": "", "image": "", "tags": ""}


def test_the_action_of_publishing_needs_a_repository(runner: Runner) -> None:
    with pytest.raises(ValueError, match="needs the input image-repository"):
        runner.publish()


def test_the_stand_in_is_found(runner: Runner) -> None:
    """Else a docker of the machine would be asked."""
    assert runner.host.path.startswith(str(runner.docker.parent))
    assert machine.command("bash")
