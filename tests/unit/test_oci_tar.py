"""Headers that no well-behaved tar has: refused, or read as every other reader would."""

from __future__ import annotations

import io
import tarfile

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
