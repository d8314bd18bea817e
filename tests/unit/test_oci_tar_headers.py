"""Headers are what Go's archive/tar writes: read back by others, and compared with its bytes."""

from __future__ import annotations

import hashlib
import io
import tarfile

import pytest

from plp_builder.oci import tar, tar_headers

NAME = "blobs/sha256/" + "a" * 64
LARGE = 8**11
"""The first size that ustar's eleven octal digits cannot tell."""


def digest(data: bytes) -> str:
    return hashlib.sha256(data).hexdigest()


@pytest.mark.parametrize("size", [0, 5, LARGE - 1, LARGE, 2**43])
def test_others_read_them(size: int) -> None:
    header = tar_headers.file_header(NAME, size, mode=0o444)
    with tarfile.open(fileobj=io.BytesIO(header + bytes(1024))) as read:
        member = read.next()
    assert member is not None
    assert (member.name, member.size, member.mode, member.mtime) == (NAME, size, 0o444, 0)
    assert (len(header) == tar.BLOCK) == (size < LARGE)


def test_the_strict_reader_takes_a_large_member() -> None:
    header = tar_headers.file_header(NAME, LARGE)

    class Sparse(io.BytesIO):
        """The header, zeros, and the end."""

        def read(self, count: int | None = -1, /) -> bytes:
            assert count is not None
            data = super().read(count)
            return data + bytes(count - len(data))

    (found,) = tar.members(Sparse(header), len(header) + LARGE + len(tar_headers.END))
    assert found == tar.Member(NAME, len(header), LARGE, is_directory=False)


def test_they_are_those_of_go() -> None:
    """Made by archive/tar of Go 1.26 from the same names, sizes and modes."""
    headers = {
        "directory": tar_headers.directory_header("blobs/sha256/"),
        "small": tar_headers.file_header(NAME, 5, mode=0o444),
        "largest": tar_headers.file_header(NAME, LARGE - 1, mode=0o444),
        "larger": tar_headers.file_header(NAME, LARGE, mode=0o444),
    }
    assert {name: digest(header) for name, header in headers.items()} == GO


def test_a_name_that_does_not_fit_is_a_mistake() -> None:
    with pytest.raises(ValueError, match="longer than 100"):
        tar_headers.file_header("x" * 101, 0)


GO = {
    "directory": "1a69d1a3e15a7f90c3f0c4c84d1fdc268a7c76bc19d5e5ef2ea76394144e5b83",
    "small": "90916f4b3a082617d601cba08060578af0599f23ba96847f8820c4c337602131",
    "largest": "2165e5c04f0c0128733da89417948a33953d7c2a00d796e3e88da67337007dc1",
    "larger": "c46ea7219e829bd0b585375a044b5e8422ccdea57b0489408d3a02003e1a24b9",
}
