"""What killed daemons leave goes, and nothing that lies behind a link."""

from __future__ import annotations

from pathlib import Path

import pytest

from plp_builder.cache.leavings import remove_leavings


def write(path: Path, content: str = "x") -> Path:
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(content)
    return path


@pytest.fixture
def worker(tmp_path: Path) -> Path:
    found = tmp_path / "root/runc-overlayfs"
    write(found / "content/blobs/sha256" / ("1" * 64))
    write(found / "snapshots/snapshots/1/fs/file")
    write(found / "metadata_v2.db")
    write(tmp_path / "root/cache.db")
    return found


def files(directory: Path) -> set[str]:
    return {str(path.relative_to(directory)) for path in directory.rglob("*") if not path.is_dir()}


def test_parts_of_blobs_and_what_steps_were_given_go(tmp_path: Path, worker: Path) -> None:
    root = tmp_path / "root"
    kept = files(root)
    kept |= {f"runc-overlayfs/executor/{name}" for name in ("resolv.conf", "runc-log.json")}
    for name in ("data", "ref", "startedat", "total"):
        write(worker / "content/ingest" / ("2" * 64) / name)
    for name in ("resolv.conf", "runc-log.json", "hosts.9418h5", "y5ptx9/config.json"):
        write(worker / "executor" / name)
    (worker / "executor/y5ptx9/rootfs").mkdir()
    remove_leavings(root)
    assert files(root) == kept
    assert list((worker / "content/ingest").iterdir()) == []
    assert {path.name for path in (worker / "executor").iterdir()} == {
        "resolv.conf",
        "runc-log.json",
    }


def test_what_lies_deeper_stays(tmp_path: Path, worker: Path) -> None:
    """A step's files, were they still mounted there."""
    file = write(worker / "executor/y5ptx9/rootfs/etc/passwd")
    remove_leavings(tmp_path / "root")
    assert file.exists()


@pytest.mark.parametrize("link", ["content", "content/ingest", "content/ingest/part", "executor"])
def test_no_link_is_followed(tmp_path: Path, worker: Path, link: str) -> None:
    for name in ("ingest/part/data", "part/data", "data"):
        write(tmp_path / "elsewhere" / name)
    before = files(tmp_path / "elsewhere")
    path = worker / link
    if path.exists():
        path.rename(tmp_path / "moved")
    path.parent.mkdir(parents=True, exist_ok=True)
    path.symlink_to(tmp_path / "elsewhere")
    remove_leavings(tmp_path / "root")
    assert files(tmp_path / "elsewhere") == before


def test_a_worker_that_is_a_link_is_not_followed(tmp_path: Path) -> None:
    file = write(tmp_path / "elsewhere/content/ingest/part/data")
    (tmp_path / "root").mkdir()
    (tmp_path / "root/runc-overlayfs").symlink_to(tmp_path / "elsewhere")
    remove_leavings(tmp_path / "root")
    assert file.exists()


def test_where_nothing_is_nothing_happens(tmp_path: Path) -> None:
    remove_leavings(tmp_path / "missing")
    (tmp_path / "root").mkdir()
    remove_leavings(tmp_path / "root")
    assert list((tmp_path / "root").iterdir()) == []
