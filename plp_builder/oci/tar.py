"""A strict reader of the tar files that image layouts travel in (POSIX ustar and pax).

Smaller than tarfile and stricter: only regular files and directories, each name once, names
that stay inside, a proper end. Whatever two readers could take differently is refused.
Symbolic links are told to those who ask for them: docker save made some up to Docker 24.
"""

from __future__ import annotations

import os
from collections.abc import Iterator
from typing import BinaryIO

from plp_builder.errors import ArchiveInvalid
from plp_builder.oci.model import shown
from plp_builder.tuples import NamedTuple

BLOCK = 512
MAX_MEMBERS = 100_000
MAX_NAME = 512
"""Characters. No image layout has names of more than about 150."""

_MAX_PAX_SIZE = 64 * 1024
_PADDING_CHUNK = 1024 * 1024
_MAX_PADDING = 16 * 1024 * 1024
"""Bytes from the end marker on. tar programs fill up to 10 KiB, or to the blocks of a tape."""

_COMPRESSED = {
    b"\x1f\x8b": "gzip",
    b"\x28\xb5\x2f\xfd": "zstd",
    b"BZh": "bzip2",
    b"\xfd7zXZ\x00": "xz",
}
_REFUSED_TYPES = {
    b"1": "a hard link",
    b"3": "a character device",
    b"4": "a block device",
    b"6": "a FIFO",
    b"7": "a contiguous file",
    b"S": "a sparse file",
    b"g": "a global header",
    b"K": "a long link name",
    b"L": "a long name",
}
_LINK = "a symbolic link"


class Member(NamedTuple):
    """One file or directory: its name, and where in the tar its ``size`` bytes begin.

    ``target`` is where a symbolic link points to, unchecked, and empty for all others.
    """

    name: str
    offset: int
    size: int
    is_directory: bool
    target: str = ""

    @property
    def is_file(self) -> bool:
        """Whether it has content of its own."""
        return not (self.is_directory or self.target)


def members(file: BinaryIO, size: int, *, links: bool = False) -> Iterator[Member]:
    """The members of the tar in ``file``, which is seekable and ``size`` bytes long.

    Symbolic links are refused unless ``links`` are wanted. Reads headers only; the file's
    position is undefined afterwards. Raises ArchiveInvalid.
    """
    _refuse_other_formats(file, size)
    names: set[str] = set()
    offset = 0
    overrides: dict[str, str] | None = None
    while header := _header(file, offset, size):
        offset += BLOCK
        kind = header[156:157]
        length = _number(header[124:136], offset)
        if kind == b"x":
            # One for each member at most: so their number has a bound as well.
            if overrides is not None or length > _MAX_PAX_SIZE:
                raise ArchiveInvalid("The archive has a pax header that cannot be right")
            overrides = _pax_records(read(file, offset, length, size))
            offset += _padded(length)
            continue
        member = _member(header, kind, length, offset, overrides or {})
        overrides = None
        if member.target and not links:
            raise refused_link(member)
        if member.name in names:
            raise ArchiveInvalid(f"The archive holds {shown(member.name)} twice")
        if len(names) >= MAX_MEMBERS:
            raise ArchiveInvalid(f"The archive has more than {MAX_MEMBERS} members")
        names.add(member.name)
        if offset + member.size > size:
            raise _truncated(f"ends inside {shown(member.name)}")
        yield member
        offset += _padded(member.size)
    if overrides is not None:
        raise ArchiveInvalid("The archive ends with a pax header that belongs to nothing")
    if not names:
        raise ArchiveInvalid("The archive holds no files")
    _check_end(file, offset, size)


def read(file: BinaryIO, offset: int, length: int, size: int) -> bytes:
    """``length`` bytes at ``offset``; ArchiveInvalid where the file ends before."""
    if offset + length > size:
        raise _truncated("ends too early")
    file.seek(offset)
    data = file.read(length)
    if len(data) != length:
        raise _truncated("became shorter while it was read")
    return data


def refused_link(member: Member) -> ArchiveInvalid:
    """The refusal of a symbolic link."""
    return _refused(_LINK, member.name)


def _refuse_other_formats(file: BinaryIO, size: int) -> None:
    if size == 0:
        raise ArchiveInvalid("The archive is empty")
    start = read(file, 0, min(size, 8), size)
    if start.startswith((b"PK\3\4", b"PK\5\6")):
        raise ArchiveInvalid("The archive is a zip file, not a tar file")
    for magic, name in _COMPRESSED.items():
        if start.startswith(magic):
            raise ArchiveInvalid(
                f"The archive is compressed with {name}",
                hint=f"Decompress it first ({name} -d); its layers are compressed already.",
            )


