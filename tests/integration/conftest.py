"""Fixtures of the integration tests: real tools on this machine, both versions."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from contextlib import ExitStack
from pathlib import Path

import pytest

from plp_builder.process import Stop
from tests.support import builder, machine, processes, registry, scripted_registry
from tests.support import skopeo as skopeos
from tests.support.builder import MakeWorkspace, Run, RunBuilder, StartBuilder, Workspace
from tests.support.machine import Tools, User
from tests.support.registries import Registries
from tests.support.registry import Registry
from tests.support.scripted_registry import ScriptedRegistry
from tests.support.skopeo import Skopeo
from tests.support.stops import listening

_HERE = Path(__file__).parent


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    """Everything below this directory is an integration test."""
    for item in items:
        if item.path.is_relative_to(_HERE):
            item.add_marker(pytest.mark.integration)


@pytest.fixture(scope="session", autouse=True)
def _orphans_are_seen() -> None:
    """What a builder leaves behind becomes a child of the tests."""
    processes.adopt_orphans()


@pytest.fixture(scope="session")
def tools() -> Mapping[str, Tools]:
    """Both versions of BuildKit: ``current`` and ``compat``."""
    return {name: machine.tools(name) for name in ("current", "compat")}


@pytest.fixture(params=["current", "compat"])
def buildkit(request: pytest.FixtureRequest, tools: Mapping[str, Tools]) -> Tools:
    """Runs the test once with each version of BuildKit."""
    return tools[request.param]


@pytest.fixture
def stop() -> Iterator[Stop]:
    """A run's stop that hears the signals of this process."""
    with listening() as stop:
        yield stop


@pytest.fixture(scope="session")
def unprivileged_user() -> User:
    """A user without rights who has subordinate ids."""
    return machine.user("unprivileged")


@pytest.fixture(params=["root", "unprivileged"])
def user(request: pytest.FixtureRequest) -> User:
    """Runs the test once as root and once as the unprivileged user."""
    return machine.user(request.param)


def _user(given: str | User) -> User:
    return machine.user(given) if isinstance(given, str) else given


@pytest.fixture
def workspace() -> Iterator[MakeWorkspace]:
    """Makes workspaces: ``workspace("unprivileged").write({"Dockerfile": "FROM scratch"})``."""
    made: list[Workspace] = []

    def make(user: str | User = "unprivileged") -> Workspace:
        made.append(builder.new_workspace(_user(user)))
        return made[-1]

    yield make
    for each in made:
        each.remove()


@pytest.fixture
def start_builder(tools: Mapping[str, Tools]) -> Iterator[StartBuilder]:
    """Starts builders; what still runs at the end of the test is killed."""
    started: list[Run] = []

    def start(
        env: Mapping[str, str | None],
        *,
        user: str | User = "unprivileged",
        tools: Tools | None = None,
        arguments: tuple[str, ...] = (),
        current: Tools = tools["current"],
    ) -> Run:
        run = builder.start(env, tools=tools or current, user=_user(user), arguments=arguments)
        started.append(run)
        return run

    yield start
    for run in started:
        run.destroy()


@pytest.fixture
def run_builder(start_builder: StartBuilder) -> RunBuilder:
    """Runs a builder to its end; see :class:`tests.support.builder.RunBuilder`."""

    def run(
        env: Mapping[str, str | None],
        *,
        user: str | User = "unprivileged",
        tools: Tools | None = None,
        timeout: float = 120.0,
        arguments: tuple[str, ...] = (),
    ) -> builder.Result:
        return start_builder(env, user=user, tools=tools, arguments=arguments).wait(timeout)

    return run


@pytest.fixture(scope="session", name="registry")
def _registry(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Registry]:
    """A registry of this test run, with stand-ins for debian, busybox and alpine."""
    with registry.with_base_images(tmp_path_factory.mktemp("registry")) as running:
        yield running


@pytest.fixture(scope="session")
def guarded_registries(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Registries]:
    """Registries of every kind, each started when a test first asks for it."""
    with ExitStack() as stack:
        yield Registries(tmp_path_factory.mktemp("registries"), stack)


@pytest.fixture
def scripted() -> Iterator[ScriptedRegistry]:
    """A registry with a password, which fails as a test tells it to."""
    with scripted_registry.running("basic") as running:
        yield running


@pytest.fixture(params=skopeos.NAMES)
def skopeo(request: pytest.FixtureRequest) -> Skopeo:
    """Runs the test once with the machine's skopeo and once with a newer one."""
    return skopeos.find(request.param)


@pytest.fixture(scope="session")
def package_secrets() -> Mapping[str, Path]:
    """The machine's own pip, npm and CA configuration, as far as there is any, by secret id.

    For builds that install packages behind a company's proxy or mirror: passed as BuildKit
    secrets, so that nothing of the machine lands in a layer.
    """
    return machine.package_configuration()
