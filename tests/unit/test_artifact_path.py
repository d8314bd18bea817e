"""Which file a path means: an archive, or the one archive of a directory."""

from __future__ import annotations

import os
from pathlib import Path

import pytest

from plp_builder.errors import ArchiveInvalid
from plp_builder.oci import artifact
from tests.support import layouts, malformed
from tests.support.artifacts import read


def test_a_file_is_taken_as_it_is(tmp_path: Path) -> None:
    path = tmp_path / "any name"
    path.write_bytes(malformed.good())
    assert artifact.choose(path) == path
    with artifact.opened(path) as file:
        assert artifact.read(file, check=lambda: None).top == read(malformed.good()).top


@pytest.mark.parametrize("name", ["a.tar", "a.tar.gz", "a.tgz"])
def test_the_one_archive_of_a_directory_is_taken(tmp_path: Path, name: str) -> None:
    for other in ("result.json", ".hidden.tar", "report.html"):
        (tmp_path / other).touch()
    (tmp_path / "directory.tar").mkdir()
    os.mkfifo(tmp_path / "fifo.tar")
    (tmp_path / name).touch()
    assert artifact.choose(tmp_path) == tmp_path / name


def test_a_link_to_an_archive_is_one(tmp_path: Path) -> None:
    """Volumes of Kubernetes are full of links."""
    (tmp_path / "data").touch()
    (tmp_path / "image.tar").symlink_to("data")
    assert artifact.choose(tmp_path) == tmp_path / "image.tar"


@pytest.mark.parametrize("count", [2, 15])
def test_several_archives_in_a_directory_are_named(tmp_path: Path, count: int) -> None:
    for number in range(count):
        (tmp_path / f"{number:02}\n.tar").touch()
    with pytest.raises(ArchiveInvalid, match=f"There are {count} archives") as refused:
        artifact.choose(tmp_path)
    assert refused.value.why[:2] == ("'00\\n.tar'", "'01\\n.tar'")
    assert len(refused.value.why) <= 11


def test_a_directory_without_archives_is_refused(tmp_path: Path) -> None:
    (tmp_path / "result.json").touch()
    with pytest.raises(ArchiveInvalid, match="no archive in the directory"):
        artifact.choose(tmp_path)


def test_an_unpacked_layout_comes_with_the_next_step(tmp_path: Path) -> None:
    layouts.write(tmp_path, layouts.image_files())
    with pytest.raises(ArchiveInvalid, match="not in an archive") as refused:
        artifact.choose(tmp_path)
    assert "tar -C" in refused.value.hint


def test_what_is_missing_is_refused(tmp_path: Path) -> None:
    for path in (tmp_path / "missing.tar", tmp_path / "no" / "directory"):
        for look in (artifact.choose, artifact.opened):
            with pytest.raises(ArchiveInvalid, match="There is no archive at"):
                look(path)
    (tmp_path / "file").touch()
    with pytest.raises(ArchiveInvalid, match="cannot be read") as refused:
        artifact.choose(tmp_path / "file" / "x")
    assert refused.value.why == ("Not a directory",)
    (tmp_path / "loop").symlink_to("loop")
    with pytest.raises(ArchiveInvalid, match="cannot be read"):
        artifact.choose(tmp_path / "loop")


def test_what_is_no_regular_file_is_refused_without_waiting(tmp_path: Path) -> None:
    os.mkfifo(tmp_path / "fifo")
    for path in (tmp_path / "fifo", Path("/dev/null")):
        with pytest.raises(ArchiveInvalid, match="is not a regular file"):
            artifact.choose(path)
