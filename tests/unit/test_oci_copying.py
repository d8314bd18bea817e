"""Copies by the kernel, and by simpler ways where it will not."""

from __future__ import annotations

import errno
import fcntl
import mmap
import os
from collections.abc import Iterator
from pathlib import Path
from threading import Thread
from types import SimpleNamespace

import pytest

from plp_builder.oci import copying

DATA = os.urandom(1_000_000)
REFUSALS = (
    *(errno.EXDEV, errno.EINVAL, errno.EOPNOTSUPP, errno.ENOSYS, errno.EBADF, errno.EPERM),
    *(errno.EOVERFLOW, errno.ETXTBSY, errno.EIO),
)


class Files:
    """A source that holds ``DATA`` and an empty target."""

    def __init__(self, directory: Path) -> None:
        self.path = directory / "target"
        (directory / "source").write_bytes(DATA)
        self.source = os.open(directory / "source", os.O_RDONLY)
        self.target = os.open(self.path, os.O_RDWR | os.O_CREAT)


@pytest.fixture
def files(tmp_path: Path) -> Iterator[Files]:
    made = Files(tmp_path)
    yield made
    os.close(made.source)
    os.close(made.target)


def refuse(monkeypatch: pytest.MonkeyPatch, name: str, number: int, after: int = 0) -> None:
    """Let ``os.name`` fail, or return 0 for the number 0, from the call after ``after`` others."""
    real = getattr(os, name)
    calls = iter(range(1000))

    def refusing(*args: int) -> int:
        if next(calls) < after:
            return int(real(*args))
        if number:
            raise OSError(number, os.strerror(number))
        return 0

    monkeypatch.setattr(os, name, refusing)


def copied(files: Files, offset: int = 512) -> bytes:
    assert copying.copy(files.source, files.target, len(DATA), offset) == len(DATA)
    data = files.path.read_bytes()
    assert data[:offset] == bytes(offset)
    return data[offset:]


def never(monkeypatch: pytest.MonkeyPatch, *names: str) -> None:
    for name in names:
        monkeypatch.setattr(os, name, lambda *_: pytest.fail("a simpler way than needed"))


@pytest.fixture
def small_windows(monkeypatch: pytest.MonkeyPatch) -> None:
    """Let files of this size be worth direct I/O, and the disk fast."""
    monkeypatch.setattr(copying, "_WINDOW", 1 << 16)
    monkeypatch.setattr(copying, "time", SimpleNamespace(monotonic=lambda: 0.0))


def is_direct(descriptor: int) -> bool:
    return bool(fcntl.fcntl(descriptor, fcntl.F_GETFL) & os.O_DIRECT)


def direct_writes(files: Files, monkeypatch: pytest.MonkeyPatch) -> list[int]:
    """Where direct I/O will have written."""
    real = os.pwrite
    found: list[int] = []

    def writing(target: int, data: bytes, at: int) -> int:
        if is_direct(files.target):
            found.append(at)
        return real(target, data, at)

    monkeypatch.setattr(os, "pwrite", writing)
    return found


def can_direct(files: Files) -> bool:
    """Whether the file system of this directory has direct I/O for a sector's boundary."""
    flags = fcntl.fcntl(files.target, fcntl.F_GETFL)
    try:
        fcntl.fcntl(files.target, fcntl.F_SETFL, flags | os.O_DIRECT)
        with mmap.mmap(files.source, 1 << 16, prot=mmap.PROT_READ) as window:
            return os.pwrite(files.target, window, 512) == 1 << 16
    except OSError:
        return False
    finally:
        fcntl.fcntl(files.target, fcntl.F_SETFL, flags)
        os.ftruncate(files.target, 0)


@pytest.mark.usefixtures("small_windows")
def test_whole_sectors_are_written_past_the_cache(
    files: Files, monkeypatch: pytest.MonkeyPatch
) -> None:
    can = can_direct(files)
    found = direct_writes(files, monkeypatch)
    assert copied(files) == DATA
    assert sorted(found) == [*range(512, 512 + len(DATA), 1 << 16)] if can else len(found) <= 2
    assert not is_direct(files.target)


@pytest.mark.usefixtures("small_windows")
def test_a_slow_disk_is_written_through_the_cache(
    files: Files, monkeypatch: pytest.MonkeyPatch
) -> None:
    clock = iter(range(1000))
    monkeypatch.setattr(copying, "time", SimpleNamespace(monotonic=lambda: float(next(clock))))
    found = direct_writes(files, monkeypatch)
    assert copied(files) == DATA
    assert not found


@pytest.mark.usefixtures("small_windows")
@pytest.mark.parametrize("offset", [1, 511, 513])
def test_no_boundary_of_sectors_no_direct_io(
    files: Files, monkeypatch: pytest.MonkeyPatch, offset: int
) -> None:
    found = direct_writes(files, monkeypatch)
    assert copied(files, offset) == DATA
    assert not found


@pytest.mark.usefixtures("small_windows")
@pytest.mark.parametrize("number", [errno.EINVAL, errno.EFAULT, errno.EIO, errno.ENOSPC, 0])
@pytest.mark.parametrize("after", [0, 2])
def test_the_kernel_takes_over_from_direct_io(
    files: Files, monkeypatch: pytest.MonkeyPatch, number: int, after: int
) -> None:
    refuse(monkeypatch, "pwrite", number, after)
    never(monkeypatch, "sendfile", "preadv")
    assert copied(files) == DATA
    assert not is_direct(files.target)


