"""The image with the BuildKit of the original, by the build argument: the main things."""

from __future__ import annotations

import re
from collections.abc import Iterator, Mapping
from typing import Any

import pytest

from tests.e2e.conftest import MakePlaces
from tests.support import image, processes
from tests.support.containers import OLDER, PRIVILEGED, UNCONFINED, UNMASKED, Containers
from tests.support.engine import Engine

BOTH = pytest.mark.parametrize(
    "rights", [PRIVILEGED, UNCONFINED, UNMASKED], ids=["privileged", "unconfined", "unmasked"]
)


@pytest.fixture
def start(engine: Engine, older_image: str) -> Iterator[Containers]:
    """Starts containers of the older image."""
    starter = Containers(engine, older_image)
    yield starter
    starter.remove_all()


def test_it_is_the_older_version(start: Containers) -> None:
    assert OLDER in start.run(command=["--version"]).log


@BOTH
def test_builds_and_uses_its_cache(
    rights: Mapping[str, Any], start: Containers, places: MakePlaces
) -> None:
    place = places("heredocs", uid=1001)
    for expected in (False, True):
        ended = start.run(place.mounts, **rights)
        assert ended.code == 0, ended.log
        found = re.search(r"steps: +(\d+) of (\d+) cached", ended.log)
        assert found, ended.log
        assert (found[1] == found[2]) is expected
        assert place.files() == {"container-image.tar": (1001, 0o644)}
        assert image.read(place.workspace.archive).manifest["layers"]


def test_stops_in_mid_build(start: Containers, places: MakePlaces, engine: Engine) -> None:
    step = 'RUN ["/bin/busybox", "sh", "-c", "echo begun; /bin/busybox sleep 600"]\n'
    place = places(files={"Dockerfile": f"FROM scratch\nCOPY busybox /bin/busybox\n{step}"})
    container: Any = start.start(place.mounts, **PRIVILEGED)
    wrapped = container.get_wrapped_container()
    assert processes.until(lambda: b" begun" in wrapped.logs(), 60)
    engine.docker("stop", "--time", "10", wrapped.id)
    assert start.ended(container).code == 143
    assert place.files() == {}


def test_without_privileges_it_says_what_to_add(start: Containers, places: MakePlaces) -> None:
    ended = start.run(places().mounts)
    assert ended.code == 1
    assert "operation not permitted" in ended.log
    assert "--privileged" in ended.log
