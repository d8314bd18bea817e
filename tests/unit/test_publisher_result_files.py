"""Files of results: whole or not at all, and only what is an ordinary file is replaced."""

from __future__ import annotations

import os
from pathlib import Path

import pytest

from publisher.results import files


def test_a_file_is_written_whole_or_not_at_all(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    path = tmp_path / "result"
    files.put(path, "old")
    inode = path.stat().st_ino

    def full(_descriptor: int) -> None:
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(os, "fsync", full)
    for name in ("new", "result"):
        with pytest.raises(OSError, match="No space"):
            files.put(tmp_path / name, "text")
    assert [entry.name for entry in tmp_path.iterdir()] == ["result"]
    assert path.read_text() == "old"
    monkeypatch.undo()
    files.put(path, "new")
    assert path.read_text() == "new"
    assert path.stat().st_ino != inode


def test_a_file_that_cannot_be_replaced_is_written_to(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A file that is a mount of its own: rename(2) says EBUSY."""
    path = tmp_path / "termination-log"
    path.write_text("a longer text than the new one")

    def busy(self: Path, target: Path) -> Path:
        raise OSError(16, "Device or resource busy")

    monkeypatch.setattr(Path, "replace", busy)
    inode = path.stat().st_ino
    files.put(path, "new")
    assert path.read_text() == "new"
    assert path.stat().st_ino == inode
    assert [entry.name for entry in tmp_path.iterdir()] == ["termination-log"]


@pytest.mark.parametrize("old", ["", "old", "an older text that is longer than the new one"])
def test_a_write_that_ends_in_the_middle_leaves_what_was_there(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, old: str
) -> None:
    path = tmp_path / "result"
    path.write_text(old)
    write = os.write

    def filling(descriptor: int, data: bytes) -> int:
        if len(data) < len("a new text"):
            raise OSError(28, "No space left on device")
        return write(descriptor, data[:4])

    def busy(self: Path, target: Path) -> Path:
        raise OSError(16, "Device or resource busy")

    monkeypatch.setattr(os, "write", filling)
    for how in (files.put, files.append):
        with pytest.raises(OSError, match="No space"):
            how(path, "a new text")
    monkeypatch.setattr(Path, "replace", busy)
    monkeypatch.setattr(files, "_replace", lambda path, _text: path.replace(path))
    with pytest.raises(OSError, match="No space"):
        files.put(path, "a new text")
    assert path.read_text() == old


def test_a_file_that_cannot_be_taken_away_is_emptied(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    path = tmp_path / "digest"
    path.write_text("sha256:…")

    def busy(self: Path, missing_ok: bool = False) -> None:
        raise OSError(16, "Device or resource busy")

    monkeypatch.setattr(Path, "unlink", busy)
    files.remove(path)
    assert path.read_text() == ""


def test_what_is_no_ordinary_file_stays_what_it_is(tmp_path: Path) -> None:
    files.put(Path("/dev/null"), "text")
    assert not Path("/dev/null").is_file()
    target, link = tmp_path / "target", tmp_path / "link"
    target.write_text("")
    link.symlink_to(target)
    files.put(link, "text")
    assert link.is_symlink()
    assert target.read_text() == "text"
    assert [entry.name for entry in tmp_path.iterdir() if entry.name.startswith(".")] == []
    files.remove(link)
    assert link.is_symlink()
    assert not target.exists()
    files.put(link, "again")
    assert target.read_text() == "again"
    os.mkfifo(tmp_path / "pipe")
    with pytest.raises(OSError, match="No such device"):
        files.put(tmp_path / "pipe", "nobody reads this")
