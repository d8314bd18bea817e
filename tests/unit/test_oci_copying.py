"""Copies by the kernel, and by simpler ways where it will not."""

from __future__ import annotations

import errno
import os
from collections.abc import Iterator
from pathlib import Path

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