def _header(file: BinaryIO, offset: int, size: int) -> bytes:
    """The header at ``offset``; nothing at the end of the archive."""
    if offset + BLOCK > size:
        if offset == 0:
            raise ArchiveInvalid("The archive is not a tar file")
        raise _truncated("has no end marker")
    header = read(file, offset, BLOCK, size)
    if header.count(0) == BLOCK:
        return b""
    # The magic alone decides nothing: the checksum is what tells a header from other bytes.
    unsigned = sum(header) - sum(header[148:156]) + 8 * ord(" ")
    if header[257:262] != b"ustar" or _octal(header[148:156]) != unsigned:
        if offset == 0:
            raise ArchiveInvalid("The archive is not a tar file")
        raise ArchiveInvalid(f"The archive has no valid member header at byte {offset}")
    return header


def _member(
    header: bytes, kind: bytes, length: int, offset: int, overrides: dict[str, str]
) -> Member:
    prefix = _string(header[345:500]) if header[257:263] == b"ustar\0" else ""
    name = _string(header[:100])
    name = overrides.get("path", f"{prefix}/{name}" if prefix else name)
    if kind not in {b"0", b"\0", b"2", b"5"}:
        what = _REFUSED_TYPES.get(kind, f"a member of type {shown(kind.decode('latin-1'))}")
        raise _refused(what, name)
    if "size" in overrides:
        digits = overrides["size"]
        if not (digits.isascii() and digits.isdigit() and len(digits) < 20):
            raise ArchiveInvalid(f"The archive gives no valid size for {shown(name)}")
        length = int(digits)
    if length and kind in {b"2", b"5"}:
        what = "directory" if kind == b"5" else "link"
        raise ArchiveInvalid(f"The archive has a {what} with content, {shown(name)}")
    target = ""
    if kind == b"2":
        target = overrides.get("linkpath", _string(header[157:257])) or "."
    name = _safe_name(name, is_directory=kind == b"5")
    return Member(name, offset, length, kind == b"5", target)


def _refused(what: str, name: str) -> ArchiveInvalid:
    return ArchiveInvalid(f"The archive holds {what}, {shown(name)}: no image layout has one")


def _safe_name(name: str, *, is_directory: bool) -> str:
    if len(name) > MAX_NAME:
        raise ArchiveInvalid(f"The archive holds a name of {len(name)} characters, {shown(name)}")
    relative = name.rstrip("/") if is_directory else name
    while relative.startswith("./"):
        relative = relative[2:]
    if is_directory and relative in {"", "."} and name.startswith("."):
        return "."
    if any(part in {"", ".", ".."} for part in relative.split("/")) or "\0" in relative:
        raise ArchiveInvalid(f"The archive holds a name that leads elsewhere, {shown(name)}")
    return relative


def _pax_records(data: bytes) -> dict[str, str]:
    """Records "LENGTH KEY=VALUE\\n" (POSIX pax, extended header)."""
    records: dict[str, str] = {}
    while data:
        digits, _, _ = data[:21].partition(b" ")
        length = int(digits) if digits.isdigit() else 0
        record = data[len(digits) + 1 : length]
        key, equals, value = record[:-1].partition(b"=")
        if not (record.endswith(b"\n") and equals and length <= len(data)):
            raise ArchiveInvalid("The archive has a pax header that cannot be read")
        name = key.decode(errors="replace")
        if name in records or name.startswith("GNU.sparse"):
            raise ArchiveInvalid(
                f"The archive has a pax header that is not used here: {shown(name)}"
            )
        records[name] = value.decode(errors="surrogateescape")
        data = data[length:]
    return records


def _number(field: bytes, offset: int) -> int:
    """A size: octal digits, or big-endian binary when the first bit is set (GNU)."""
    value = int.from_bytes(field[1:], "big") if field[0] == 0x80 else _octal(field)
    if value is None or value >= 2**63:
        raise ArchiveInvalid(f"The archive has a member of no valid size at byte {offset - BLOCK}")
    return value


def _octal(field: bytes) -> int | None:
    digits = field.strip(b" \0")
    if not digits:
        return 0
    return int(digits, 8) if all(digit in b"01234567" for digit in digits) else None


def _string(field: bytes) -> str:
    return field.partition(b"\0")[0].decode(errors="surrogateescape")


def _padded(size: int) -> int:
    return -(-size // BLOCK) * BLOCK


def _check_end(file: BinaryIO, offset: int, size: int) -> None:
    """Two blocks of zeros, and nothing but zeros behind them."""
    if size - offset < 2 * BLOCK:
        raise _truncated("has half of an end marker")
    if size - offset > _MAX_PADDING:
        raise ArchiveInvalid(
            f"The archive goes on for {size - offset} bytes behind its end",
            hint=f"Make it again: more than {_MAX_PADDING} bytes of padding are not read.",
        )
    while offset < size:
        chunk = read(file, offset, min(_PADDING_CHUNK, size - offset), size)
        if chunk.count(0) != len(chunk):
            raise ArchiveInvalid("The archive has content behind its end")
        offset += len(chunk)


def _truncated(how: str) -> ArchiveInvalid:
    return ArchiveInvalid(
        f"The archive is cut off: it {how}",
        hint="Make or copy it again; the disk may have been full.",
    )


def file_size(file: BinaryIO) -> int:
    """The size of a seekable file in bytes."""
    return file.seek(0, os.SEEK_END)
