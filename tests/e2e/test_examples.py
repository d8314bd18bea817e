"""The commands of docs/images.md, as they stand, in a shell beside a project."""

from __future__ import annotations

import os
import re
import shutil
import subprocess
import time
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import NamedTuple

import pytest

from scripts.set_up.step import ROOT
from tests.support import base_images, image, machine, registry
from tests.support.engine import Engine

_BLOCK = re.compile(r"^### (?P<title>[^\n]+)\n(?P<text>.*?)(?=^##|\Z)", re.DOTALL | re.MULTILINE)
_COMMANDS = re.compile(r"^```sh\n(.*?)^```", re.DOTALL | re.MULTILINE)
BUSYBOX = 'FROM scratch\nCOPY busybox /bin/busybox\nSHELL ["/bin/busybox", "sh", "-euc"]\n'
SECRETS = """\
RUN --mount=type=secret,id=npmrc,required=true \\
    --mount=type=secret,id=npm,required=true \\
    /bin/busybox wc -c /run/secrets/npmrc /run/secrets/npm > /sizes
"""
AGENT = 'RUN --mount=type=ssh,required=true test -S "$SSH_AUTH_SOCK" && echo yes > /agent\n'
STAGES = """\
FROM scratch AS tools
COPY busybox /bin/busybox
SHELL ["/bin/busybox", "sh", "-euc"]
FROM tools AS test
ARG VERSION=0
RUN --mount=type=cache,target=/kept echo "$VERSION" > /version
FROM scratch
"""
SECRET = "a-secret-that-nothing-may-show-8461"


def examples() -> dict[str, str]:
    """The shell commands below each third-level heading."""
    text = (ROOT / "docs/images.md").read_text()
    return {
        found["title"]: "\n".join(_COMMANDS.findall(found["text"]))
        for found in _BLOCK.finditer(text)
    }


class Project(NamedTuple):
    """A directory with a git repository, and a shell in it."""

    path: Path
    environment: Mapping[str, str]

    @property
    def archive(self) -> Path:
        return self.path / "build/container-image.tar"

    def write(self, name: str, text: str) -> None:
        """Write a file of the project."""
        (self.path / name).parent.mkdir(parents=True, exist_ok=True)
        (self.path / name).write_text(text)

    def run(self, title: str, **variables: str) -> str:
        """Run an example; everything it said."""
        env = {**self.environment, **variables}
        done = subprocess.run(
            ["bash", "-euo", "pipefail", "-c", examples()[title]],
            cwd=self.path,
            env=env,
            check=False,
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            text=True,
        )
        assert done.returncode == 0, done.stdout
        return done.stdout


@pytest.fixture
def project(tmp_path: Path, engine: Engine, builder_image: str) -> Iterator[Project]:
    """A project with a busybox, a commit, and an ignored build directory."""
    path = tmp_path / "project"
    path.mkdir()
    shutil.copy(base_images.static_busybox(), path / "busybox")
    home = tmp_path / "home"
    home.mkdir()
    env = {
        "PATH": f"{Path(machine.command('docker')).parent}:{machine.SYSTEM_PATH}",
        "HOME": str(home),
        "GIT_CONFIG_GLOBAL": os.devnull,
    }
    env |= {name: os.environ[name] for name in ("DOCKER_HOST",) if name in os.environ}
    made = Project(path, env)
    made.write(".dockerignore", "build\n.git\n")
    made.write("Dockerfile", BUSYBOX + "RUN echo built > /result\n")
    for command in (
        "init -q -b main",
        "remote add origin https://ci:hidden-in-the-address@git.example.com/team/app.git",
        "-c user.name=a -c user.email=a@example.com commit -q --allow-empty -m first",
    ):
        subprocess.run(["git", *command.split()], cwd=path, env=env, check=True)
    yield made
    engine.docker("volume", "rm", "--force", "plp-cache", check=False)


def test_every_example_has_a_test() -> None:
    assert set(examples()) == {
        "Build", "Keep the cache", "Annotate and name the image", "Secrets", "The SSH agent",
        "Stages, arguments, another Dockerfile", "Look at the machine", "Publish",
    }  # fmt: skip


