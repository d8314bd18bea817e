"""The archive that is begun before the solve is the right one, also where it was begun wrong."""

from __future__ import annotations

from collections.abc import Iterator

import pytest

from plp_builder.oci import archive
from tests.support import image
from tests.support.builder import MakeWorkspace, Result, RunBuilder, Workspace
from tests.support.site import Site

LAYER = bytes(range(256)) * 40_000
OF_USE = "the archive was begun before the solve of_use=true"
OF_NONE = "the archive was begun before the solve of_use=false"


class Builds:
    def __init__(self, place: Workspace, run: RunBuilder, dockerfile: str) -> None:
        self.place = place
        self._run = run
        place.write({"Dockerfile": dockerfile, "layer": LAYER, "code": "one"})

    def __call__(self, **variables: str) -> Result:
        self.place.archive.unlink(missing_ok=True)
        result = self._run({**self.place.env, "PLP_DEBUG": "true", **variables}, timeout=300)
        assert result.code == 0, result.output
        with self.place.archive.open("rb") as file:
            archive.verify(file)
        assert self.file("layer") == LAYER
        return result

    def file(self, name: str) -> bytes:
        return image.read(self.place.archive).files[name]


@pytest.fixture
def site() -> Iterator[Site]:
    with Site() as found:
        yield found


@pytest.fixture
def build(workspace: MakeWorkspace, run_builder: RunBuilder, site: Site) -> Builds:
    dockerfile = f"FROM scratch\nCOPY layer code /\nADD {site.url} /file\n"
    return Builds(workspace("unprivileged"), run_builder, dockerfile)


def test_an_unchanged_build(build: Builds) -> None:
    assert "was begun" not in build().output
    for number in range(3):
        annotation = f'number={number}, and <more> & "quoted" ü'
        result = build(GIT_SHA=f"{number}" * 40, PLP_ANNOTATIONS=annotation)
        assert (OF_USE in result.output) == (number > 0), result.output
        annotations = image.read(build.place.archive).manifest["annotations"]
        assert annotations["number"] == annotation.removeprefix("number=")


def test_one_whose_result_changes_nevertheless(build: Builds, site: Site) -> None:
    build()
    site.content = b"two"
    assert OF_NONE in build().output
    assert build.file("file") == b"two"
    assert OF_USE in build().output
    assert build.file("file") == b"two"


def test_one_that_asks_for_something_else_or_has_another_context(build: Builds) -> None:
    build()
    assert "was begun" not in build(PLP_LABELS="a=b").output
    assert OF_USE in build(PLP_LABELS="a=b").output
    build.place.write({"code": "two"})
    assert "was begun" not in build(PLP_LABELS="a=b").output
    assert build.file("code") == b"two"
    assert "was begun" not in build(PLP_LABELS="a=b", PLP_VERIFY="full").output
