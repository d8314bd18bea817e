"""Headers that no well-behaved tar has: refused, or read as every other reader would."""

from __future__ import annotations

import io
import tarfile
from typing import BinaryIO, cast

import pytest
from hypothesis import given
from hypothesis import strategies as st

from plp_builder.errors import ArchiveInvalid
from plp_builder.oci import tar

END = b"\0" * 1024


def member(name: str, data: bytes = b"", kind: bytes = tarfile.REGTYPE) -> bytes:
    """A member made by the standard library: its header, its content and the padding."""
    info = tarfile.TarInfo(name)
    info.type = kind
    info.size = len(data)
    return info.tobuf(tarfile.USTAR_FORMAT) + data + b"\0" * (-len(data) % 512)


def pax(data: bytes) -> bytes:
    return member("pax", data, tarfile.XHDTYPE)


def read(data: bytes) -> list[tar.Member]:
    return list(tar.members(io.BytesIO(data), len(data)))


def refuse(data: bytes, reason: str) -> None:
    with pytest.raises(ArchiveInvalid, match=reason):
        read(data)


def test_the_pax_header_of_a_pax_header_is_refused() -> None:
    refuse(pax(b"10 size=3\n") * 2 + member("a", b"abc") + END, "pax header that cannot be right")


def test_pax_headers_without_content_count_too() -> None:
    """Any number of them would be read, and nothing would look whether it is time to stop."""
    refuse(pax(b"") * 2 + member("a", b"abc") + END, "pax header that cannot be right")
    refuse(member("a", b"abc") + pax(b"") + END, "belongs to nothing")
    assert [each.name for each in read(pax(b"") + member("a") + pax(b"") + member("b") + END)] == [
        "a",
        "b",
    ]


def test_a_large_pax_header_is_refused_before_it_is_read() -> None:
    """Its content is not even there."""
    header = pax(b"x" * 100_000)[:512]
    refuse(header, "pax header that cannot be right")


def test_a_pax_header_without_a_member_is_refused() -> None:
    refuse(pax(b"10 size=3\n") + END, "belongs to nothing")


PAX = pax(b"%d comment=%s\n" % (613, b"c" * 600)) + member("a", b"abc") + END


@given(st.integers(1, len(PAX) - 1))
def test_a_tar_with_a_pax_header_that_is_cut_off_anywhere_is_refused(length: int) -> None:
    assert [each.name for each in read(PAX)] == ["a"]
    refuse(PAX[:length], "cut off|not a tar")


def test_a_file_that_shrinks_while_it_is_read_is_refused() -> None:
    data = member("a", b"abc") + END
    with pytest.raises(ArchiveInvalid, match="became shorter"):
        list(tar.members(io.BytesIO(data[:-1]), len(data)))


@pytest.mark.parametrize("name", [".", "./"])
def test_the_directory_above_all_is_no_name_that_leads_elsewhere(name: str) -> None:
    """`tar -C DIRECTORY -cf FILE .` begins with it."""
    data = member(name, kind=tarfile.DIRTYPE) + member("./a") + END
    assert [(each.name, each.is_directory) for each in read(data)] == [(".", True), ("a", False)]


def test_a_size_that_is_left_out_is_none() -> None:
    """As tar programs before POSIX do for directories."""
    header = bytearray(member("a", kind=tarfile.DIRTYPE))
    header[124:136] = b"\0" * 12
    header[148:156] = b" " * 8
    header[148:156] = b"%06o\0 " % sum(header)
    assert [each.size for each in read(bytes(header) + END)] == [0]


def test_half_of_an_end_marker_is_refused() -> None:
    refuse(member("a") + END[:512], "half of an end marker")


class Hole(io.RawIOBase):
    """A file of ``size`` bytes that begins with ``data``; ``seen`` is how far it was read."""

    def __init__(self, data: bytes, size: int) -> None:
        self.seen = 0
        self._data = data
        self._size = size
        self._at = 0

    def seek(self, offset: int, whence: int = 0) -> int:
        assert whence == 0
        self._at = offset
        return offset

    def read(self, size: int = -1) -> bytes:
        begin, end = self._at, min(self._at + size, self._size)
        self._at = end
        self.seen = max(self.seen, end)
        return self._data[begin:end].ljust(end - begin, b"\0")


def test_a_hole_behind_the_end_is_not_read() -> None:
    """A sparse file of terabytes takes no room, and hours to read."""
    data = member("a", b"abc") + END
    file = Hole(data, 6 << 40)
    with pytest.raises(ArchiveInvalid, match=r"goes on for \d+ bytes behind its end"):
        list(tar.members(cast(BinaryIO, file), 6 << 40))
    assert file.seen <= len(data)


def test_padding_up_to_a_block_of_a_tape_is_fine() -> None:
    data = member("a", b"abc") + END
    assert len(read(data.ljust(len(data) + (15 << 20), b"\0"))) == 1
