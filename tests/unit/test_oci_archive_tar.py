"""Verifying archives: a tar that is none, or that two readers would see differently, is refused."""

from __future__ import annotations

import bz2
import gzip
import io
import lzma
import tarfile
from collections.abc import Callable

import pytest
from hypothesis import given
from hypothesis import strategies as st

from plp_builder.errors import ArchiveInvalid
from plp_builder.oci import tar, walk
from plp_builder.oci.archive import verify
from tests.support import layouts
from tests.support.verifying import END, GOOD, check, refuse


def with_member(change: Callable[[tarfile.TarInfo], None], name: str = "extra") -> bytes:
    """A good archive with one more member that ``change`` has made unusual."""
    buffer = io.BytesIO(layouts.tar_of(layouts.image_files()))
    with tarfile.open(fileobj=buffer, mode="a", format=tarfile.GNU_FORMAT) as tar:
        member = tarfile.TarInfo(name)
        change(member)
        tar.addfile(member, io.BytesIO(b"x" * member.size))
    return buffer.getvalue()


def unchanged(_: tarfile.TarInfo) -> None:
    """Nothing is unusual but the name."""


@pytest.mark.parametrize(
    ("data", "reason"),
    [
        (b"", "is empty"),
        (b"\0" * 10240, "holds no files"),
        (b"hello", "not a tar"),
        (b"x" * 2048, "not a tar"),
        (gzip.compress(b"x" * 2048, mtime=0), "compressed with gzip"),
        (bz2.compress(b"x" * 2048), "compressed with bzip2"),
        (lzma.compress(b"x" * 2048), "compressed with xz"),
        (b"\x28\xb5\x2f\xfd" + b"x" * 2048, "compressed with zstd"),
    ],
)
def test_what_is_no_archive_is_refused(data: bytes, reason: str) -> None:
    refuse(data, reason)


def test_a_compressed_archive_comes_with_the_next_step() -> None:
    assert "gzip -d" in refuse(gzip.compress(b"x" * 2048), "compressed").hint


