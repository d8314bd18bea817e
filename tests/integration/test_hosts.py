"""The examples for CI hosts, run as their hosts would: the files' own scripts, real programs.

Where an example runs a container, a stand-in runs the program natively instead.
"""

from __future__ import annotations

import shlex
import subprocess
import sys
import uuid
from collections.abc import Mapping
from pathlib import Path

import pytest

from tests.support import docker_stand_in, hosts
from tests.support.actions import Host
from tests.support.expressions import evaluate, filled
from tests.support.machine import Tools
from tests.support.registries import Clients, GuardedRegistry, Kind, Registries

ROOT = Path(__file__).parents[2]
SHA = "0123456789abcdef0123456789abcdef01234567"
DEFAULT = {"main", "main-0123456", "latest"}
PULL_REQUEST = {"pr-7", "pr-7-0123456"}
VERSION = {"1.2.3", "1.2", "1"}


class World:
    """A machine of a host: a project, a registry, programs and stand-ins on PATH."""

    def __init__(self, root: Path, tools: Tools, registry: GuardedRegistry) -> None:
        self.root, self.registry = root, registry
        self.name = f"team/{uuid.uuid4().hex}"
        self.project = root / "project"
        self.project.mkdir()
        (self.project / "Dockerfile").write_text("FROM scratch\nCOPY id /id\n")
        (self.project / ".dockerignore").write_text("out\n.plp-cache\n")
        (self.project / "id").write_text(uuid.uuid4().hex)
        programs = root / "bin"
        programs.mkdir()
        stand_in = shlex.join([sys.executable, docker_stand_in.__file__])
        modules = {"plp-builder": "plp_builder", "plp-publisher": "publisher"}
        python = shlex.join([sys.executable, "-m"])
        commands = {"docker": stand_in, "podman": stand_in, "sudo": "true"}
        commands |= {program: f"{python} {module}" for program, module in modules.items()}
        for program, command in commands.items():
            path = programs / program
            path.write_text(f'#!/bin/sh\nexec {command} "$@"\n')
            path.chmod(0o755)
        assert registry.credentials is not None
        self.username, self.password = registry.credentials
        self.env = {
            "HOME": str(root),
            "PATH": f"{programs}:{tools.path}",
            "PYTHONPATH": str(ROOT),
            "DOCKER_STAND_IN_LOG": str(root / "calls"),
            "PLP_REGISTRY_INSECURE": "true",
        }
        self.said = ""

    @property
    def repository(self) -> str:
        return f"{self.registry.address}/{self.name}"

    def run(self, script: str, env: Mapping[str, str], *arguments: str) -> None:
        """Run a script by sh in the project; it must succeed."""
        done = subprocess.run(
            ["sh", "-c", script, "script", *arguments],
            check=False,
            cwd=self.project,
            env={**self.env, **env},
            stdin=subprocess.DEVNULL,
            capture_output=True,
            text=True,
        )
        self.said = done.stdout + done.stderr
        assert done.returncode == 0, self.said

    def clients(self) -> Clients:
        return self.registry.clients(self.root / "clients")

    def tags(self) -> set[str]:
        found = self.clients().digests(self.name)
        assert len(set(found.values())) == 1, found
        return set(found)


@pytest.fixture
def world(tmp_path: Path, tools: Mapping[str, Tools], guarded_registries: Registries) -> World:
    return World(tmp_path, tools["current"], guarded_registries[Kind("registry", "htpasswd")])


