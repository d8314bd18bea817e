"""No result is written over what is read, nor over another result."""

from __future__ import annotations

from pathlib import Path
from typing import NamedTuple

import pytest

from plp_builder.errors import ArchiveInvalid, SettingInvalid
from publisher import results
from tests.support.outcomes import DONE, PLANNED, REFUSED, settings

SINKS = (
    "PLP_RESULT_FILE",
    "PLP_RESULT_IMAGE_DIGEST_FILE",
    "PLP_RESULT_IMAGE_URL_FILE",
    "GITHUB_OUTPUT",
    "GITHUB_STEP_SUMMARY",
)


class Inputs(NamedTuple):
    """A directory with everything that a run reads, and what each file held at first."""

    root: Path
    environ: dict[str, Path]
    held: dict[Path, str]

    def refuse(self, **sinks: Path) -> tuple[str, ...]:
        """What is said of the sinks before a push; whatever is tried then, nothing is lost."""
        found = settings(**{**self.environ, **sinks})
        with pytest.raises(SettingInvalid) as caught:
            results.check(found)
        for ended in (DONE, PLANNED, REFUSED, caught.value):
            results.write(ended, found)
        assert {path: path.read_text() for path in self.held} == self.held
        return caught.value.why


@pytest.fixture
def inputs(tmp_path: Path) -> Inputs:
    names = ("out/image.tar", "docker/config.json", "auth.json", "ca/own.pem", "ca/other.pem")
    held = {}
    for name in names:
        path = tmp_path / name
        path.parent.mkdir(exist_ok=True)
        path.write_text(name)
        held[path] = name
    environ = {
        "PLP_ARTIFACT_PATH": tmp_path / "out/image.tar",
        "DOCKER_CONFIG": tmp_path / "docker",
        "REGISTRY_AUTH_FILE": tmp_path / "auth.json",
        "PLP_REGISTRY_CA_PATH": tmp_path / "ca",
    }
    return Inputs(tmp_path, environ, held)


@pytest.mark.parametrize("sink", SINKS)
@pytest.mark.parametrize(
    ("name", "read_for"),
    [
        ("out/image.tar", "PLP_ARTIFACT_PATH"),
        ("docker/config.json", "DOCKER_CONFIG"),
        ("auth.json", "REGISTRY_AUTH_FILE"),
        ("ca/other.pem", "PLP_REGISTRY_CA_PATH"),
    ],
)
def test_nothing_that_is_read_is_written_to(
    inputs: Inputs, sink: str, name: str, read_for: str
) -> None:
    path = inputs.root / name
    assert inputs.refuse(**{sink: path}) == (
        f"{sink}: {path} is read for {read_for}; name another file",
    )


def test_other_spellings_of_what_is_read(inputs: Inputs, monkeypatch: pytest.MonkeyPatch) -> None:
    archive, root = inputs.root / "out/image.tar", inputs.root
    (root / "link").symlink_to("out/image.tar")
    (root / "link-of-link").symlink_to(root / "link")
    (root / "hard").hardlink_to(archive)
    (root / "elsewhere").symlink_to("out")
    monkeypatch.chdir(root)
    spellings = ("out/../out/image.tar", "link-of-link", "hard", "elsewhere/image.tar")
    for spelling in map(Path, spellings):
        (line,) = inputs.refuse(PLP_RESULT_FILE=spelling)
        assert "is read for PLP_ARTIFACT_PATH" in line
        inputs.environ["PLP_ARTIFACT_PATH"] = spelling
        inputs.refuse(GITHUB_OUTPUT=archive)
        inputs.environ["PLP_ARTIFACT_PATH"] = archive


def test_results_may_lie_beside_what_is_read(inputs: Inputs) -> None:
    for number, directory in enumerate(("out", "docker", "ca")):
        path = inputs.root / directory / f"result-{number}.json"
        path.write_text("of the last run")
        found = settings(**inputs.environ, PLP_RESULT_FILE=path)
        results.check(found)
        assert results.write(DONE, found) == []


