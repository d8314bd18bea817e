"""The archive is verified beside everything else, and what is wrong comes out where it is asked."""

from __future__ import annotations

import errno
import os
import sys
import threading
from pathlib import Path

import pytest

from plp_builder.errors import ArchiveInvalid, ResourcesExhausted, Terminated
from publisher.verification import SWITCH_INTERVAL, Verification
from tests.support import layouts

LAYERS = [b"one" * 1000, b"two"]


def nothing() -> None:
    return None


@pytest.fixture
def path(tmp_path: Path) -> Path:
    path = tmp_path / "image.tar"
    path.write_bytes(layouts.tar_of(layouts.image_files(layers=LAYERS)))
    return path


def test_an_archive_is_verified_and_stays_open(path: Path) -> None:
    with Verification(path, nothing) as verification:
        verified = verification.result()
        assert verified is verification.result()
        assert verified.path == path
        assert f"sha256:{layouts.sha256(verified.top())}" == verified.artifact.top.digest
        blobs = [blob.descriptor for blob in verified.artifact.blobs.values()]
        assert verified.total == sum(each.size for each in blobs) - verified.artifact.top.size
        assert verified.total > len(b"".join(LAYERS))
        assert not verified.file.closed
    assert verified.file.closed


def test_a_fault_is_told_with_the_file_that_has_it(path: Path) -> None:
    """Also where a directory was named."""
    path.write_bytes(path.read_bytes().replace(LAYERS[0], LAYERS[0][::-1]))
    for given in (path, path.parent):
        with Verification(given, nothing) as verification, pytest.raises(ArchiveInvalid) as caught:
            verification.result()
        assert caught.value.why[0] == f"archive: {path} (PLP_ARTIFACT_PATH)"


def test_the_one_archive_of_a_directory_is_found(path: Path) -> None:
    with Verification(path.parent, nothing) as verification:
        assert verification.result().path == path


def test_a_change_is_seen(path: Path) -> None:
    with Verification(path, nothing) as verification:
        verified = verification.result()
        assert not verified.changed()
        with path.open("r+b") as file:
            file.write(b"x")
        os.utime(path, ns=(0, 0))
        assert verified.changed()


def test_a_change_while_it_is_verified_is_refused(path: Path) -> None:
    def check() -> None:
        if threading.current_thread() is not threading.main_thread():  # it has the file open
            os.utime(path, ns=(0, 0))

    with (
        Verification(path, check) as verification,
        pytest.raises(ArchiveInvalid, match="changed while it was verified"),
    ):
        verification.result()


@pytest.mark.parametrize("data", [b"", b"no archive"])
def test_what_is_wrong_is_raised_where_it_is_waited_for(path: Path, data: bytes) -> None:
    path.write_bytes(data)
    with Verification(path, nothing) as verification, pytest.raises(ArchiveInvalid):
        verification.result()


def test_a_missing_archive_is_raised_too(tmp_path: Path) -> None:
    missing = Verification(tmp_path / "none.tar", nothing)
    with missing, pytest.raises(ArchiveInvalid, match="There is no archive"):
        missing.result()


def test_nobody_has_to_ask(tmp_path: Path) -> None:
    """Where a setting is wrong, the archive does not matter."""
    with Verification(tmp_path / "none.tar", nothing):
        pass


def test_a_stop_is_raised(path: Path) -> None:
    def check() -> None:
        raise Terminated("the publication was asked to end (SIGTERM)")

    with Verification(path, check) as verification, pytest.raises(Terminated):
        verification.result()


def test_it_is_called_off_at_the_end_of_the_block(path: Path) -> None:
    called_off = threading.Event()

    def check() -> None:
        called_off.wait(20)

    with Verification(path, check) as verification:
        verification._called_off = True
        called_off.set()
    with pytest.raises(ValueError, match="called off"):
        verification.result()


def test_threads_take_turns_as_before_when_it_is_over(path: Path) -> None:
    before = sys.getswitchinterval()
    assert before != SWITCH_INTERVAL
    with Verification(path, nothing) as verification:
        verification.result()
        assert sys.getswitchinterval() == pytest.approx(before)


def test_a_stop_does_not_wait_for_a_disk_that_does_not_answer(path: Path) -> None:
    """Neither where the archive is waited for, nor at the end of the block."""
    reached, answers = threading.Event(), threading.Event()

    def check() -> None:
        if threading.current_thread() is threading.main_thread():
            assert reached.wait(20)
            raise Terminated("the publication was asked to end (SIGTERM)")
        reached.set()
        answers.wait(60)

    try:
        with Verification(path, check) as verification, pytest.raises(Terminated):
            verification.result()
        assert verification._thread.is_alive()
    finally:
        answers.set()
    verification._thread.join(20)
    assert verification._verified is None or verification._verified.file.closed


def test_a_lack_of_threads_is_told_as_such(path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def cannot(_: threading.Thread) -> None:
        raise RuntimeError("can't start new thread")

    monkeypatch.setattr(threading.Thread, "start", cannot)
    before = sys.getswitchinterval()
    with pytest.raises(ResourcesExhausted, match="no more threads"), Verification(path, nothing):
        pass
    assert sys.getswitchinterval() == pytest.approx(before)


@pytest.mark.parametrize("function", ["open", "preadv"])
def test_a_lack_of_descriptors_is_not_the_archives_fault(
    path: Path, monkeypatch: pytest.MonkeyPatch, function: str
) -> None:
    def cannot(*_: object, **__: object) -> None:
        raise OSError(errno.EMFILE, os.strerror(errno.EMFILE))

    with Verification(path, nothing) as verification:
        verification.result()  # so that everything is imported
    monkeypatch.setattr(os, function, cannot)
    with Verification(path, nothing) as verification, pytest.raises(ResourcesExhausted):
        verification.result()