@pytest.mark.parametrize(
    ("given", "tags"),
    [
        ({"CI_COMMIT_BRANCH": "main"}, DEFAULT),
        ({"CI_COMMIT_BRANCH": "a/b"}, {"a-b", "a-b-0123456"}),
        ({"CI_COMMIT_TAG": "v1.2.3"}, VERSION),
        ({"CI_MERGE_REQUEST_IID": "7"}, PULL_REQUEST),
    ],
    ids=["default-branch", "branch", "tag", "merge-request"],
)
def test_gitlab(world: World, given: Mapping[str, str], tags: set[str]) -> None:
    usual = {
        "CI_PROJECT_DIR": str(world.project),
        "CI_PROJECT_URL": "https://gitlab.example.com/team/app",
        "CI_COMMIT_SHA": SHA,
        "CI_DEFAULT_BRANCH": "main",
        "CI_REGISTRY_IMAGE": world.repository,
        "CI_REGISTRY_USER": world.username,
        "CI_REGISTRY_PASSWORD": world.password,
    }
    for job in ("build", "publish"):
        env, script = hosts.gitlab(job, {**usual, **given})
        world.run(script, env)
    assert world.tags() == tags
    assert (world.project / ".plp-cache/buildkit").is_dir()


WOODPECKER = {
    "CI_REPO_URL": "https://git.example.com/team/app",
    "CI_REPO_DEFAULT_BRANCH": "main",
    "CI_COMMIT_SHA": SHA,
    "CI_COMMIT_TAG": "",
    "CI_COMMIT_PULL_REQUEST": "",
    "CI_COMMIT_BRANCH": "main",
}
DRONE = {
    "DRONE_REPO_LINK": "https://git.example.com/team/app",
    "DRONE_REPO_BRANCH": "main",
    "DRONE_COMMIT_SHA": SHA,
    "DRONE_TAG": "",
    "DRONE_PULL_REQUEST": "",
    "DRONE_BRANCH": "main",
}


@pytest.mark.parametrize(
    ("name", "given", "tags"),
    [
        ("woodpecker.yml", {**WOODPECKER, "CI_PIPELINE_EVENT": "push"}, DEFAULT),
        (
            "woodpecker.yml",
            {**WOODPECKER, "CI_PIPELINE_EVENT": "tag", "CI_COMMIT_TAG": "v1.2.3"},
            VERSION,
        ),
        (
            "woodpecker.yml",
            {**WOODPECKER, "CI_PIPELINE_EVENT": "pull_request", "CI_COMMIT_PULL_REQUEST": "7"},
            PULL_REQUEST,
        ),
        ("drone.yml", {**DRONE, "DRONE_BUILD_EVENT": "push"}, DEFAULT),
        ("drone.yml", {**DRONE, "DRONE_BUILD_EVENT": "tag", "DRONE_TAG": "v1.2.3"}, VERSION),
        (
            "drone.yml",
            {**DRONE, "DRONE_BUILD_EVENT": "pull_request", "DRONE_PULL_REQUEST": "7"},
            PULL_REQUEST,
        ),
    ],
    ids=lambda each: each if isinstance(each, str) else None,
)
def test_woodpecker_and_drone(
    world: World, name: str, given: Mapping[str, str], tags: set[str]
) -> None:
    places = {"CI_WORKSPACE": str(world.project), "DRONE_WORKSPACE": str(world.project)}
    own = {"PLP_IMAGE_REPOSITORY": world.repository, "PLP_REGISTRY_USERNAME": world.username}
    for step in ("build", "publish"):
        env, script = hosts.pipeline(name, step, {"registry_password": world.password})
        assert (set(own) <= set(env)) == (step == "publish")
        world.run(script, {**places, **given, **env, **own})
    assert world.tags() == tags


@pytest.mark.parametrize(
    ("given", "tags"),
    [
        ({"BRANCH_NAME": "main", "BRANCH_IS_PRIMARY": "true"}, DEFAULT),
        ({"BRANCH_NAME": "v1.2.3", "TAG_NAME": "v1.2.3"}, VERSION),
        ({"BRANCH_NAME": "PR-7", "CHANGE_ID": "7"}, PULL_REQUEST),
    ],
    ids=["default-branch", "tag", "pull-request"],
)
def test_jenkins(world: World, given: Mapping[str, str], tags: set[str]) -> None:
    constants, scripts = hosts.jenkins()
    env = {
        **constants,
        **given,
        "WORKSPACE": str(world.project),
        "WORKSPACE_TMP": f"{world.project}@tmp",
        "GIT_URL": "https://git.example.com/team/app.git",
        "GIT_COMMIT": SHA,
        "PLP_IMAGE_REPOSITORY": world.repository,
        "PLP_REGISTRY_USERNAME": world.username,
        "PLP_REGISTRY_PASSWORD": world.password,
    }
    assert len(scripts) == 2
    for script in scripts:  # the registry of the tests speaks plain HTTP
        own = script.replace("-e PLP_IMAGE", "-e PLP_REGISTRY_INSECURE -e PLP_IMAGE")
        world.run(f"set -e\n{own}", env)
    assert world.tags() == tags