def test_an_archive_is_kept_where_its_directory_is_named_and_results_lie_beside_it(
    inputs: Inputs,
) -> None:
    directory = inputs.environ["PLP_ARTIFACT_PATH"] = inputs.root / "out"
    assert len(inputs.refuse(PLP_RESULT_FILE=directory / "image.tar")) == 1
    (directory / "result.json").write_text("of the last run")
    beside = settings(**inputs.environ, PLP_RESULT_FILE=directory / "result.json")
    results.check(beside)
    assert results.write(DONE, beside) == []
    # What the directory turned out to mean is known in the end.
    other = inputs.root / "auth.json"
    beside = settings(PLP_RESULT_FILE=other)
    assert results.write(DONE._replace(archive=other), beside) == [
        f"PLP_RESULT_FILE: {other} is read for PLP_ARTIFACT_PATH; name another file"
    ]
    assert other.read_text() == "auth.json"


def test_an_archive_that_is_not_there_yet_is_not_made_of_a_result(tmp_path: Path) -> None:
    (tmp_path / "elsewhere").symlink_to(tmp_path)
    found = settings(
        PLP_ARTIFACT_PATH=tmp_path / "image.tar",
        PLP_RESULT_FILE=tmp_path / "elsewhere" / "image.tar",
    )
    with pytest.raises(SettingInvalid):
        results.check(found)
    assert len(results.write(ArchiveInvalid("there is none"), found)) == 1
    assert not (tmp_path / "image.tar").exists()


def test_results_are_not_written_over_one_another(inputs: Inputs) -> None:
    inputs.held[inputs.root / "output"] = "before"
    (inputs.root / "output").write_text("before")
    one, two = inputs.root / "output", inputs.root / "docker" / ".." / "output"
    assert inputs.refuse(GITHUB_OUTPUT=one, PLP_RESULT_FILE=two) == (
        f"PLP_RESULT_FILE: {two} is also what GITHUB_OUTPUT names; name another file",
        f"GITHUB_OUTPUT: {one} is also what PLP_RESULT_FILE names; name another file",
    )
    new = inputs.root / "new"
    assert len(inputs.refuse(PLP_RESULT_FILE=new, PLP_RESULT_IMAGE_URL_FILE=new)) == 2
    assert not new.exists()


def test_what_has_no_end_may_get_several_results(tmp_path: Path) -> None:
    """As where somebody wants to see them all in a log, be it a file."""
    nowhere = Path("/dev/null")
    results.check(settings(PLP_RESULT_FILE=nowhere, GITHUB_OUTPUT=nowhere))
    with (tmp_path / "log").open("w") as file:
        shown = Path(f"/proc/self/fd/{file.fileno()}")
        found = settings(GITHUB_OUTPUT=shown, PLP_RESULT_FILE=shown)
        file.write("before\n")
        file.flush()
        results.check(found)
        assert results.write(DONE, found) == []
    text = (tmp_path / "log").read_text()
    assert text.startswith("before\n{")
    assert "digest=" in text


def test_files_that_cannot_be_looked_at_are_refused_by_name(tmp_path: Path) -> None:
    (tmp_path / "loop").symlink_to("loop")
    found = settings(PLP_RESULT_FILE=tmp_path / ("x" * 5000), GITHUB_OUTPUT=tmp_path / "loop")
    with pytest.raises(SettingInvalid) as caught:
        results.check(found)
    long, loop = caught.value.why
    assert long.startswith("PLP_RESULT_FILE: /")
    assert long.endswith("… cannot be looked at: File name too long")
    assert loop.startswith("GITHUB_OUTPUT: ")
    assert loop.endswith("loop cannot be looked at: Too many levels of symbolic links")
    assert results.write(caught.value, found) == []
    assert len(results.write(DONE, found)) == 2
