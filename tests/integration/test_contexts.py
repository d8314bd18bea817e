"""The projects of tests/contexts, built by the whole builder on the real BuildKit."""

from __future__ import annotations

import ctypes
import json
import os
import subprocess
import tarfile
import time
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import pytest

from tests.support import image, machine
from tests.support.builder import MakeWorkspace, Result, RunBuilder, Workspace
from tests.support.engine import Engine
from tests.support.image import Image
from tests.support.machine import Tools
from tests.support.processes import until
from tests.support.projects import PROJECTS, Project, project
from tests.support.registry import Registry

EPOCH = "1700000000"
SLOW = {"silent-step": {"PLP_BUILD_ARGS": "SILENCE=0"}}
"""Settings that make a project quick where its slowness is not what a test is about."""

COMBINATIONS = (("unprivileged", "current"), ("root", "current"), ("unprivileged", "compat"))
CASES = [
    pytest.param(one, user, version, id=f"{one.name}-{user}-{version}")
    for one in PROJECTS
    if one.offline
    for user, version in COMBINATIONS
    if one.name not in SLOW or (user, version) == COMBINATIONS[0]
]
DETERMINISTIC = [one for one in PROJECTS if one.offline and one.deterministic and not one.error]


def prepare(one: Project, place: Workspace) -> dict[str, str]:
    """Copy the project into the workspace; the variables of its build."""
    needed = "busybox" in one.needs
    busybox = Path(machine.command("busybox")) if needed else None
    one.copy_to(place.source, busybox=busybox)
    for path in (place.source, *place.source.rglob("*")):
        if not path.is_symlink():
            place.owner.own(path)
    return {**place.env, **one.environment(place.source)}


@contextmanager
def host_name(name: str) -> Iterator[None]:
    """Another host name for the processes that are started inside; needs to be root."""
    libc = ctypes.CDLL(None, use_errno=True)
    own = os.open("/proc/thread-self/ns/uts", os.O_RDONLY | os.O_CLOEXEC)
    try:
        assert libc.unshare(0x04000000) == 0  # CLONE_NEWUTS
        assert libc.sethostname(name.encode(), len(name)) == 0
        yield
    finally:
        assert libc.setns(own, 0) == 0
        os.close(own)


def built(one: Project, place: Workspace, run: RunBuilder, user: str = "unprivileged") -> Image:
    """Build the project and read its image."""
    result = run(prepare(one, place), user=user)
    assert result.code == 0, result.output
    return image.read(result.archive)


@pytest.mark.parametrize(("one", "user", "version"), CASES)
def test_outcome(
    one: Project,
    user: str,
    version: str,
    workspace: MakeWorkspace,
    run_builder: RunBuilder,
    tools: Mapping[str, Tools],
) -> None:
    """Each project ends as the catalogue says, says what it must, and leaves nothing behind."""
    place = workspace(user)
    result = run_builder(prepare(one, place), user=user, tools=tools[version])
    assert result.code == (1 if one.error else 0), result.output
    for text in one.says:
        assert text in result.output
    assert (f"ERROR {one.error}:" in result.output) == bool(one.error)
    assert result.left_processes == ()
    assert result.left_files == ()
    assert [path.name for path in place.build.iterdir()] == (
        [] if one.error else [place.archive.name]
    )
    if not one.error:
        inspect_with_skopeo(place.archive)


def inspect_with_skopeo(archive: Path) -> None:
    command = [machine.command("skopeo"), "inspect", "--raw", f"oci-archive:{archive}"]
    subprocess.run(command, check=True, capture_output=True)