@pytest.mark.parametrize("engine", ["docker", "podman"])
def test_plain_engines(world: World, engine: str) -> None:
    git = [
        *(["init", "-q", "-b", "main"], ["add", "."]),
        *(["-c", "user.name=a", "-c", "user.email=a@example.com", "commit", "-q", "-m", "a"],),
    ]
    for arguments in git:
        subprocess.run(["git", *arguments], cwd=world.project, check=True)
    env = {"PLP_REGISTRY_USERNAME": world.username, "PLP_REGISTRY_PASSWORD": world.password}
    if engine == "podman":
        env["ENGINE"] = engine
        (world.root / "bin/docker").write_text("#!/bin/sh\nexit 9\n")
    world.run(hosts.read("docker.sh"), env, str(world.project), world.repository)
    (sha,) = subprocess.run(
        ["git", "rev-parse", "HEAD"], cwd=world.project, check=True, capture_output=True, text=True
    ).stdout.split()
    assert world.tags() == {"main", f"main-{sha[:7]}"}
    calls = (world.root / "calls").read_text()
    assert '["load", "--input"' in calls
    assert world.password not in calls


def test_github_actions(world: World) -> None:
    """The workflow's steps in order: our actions run, those of others are passed over."""
    workflow = hosts.load("github-actions.yml")
    host = Host(
        world.root / "runner",
        world.env["PATH"],
        env={**world.env, "NPM_TOKEN": "secret-value"},
    )
    for path in world.project.iterdir():
        path.rename(host.workspace / path.name)
    host.github |= {"actor": world.username, "sha": SHA}
    contexts = {"github": host.github, "secrets": {"GITHUB_TOKEN": world.password}}
    ran = []
    for step in workflow["jobs"]["image"]["steps"]:
        action = step["uses"].partition("@")[0].partition("plp-container-image-builder/")[2]
        if not action:
            continue
        if "if" in step:
            assert evaluate(step["if"].strip("${ }"), contexts) is True
        given = {name: filled(text, contexts) for name, text in step["with"].items()}
        if action.endswith("publish"):
            given |= {"image-repository": world.repository, "registry-insecure": "true"}
        outcome = host.run(ROOT / action, given)
        assert outcome.code == 0, outcome.said
        ran.append(outcome.outputs["digest"])
    assert len(ran) == 2
    assert len(set(ran)) == 1
    assert world.tags() == DEFAULT


def test_github_actions_without_our_actions(world: World) -> None:
    workflow = hosts.load("github-actions-docker.yml")
    scripts = [step["run"] for step in workflow["jobs"]["image"]["steps"] if "run" in step]
    env = {
        "GITHUB_WORKSPACE": str(world.project),
        "RUNNER_TEMP": str(world.root / "temp"),
        "GITHUB_SERVER_URL": "https://github.com",
        "GITHUB_REPOSITORY": "owner/app",
        "GITHUB_SHA": SHA,
        "GITHUB_REF_NAME": "main",
        "GITHUB_ACTOR": world.username,
        "PLP_REGISTRY_PASSWORD": world.password,
    }
    for script in scripts:
        own = script.replace("ghcr.io/owner/app", f"{world.repository} -e PLP_REGISTRY_INSECURE")
        world.run("set -e\n" + own, env)
    assert len(scripts) == 3
    assert world.tags() == DEFAULT