@pytest.mark.usefixtures("small_windows")
def test_one_thread_is_enough(files: Files, monkeypatch: pytest.MonkeyPatch) -> None:
    def refuse_thread(_: Thread) -> None:
        raise RuntimeError("can't start new thread")

    monkeypatch.setattr(Thread, "start", refuse_thread)
    assert copied(files) == DATA


@pytest.mark.usefixtures("small_windows")
@pytest.mark.parametrize("missed", [0, 1, 7, 14])
def test_a_window_that_fails_alone_is_copied_again(
    files: Files, monkeypatch: pytest.MonkeyPatch, missed: int
) -> None:
    real = os.pwrite

    def writing(target: int, data: bytes, at: int) -> int:
        if at == 512 + (missed << 16):
            raise OSError(errno.EIO, "once")
        return real(target, data, at)

    monkeypatch.setattr(os, "pwrite", writing)
    assert copied(files) == DATA


@pytest.mark.usefixtures("small_windows")
def test_a_short_direct_write_is_continued(files: Files, monkeypatch: pytest.MonkeyPatch) -> None:
    real = os.pwrite
    monkeypatch.setattr(os, "pwrite", lambda target, data, at: real(target, data[:1024], at))
    assert copied(files) == DATA


@pytest.mark.usefixtures("small_windows")
def test_a_source_that_is_cut_meanwhile_is_told_by_the_count(
    files: Files, monkeypatch: pytest.MonkeyPatch
) -> None:
    real = os.pwrite

    def cutting(target: int, data: bytes, at: int) -> int:
        os.truncate(f"/proc/self/fd/{files.source}", (1 << 16) - 100)
        return real(target, data, at)

    monkeypatch.setattr(os, "pwrite", cutting)
    assert copying.copy(files.source, files.target, len(DATA), 512) == (1 << 16) - 100


@pytest.mark.usefixtures("small_windows")
def test_a_copy_that_may_be_a_clone_is_left_to_the_kernel(
    files: Files, monkeypatch: pytest.MonkeyPatch
) -> None:
    found = direct_writes(files, monkeypatch)
    assert copied(files, 0) == DATA
    assert not found


@pytest.mark.usefixtures("small_windows")
def test_what_stops_a_copy_gets_out(files: Files) -> None:
    calls = iter(range(1000))

    def check() -> None:
        if next(calls) == 2:
            raise OSError(errno.EINTR, "stopped")

    with pytest.raises(OSError, match="stopped"):
        copying.copy(files.source, files.target, len(DATA), 512, check)
    assert not is_direct(files.target)


@pytest.mark.usefixtures("small_windows")
def test_more_than_there_is_ends_where_the_source_does(files: Files) -> None:
    assert copying.copy(files.source, files.target, len(DATA) + 500_000, 512) == len(DATA)
    assert files.path.read_bytes()[512:] == DATA


def test_the_kernel_copies(files: Files, monkeypatch: pytest.MonkeyPatch) -> None:
    never(monkeypatch, "sendfile", "preadv")
    assert copied(files) == DATA


@pytest.mark.parametrize("number", [0, *REFUSALS], ids=lambda n: errno.errorcode.get(n, "nothing"))
@pytest.mark.parametrize("after", [0, 2])
def test_sendfile_takes_over(
    files: Files, monkeypatch: pytest.MonkeyPatch, number: int, after: int
) -> None:
    monkeypatch.setattr(copying, "_CHUNK", 100_001)
    never(monkeypatch, "preadv")
    refuse(monkeypatch, "copy_file_range", number, after)
    assert copied(files) == DATA


@pytest.mark.parametrize("number", [0, *REFUSALS], ids=lambda n: errno.errorcode.get(n, "nothing"))
@pytest.mark.parametrize("after", [0, 2])
def test_plain_copies_take_over(
    files: Files, monkeypatch: pytest.MonkeyPatch, number: int, after: int
) -> None:
    monkeypatch.setattr(copying, "_CHUNK", 100_001)
    refuse(monkeypatch, "copy_file_range", number, after)
    refuse(monkeypatch, "sendfile", number, after)
    assert copied(files) == DATA


@pytest.mark.parametrize("names", [[], ["copy_file_range"], ["copy_file_range", "sendfile"]])
def test_a_source_that_ends_early_is_told_by_the_count(
    files: Files, monkeypatch: pytest.MonkeyPatch, names: list[str]
) -> None:
    for name in names:
        refuse(monkeypatch, name, errno.ENOSYS)
    assert copying.copy(files.source, files.target, len(DATA) + 5, 0) == len(DATA)
    assert files.path.read_bytes() == DATA


def test_no_more_is_copied_than_asked_for(files: Files, monkeypatch: pytest.MonkeyPatch) -> None:
    for name in ("", "copy_file_range", "sendfile"):
        if name:
            refuse(monkeypatch, name, errno.EINVAL)
        os.ftruncate(files.target, 0)
        assert copying.copy(files.source, files.target, 300_000, 0) == 300_000
        assert files.path.read_bytes() == DATA[:300_000]


def test_a_full_disk_is_told(files: Files, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(copying, "_CHUNK", 1000)
    for name in ("copy_file_range", "sendfile", "pwrite"):
        refuse(monkeypatch, name, errno.ENOSPC, after=1)
    with pytest.raises(OSError, match="No space left") as failed:
        copying.copy(files.source, files.target, len(DATA), 0)
    assert failed.value.errno == errno.ENOSPC


def test_short_writes_go_on(files: Files, monkeypatch: pytest.MonkeyPatch) -> None:
    real = os.pwrite
    monkeypatch.setattr(os, "pwrite", lambda target, data, at: real(target, data[:7_777], at))
    copying.write_all(files.target, DATA, 3)
    assert files.path.read_bytes() == bytes(3) + DATA