@pytest.mark.parametrize("one", DETERMINISTIC, ids=lambda one: one.name)
def test_reproducible(one: Project, workspace: MakeWorkspace, run_builder: RunBuilder) -> None:
    """The same bytes at another time, path and host name, by another user, cached or not."""
    first, other = workspace("unprivileged"), workspace("root")
    archives: list[bytes] = []
    reproducible = {"SOURCE_DATE_EPOCH": EPOCH, **SLOW.get(one.name, {})}
    began = time.time()
    for place, user, cached in (
        (first, "unprivileged", {}),
        (first, "unprivileged", {}),
        (other, "root", {"PLP_NO_CACHE": "true"}),
    ):
        with host_name(f"host-{len(archives)}"):
            env = {**prepare(one, place), **reproducible, **cached}
            result = run_builder(env, user=user)
        assert result.code == 0, result.output
        archives.append(result.archive.read_bytes())
        until(lambda: time.time() > began + 1, 2)
    assert archives[0] == archives[1]
    assert archives[0] == archives[2]


def test_site_keeps_its_secret(workspace: MakeWorkspace, run_builder: RunBuilder) -> None:
    """The secret is in no layer, no history, no output; the pages are there."""
    one, place = project("site"), workspace()
    result = run_builder({**prepare(one, place), "PLP_DEBUG": "true"})
    assert result.code == 0, result.output
    secret = one.variables["SITE_TOKEN"]
    found = image.read(place.archive)
    assert secret not in result.output
    assert secret.encode() not in found.everything
    assert "<h1>Bread &amp; butter</h1>" in found.text("www/index.html")


def test_heredocs(workspace: MakeWorkspace, run_builder: RunBuilder) -> None:
    found = built(project("heredocs"), workspace(), run_builder)
    assert found.text("texts/expanded.txt") == 'Good morning, "world"\n'
    assert found.text("texts/verbatim.txt") == "${GREETING}, 'world'\n"
    assert found.text("results/numbers").splitlines()[2] == "number 3, of course"
    assert found.text("results/awk") == "written by awk\n"


def test_labels_and_arguments_arrive_verbatim(
    workspace: MakeWorkspace, run_builder: RunBuilder
) -> None:
    found = built(project("labels-and-args"), workspace(), run_builder)
    labels = found.config["config"]["Labels"]
    assert labels == {
        "org.example.version": "1.2.3",
        "org.example.channel": "stable, of course",
        "org.example.note": 'a, "b" = c',
        "org.example.fixed": "replaced",
        "org.example.caller": "a, b",
    }
    assert found.text("version") == "1.2.3 stable, of course\n"


@pytest.mark.parametrize(
    ("name", "expected"),
    [
        (
            "dockerignore",
            {"context/kept.txt", "context/secrets/public.txt", "context/code/main.txt"},
        ),
        ("own-dockerignore", {"context/one.txt"}),
        ("named-contexts", {"app/main.txt", "app/assets/logo.txt"}),
        ("symlinked-dockerfile", {"hello.txt"}),
    ],
)
def test_what_the_build_can_see(
    name: str, expected: set[str], workspace: MakeWorkspace, run_builder: RunBuilder
) -> None:
    assert set(built(project(name), workspace(), run_builder).files) == expected


def test_odd_file_names(workspace: MakeWorkspace, run_builder: RunBuilder) -> None:
    found = built(project("odd-names"), workspace(), run_builder)
    assert found.text("files/naïve-Привет-你好.txt") == "naïve-Привет-你好.txt\n"
    assert found.text("copied, quoted.txt") == "two words.txt\n"
    assert len(found.files) == 8


def test_strange_output_does_no_harm(workspace: MakeWorkspace, run_builder: RunBuilder) -> None:
    """Nothing that a terminal obeys gets through, and nothing is mistaken for our own words."""
    place = workspace()
    result = run_builder(prepare(project("strange-output"), place))
    assert result.code == 0, result.output
    controls = {character for character in result.output if ord(character) < 32} - {"\n"}
    assert controls == set()
    assert not any(line.startswith("ERROR") for line in result.output.splitlines())