@given(st.integers(1, END // 512 * 512 + 1024))
def test_an_archive_that_is_cut_off_anywhere_is_refused(length: int) -> None:
    refuse(GOOD[:length], "cut off|not a tar|became shorter")


@given(st.integers(0, END - 1), st.integers(1, 255))
def test_a_flipped_byte_never_changes_what_an_archive_is(position: int, flip: int) -> None:
    """It is refused, or hits what nothing depends on: then all that is read is the same."""
    data = bytearray(GOOD)
    data[position] ^= flip
    try:
        found = check(bytes(data))
    except ArchiveInvalid:
        return
    good = check(GOOD)
    assert (found.top, found.images) == (good.top, good.images)


@pytest.mark.parametrize(
    "name", ["../x", "a/../../x", "/etc/passwd", "a//b", "./../x", "a/./b", "", "blobs/.."]
)
def test_a_name_that_leads_elsewhere_is_refused(name: str) -> None:
    refuse(with_member(unchanged, name), "leads elsewhere|long name")


@pytest.mark.parametrize(
    ("kind", "what"),
    [
        (tarfile.SYMTYPE, "symbolic link"),
        (tarfile.LNKTYPE, "hard link"),
        (tarfile.CHRTYPE, "character device"),
        (tarfile.BLKTYPE, "block device"),
        (tarfile.FIFOTYPE, "FIFO"),
        (tarfile.GNUTYPE_SPARSE, "sparse"),
        (b"Z", "type 'Z'"),
    ],
)
def test_only_files_and_directories_are_taken(kind: bytes, what: str) -> None:
    def change(member: tarfile.TarInfo) -> None:
        member.type = kind
        member.linkname = "index.json"

    refuse(with_member(change), what)


@pytest.mark.parametrize("name", ["index.json", "./index.json", "././index.json"])
def test_a_name_that_comes_twice_is_refused(name: str) -> None:
    refuse(with_member(unchanged, name), "twice")


def test_a_header_whose_checksum_is_wrong_is_refused() -> None:
    """Even where the byte that changed means nothing, as in a member's time."""
    data = bytearray(GOOD)
    data[512 + 136] ^= 1
    refuse(bytes(data), "no valid member header at byte 512")


def test_a_directory_has_no_content() -> None:
    def change(member: tarfile.TarInfo) -> None:
        member.type = tarfile.DIRTYPE
        member.size = 512

    refuse(with_member(change), "directory with content")


def test_the_member_that_is_cut_off_is_named() -> None:
    data = layouts.tar_of({"index.json": b"x" * 5000})
    refuse(data[:4096], "ends inside 'index.json'")


def test_content_behind_the_end_is_refused() -> None:
    refuse(GOOD + b"x" * 512, "behind its end")


@pytest.mark.parametrize("size", [b"99999999999\0", b"-0000000001\0", b"\x80" + b"\xff" * 11])
def test_a_size_that_is_none_is_refused(size: bytes) -> None:
    header = bytearray(layouts.tar_of({"index.json": b""})[1024:1536])
    header[124:136] = size
    header[148:156] = b" " * 8
    header[148:156] = b"%06o\0 " % sum(header)
    refuse(bytes(header) + b"\0" * 1024, "no valid size|directory with content")


def test_a_binary_size_is_read() -> None:
    """GNU's way to write sizes beyond 8 GiB."""
    data = bytearray(GOOD)
    start = data.index(b"index.json")
    length = int(data[start + 124 : start + 135], 8)
    data[start + 124 : start + 136] = b"\x80" + length.to_bytes(11, "big")
    data[start + 148 : start + 156] = b" " * 8
    data[start + 148 : start + 156] = b"%06o\0 " % sum(data[start : start + 512])
    assert check(bytes(data)).top == check(GOOD).top


def test_too_many_members_are_refused(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(tar, "MAX_MEMBERS", 3)
    refuse(GOOD, "more than 3 members")


def test_too_many_blobs_are_refused(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(walk, "MAX_DESCRIPTORS", 3)
    refuse(GOOD, "more than 3 blobs")


def test_padding_behind_the_end_is_no_content() -> None:
    assert check(GOOD + b"\0" * 10240).top == check(GOOD).top


def with_pax(body: bytes) -> bytes:
    """A good archive whose first member, of 3 bytes, has a pax header."""
    buffer = io.BytesIO()
    with tarfile.open(fileobj=buffer, mode="w") as tar:
        header = tarfile.TarInfo("pax")
        header.type = tarfile.XHDTYPE
        header.size = len(body)
        tar.addfile(header, io.BytesIO(body))
        layouts.add_member(tar, "extra", b"abc")
        for name, data in sorted(layouts.image_files().items()):
            layouts.add_member(tar, name, data)
    return buffer.getvalue()


def test_a_pax_header_counts() -> None:
    """Sizes beyond 8 GiB come that way; two readers must not see different members."""
    found = check(with_pax(b"10 size=2\n14 path=other\n"))
    assert found.members["other"].size == 2
    assert "extra" not in found.members


@pytest.mark.parametrize(
    "body",
    [
        b"12 size=999\n",
        b"11 size=-3\n",
        b"99 size=3\n",
        b"10 path=.\n",
        b"0 \n",
        b"size=3\n",
        b"10 size=3\n10 size=3\n",
        b"19 GNU.sparse.map=\n",
        b"29 size=9999999999999999999\n",
    ],
)
def test_a_pax_header_that_cannot_be_right_is_refused(body: bytes) -> None:
    with pytest.raises(ArchiveInvalid):
        check(with_pax(body))


def test_an_archive_that_shrinks_while_it_is_hashed_is_refused() -> None:
    class Shrunk(io.BytesIO):
        def readinto(self, _: object) -> int:
            return 0

    with pytest.raises(ArchiveInvalid, match="became shorter"):
        verify(Shrunk(GOOD))