def test_the_readme_has_the_same_first_example() -> None:
    assert f"```sh\n{examples()['Build']}```" in (ROOT / "README.md").read_text()


def test_build(project: Project) -> None:
    said = project.run("Build")
    assert "BUILT" in said
    assert "Loaded image ID: sha256:" in said
    assert image.read(project.archive).text("result") == "built\n"


def test_the_second_build_uses_the_cache_and_is_faster(project: Project) -> None:
    # A step of two seconds: the difference is not a matter of the machine's load.
    project.write("Dockerfile", BUSYBOX + "RUN /bin/busybox sleep 2; echo built > /result\n")
    (project.path / "build").mkdir()
    seconds = []
    for cached in ("0 of 2 cached", "2 of 2 cached"):
        began = time.monotonic()
        assert cached in project.run("Keep the cache")
        seconds.append(time.monotonic() - began)
    assert seconds[1] < seconds[0] - 1


def test_annotations_and_name(project: Project, engine: Engine) -> None:
    said = project.run("Annotate and name the image")
    name = "registry.example.com/team/app:1.2.3"
    assert f"Loaded image: {name}" in said
    engine.docker("image", "rm", "--force", name)
    annotations = image.read(project.archive).manifest["annotations"]
    key = "org.opencontainers.image."
    assert annotations[f"{key}source"] == "https://git.example.com/team/app.git"
    assert re.fullmatch(r"[0-9a-f]{40}", annotations[f"{key}revision"])
    assert "hidden-in-the-address" not in said


def test_secrets(project: Project) -> None:
    project.write("Dockerfile", BUSYBOX + SECRETS)
    (Path(project.environment["HOME"]) / ".npmrc").write_text(f"token={SECRET}")
    said = project.run("Secrets", NPM_TOKEN=SECRET)
    built = image.read(project.archive)
    assert built.text("sizes").split()[0] == str(len(f"token={SECRET}"))
    assert SECRET not in said
    assert SECRET.encode() not in built.everything


def test_the_ssh_agent(project: Project, tmp_path: Path) -> None:
    agent = Path("/tmp") / f"plp-agent-{os.getpid()}.sock"
    program = subprocess.Popen(
        [machine.command("ssh-agent"), "-D", "-a", agent], stdout=subprocess.DEVNULL
    )
    try:
        project.write("Dockerfile", BUSYBOX + AGENT)
        while not agent.exists():
            time.sleep(0.02)
        project.run("The SSH agent", SSH_AUTH_SOCK=str(agent))
        assert image.read(project.archive).text("agent") == "yes\n"
    finally:
        program.terminate()
        program.wait()
        agent.unlink(missing_ok=True)


def test_stages_arguments_and_cache_mounts(project: Project) -> None:
    project.write("docker/app.Dockerfile", STAGES)
    project.run("Stages, arguments, another Dockerfile")
    assert image.read(project.archive).text("version") == "1.2.3\n"


def test_doctor_version_and_help(project: Project) -> None:
    said = project.run("Look at the machine")
    assert "plp (1000)" in said
    assert "0.32.2" in said
    assert "PLP_SOURCE_PATH" in said


def test_publish_and_pull(
    project: Project, engine: Engine, publisher_image: str, tmp_path: Path
) -> None:
    project.write(
        "Dockerfile", BUSYBOX + 'RUN echo built > /result\nCMD ["/bin/busybox", "cat", "/result"]\n'
    )
    project.run("Build")
    gateway = engine.docker(
        "network", "inspect", "bridge", "--format", "{{(index .IPAM.Config 0).Gateway}}"
    ).stdout.strip()
    # Containers reach it by the bridge; the engine pulls from the same storage by loopback,
    # where it needs no TLS.
    storage = tmp_path / "storage"
    with registry.running(storage, host=gateway) as bridged, registry.running(storage) as local:
        said = project.run("Publish", REGISTRY=bridged.address, PLP_REGISTRY_INSECURE="true")
        assert "PUBLISHED" in said
        digest = re.search(r"digest: +(sha256:[0-9a-f]{64})", said)
        assert digest, said
        name = f"{local.address}/team/app@{digest[1]}"
        shown = engine.docker("run", "--rm", "--network=none", name)
        assert shown.stdout == "built\n"
        engine.docker("image", "rm", "--force", name)