@pytest.fixture
def load(docker_engine: Engine) -> Iterator[Callable[[Path], dict[str, Any]]]:
    """Loads an archive and inspects the image; what was loaded is removed after the test."""
    loaded: list[str] = []

    def load(archive: Path) -> dict[str, Any]:
        said = docker_engine.docker("load", "--quiet", "--input", str(archive)).stdout
        loaded.extend(line.partition(": ")[2] for line in said.splitlines())
        (found,) = json.loads(docker_engine.docker("image", "inspect", loaded[-1]).stdout)
        return dict(found)

    yield load
    for name in loaded:
        docker_engine.docker("image", "rm", "--force", name)


@pytest.mark.parametrize(
    "name", ["scratch-file", "no-layers", "site", "labels-and-args", "configuration", "odd-names"]
)
def test_docker_loads_the_archive(
    name: str,
    workspace: MakeWorkspace,
    run_builder: RunBuilder,
    docker_engine: Engine,
    load: Callable[[Path], dict[str, Any]],
) -> None:
    """Into the same image: identity, configuration and every file."""
    place = workspace()
    found = built(project(name), place, run_builder)
    inspected = load(place.archive)
    # The containerd image store identifies an image by its manifest, the older one by its config.
    assert inspected["Id"] in {found.manifest["config"]["digest"], found.digest}
    assert inspected["RootFS"].get("Layers", []) == (found.config["rootfs"]["diff_ids"] or [])
    for key, value in found.config["config"].items():
        assert inspected["Config"][key] == value, key

    container = docker_engine.docker("create", inspected["Id"], "/none").stdout.strip()
    try:
        exported = place.root / "exported.tar"
        docker_engine.docker("export", "--output", str(exported), container)
    finally:
        docker_engine.docker("rm", container)
    with tarfile.open(exported) as tar:
        files = [each for each in tar if each.isreg()]
        there = {each.name: file.read() for each in files if (file := tar.extractfile(each))}
    assert {path: there.get(path) for path in found.files} == found.files


def test_docker_runs_what_it_loads_under_all_its_names(
    workspace: MakeWorkspace,
    run_builder: RunBuilder,
    docker_engine: Engine,
    load: Callable[[Path], dict[str, Any]],
) -> None:
    place = workspace()
    names = ["plp-test/site:1", "localhost:5000/plp-test/site:latest"]
    env = {**prepare(project("site"), place), "PLP_IMAGE": ",".join(names)}
    result = run_builder(env)
    assert result.code == 0, result.output
    assert sorted(load(place.archive)["RepoTags"]) == sorted(names)
    for name in names:
        run = ("run", "--rm", "--network=none", name, "/bin/cat", "/www/index.html")
        assert "<h1>Bread &amp; butter</h1>" in docker_engine.docker(*run).stdout


def packages(
    one: Project, place: Workspace, registry: Registry, secrets: Mapping[str, Path]
) -> dict[str, str]:
    """The variables of a project that installs packages, with the machine's own configuration."""
    wanted = {"pip": ("pip-conf", "ca-bundle"), "npm": ("npmrc", "ca-bundle"), "apt": ()}
    ids = {name for need in one.needs for name in wanted[need]}
    lines = [f"id={name},src={place.keep(secrets[name])}" for name in sorted(ids & set(secrets))]
    return {**prepare(one, place), **registry.env, "PLP_SECRETS": "\n".join(lines)}


@pytest.mark.parametrize(
    "name",
    ["debian-packages", "python-app", pytest.param("node-app", marks=pytest.mark.soak)],
)
def test_packages_are_installed(
    name: str,
    workspace: MakeWorkspace,
    run_builder: RunBuilder,
    registry: Registry,
    package_secrets: Mapping[str, Path],
) -> None:
    """Real packages from real registries; the configuration for them stays out of the image."""
    one, place = project(name), workspace()
    env = packages(one, place, registry, package_secrets)
    result: Result = run_builder(env, timeout=500)
    assert result.code == 0, result.output
    inspect_with_skopeo(place.archive)
    files = image.read(place.archive).files
    assert not {"etc/pip.conf", "root/.npmrc", "run/ca-bundle.pem"} & {
        path for path, content in files.items() if content
    }
