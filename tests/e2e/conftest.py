"""Fixtures of the tests of the images: a Docker engine that has them, and places to mount."""

from __future__ import annotations

import os
import shutil
from collections.abc import Callable, Iterator, Mapping
from pathlib import Path

import pytest

from scripts.images.build import Wanted
from tests.support import base_images, builder, containers, machine, projects
from tests.support.builder import Workspace
from tests.support.containers import Containers
from tests.support.engine import Engine
from tests.support.machine import User

_HERE = Path(__file__).parent
# The reaper's image may not be there, and what the tests start they remove themselves.
os.environ["TESTCONTAINERS_RYUK_DISABLED"] = "true"


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    """Everything below this directory needs the images and an engine."""
    for item in items:
        if item.path.is_relative_to(_HERE):
            item.add_marker(pytest.mark.e2e)


class Outcomes:
    """What each row of the table of users, privileges and owners ended with."""

    def __init__(self) -> None:
        self.rows: list[tuple[str, str, str, str]] = []

    def add(self, user: str, rights: str, owner: str, outcome: str) -> None:
        """Note a row."""
        self.rows.append((user, rights, owner, outcome))


_outcomes = Outcomes()


@pytest.fixture(scope="session")
def outcomes() -> Outcomes:
    """Shown at the end of the run."""
    return _outcomes


def pytest_terminal_summary(terminalreporter: pytest.TerminalReporter) -> None:
    """Print the table."""
    if _outcomes.rows:
        terminalreporter.section("user, privileges, owner of the mounts: outcome")
    for row in _outcomes.rows:
        terminalreporter.write_line("{:<10} {:<11} {:<8} {}".format(*row))


@pytest.fixture(scope="session")
def engine(docker_engine: Engine) -> Iterator[Engine]:
    """The engine, also for clients that ask the environment for it."""
    with pytest.MonkeyPatch.context() as patch:
        if docker_engine.host:
            patch.setenv("DOCKER_HOST", docker_engine.host)
        patch.delenv("DOCKER_CONTEXT", raising=False)
        yield docker_engine


@pytest.fixture(scope="session")
def builder_image(engine: Engine) -> str:
    """The builder's image, of this very source."""
    return containers.load(engine, Wanted("builder"))


@pytest.fixture(scope="session")
def publisher_image(engine: Engine) -> str:
    """The publisher's image, of this very source."""
    return containers.load(engine, Wanted("publisher"))


@pytest.fixture(scope="session")
def older_image(engine: Engine) -> str:
    """The builder's image with the older BuildKit, by the build argument."""
    return containers.load(engine, Wanted("builder", containers.OLDER))


@pytest.fixture
def start(engine: Engine, builder_image: str) -> Iterator[Containers]:
    """Starts containers of the builder's image; what still runs after the test is removed."""
    starter = Containers(engine, builder_image)
    yield starter
    starter.remove_all()


MakePlaces = Callable[..., "Places"]


class Places:
    """Directories to mount, with a project in the source."""

    def __init__(self, workspace: Workspace) -> None:
        self.workspace = workspace

    @property
    def mounts(self) -> dict[str | Path, str]:
        """As the examples mount them."""
        return {
            self.workspace.source: "/source:ro",
            self.workspace.build: "/build",
            self.workspace.cache: "/tmp/cache",
        }

    def files(self) -> dict[str, tuple[int, int]]:
        """What lies in the build directory: owner and mode by name."""
        found = {path.name: path.stat() for path in self.workspace.build.iterdir()}
        return {name: (status.st_uid, status.st_mode & 0o7777) for name, status in found.items()}


@pytest.fixture
def places() -> Iterator[MakePlaces]:
    """Makes places of an owner: ``places("site", uid=1001)`` with a project of tests/contexts."""
    made: list[Workspace] = []

    def make(
        project: str = "scratch-file", *, uid: int = 0, files: Mapping[str, str] | None = None
    ) -> Places:
        if os.geteuid() != 0:
            machine.missing("root (for directories of any owner)")
        workspace = builder.new_workspace(User("owner", uid, uid, switch=True))
        made.append(workspace)
        if files is None:
            busybox = base_images.static_busybox()
            projects.project(project).copy_to(workspace.source, busybox=busybox)
        else:
            shutil.copy(base_images.static_busybox(), workspace.source / "busybox")
            workspace.write(files)
        for path in (workspace.source, *workspace.source.rglob("*")):
            os.chown(path, uid, uid, follow_symlinks=False)
        return Places(workspace)

    yield make
    for workspace in made:
        workspace.remove()
