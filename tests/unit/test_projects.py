"""The catalogue of small projects, and the generators of large ones."""

from __future__ import annotations

import zlib
from pathlib import Path

import pytest

from tests.support.generate import FIXED_TIME, MIB, large_layer, many_files
from tests.support.projects import FOLDER, PROJECTS, Project, project


def snapshot(directory: Path) -> dict[str, bytes]:
    files = sorted(path for path in directory.rglob("*") if path.is_file())
    return {str(path.relative_to(directory)): path.read_bytes() for path in files}


def test_every_folder_is_in_the_catalogue_once() -> None:
    assert sorted(one.name for one in PROJECTS) == sorted(
        path.name for path in FOLDER.iterdir() if path.is_dir()
    )


@pytest.mark.parametrize("one", PROJECTS, ids=lambda one: one.name)
def test_each_dockerfile_says_what_it_shows(one: Project) -> None:
    """A comment above the first instruction, as the project's README."""
    place = FOLDER / one.name / one.settings.get("PLP_CONTEXT", ".")
    dockerfile = place / one.settings.get("PLP_DOCKERFILE", "Dockerfile")
    assert dockerfile.read_text(encoding="utf-8").startswith("# ")


def test_a_copy_takes_the_place_of_what_is_there(tmp_path: Path) -> None:
    source = tmp_path / "source"
    source.mkdir()
    (source / "old.txt").touch()
    project("symlinked-dockerfile").copy_to(source)
    assert not (source / "old.txt").exists()
    assert (source / "Dockerfile").is_symlink()


def test_a_project_without_its_busybox_is_refused(tmp_path: Path) -> None:
    with pytest.raises(ValueError, match="static busybox"):
        project("heredocs").copy_to(tmp_path / "source")


def test_settings_name_the_copy(tmp_path: Path) -> None:
    environment = project("named-contexts").environment(tmp_path)
    assert environment["PLP_BUILD_CONTEXTS"] == f"assets={tmp_path}/assets"


def test_many_files_are_the_same_every_time(tmp_path: Path) -> None:
    first = many_files(tmp_path / "first", 250, mtime=FIXED_TIME)
    second = many_files(tmp_path / "second", 250)
    assert snapshot(first) == snapshot(second)
    assert len(set(snapshot(first).values())) == 251
    assert (first / "files" / "0002" / "000249.txt").stat().st_mtime == FIXED_TIME


def test_a_large_layer_is_the_same_every_time_and_does_not_compress(tmp_path: Path) -> None:
    size = 3 * MIB + 5
    first = large_layer(tmp_path / "first", size, mtime=FIXED_TIME)
    second = large_layer(tmp_path / "second", size)
    assert snapshot(first) == snapshot(second)
    content = snapshot(first)["layer.bin"]
    assert len(content) == size
    assert len(zlib.compress(content)) > size
    assert (first / "layer.bin").stat().st_mtime == FIXED_TIME
