"""Headers of tar members as Go's archive/tar writes them, which is what BuildKit's archives have.

POSIX ustar, with a pax header in front for what does not fit; owned by root, dated 1970.
"""

from __future__ import annotations

from typing import Final

from plp_builder.oci.tar import BLOCK

END: Final = b"\0" * (2 * BLOCK)
"""What follows the last member."""

_FILE, _DIRECTORY, _PAX = b"0", b"5", b"x"
_MAX_OCTAL_SIZE = 8**11 - 1


def file_header(name: str, size: int, *, mode: int = 0o644) -> bytes:
    """All blocks in front of a regular file's content; ``name`` has at most 100 bytes."""
    if size <= _MAX_OCTAL_SIZE:
        return _header(name, size, mode, _FILE)
    directory, slash, base = name.rpartition("/")
    record = _pax_record("size", str(size))
    before = _header(f"{directory}{slash}PaxHeaders.0/{base}", len(record), 0, _PAX)
    return before + record + padding(len(record)) + _header(name, 0, mode, _FILE)


def directory_header(name: str) -> bytes:
    """The header of a directory; ``name`` ends with a slash."""
    return _header(name, 0, 0o755, _DIRECTORY)


def padding(size: int) -> bytes:
    """The zeros behind ``size`` bytes of content up to the next block."""
    return b"\0" * (-size % BLOCK)


def _header(name: str, size: int, mode: int, kind: bytes) -> bytes:
    encoded = name.encode()
    if len(encoded) > 100:
        raise ValueError(f"the name {name!r} is longer than 100 bytes")
    # Go leaves the device numbers of a pax header empty.
    device = b"\0" * 8 if kind == _PAX else b"%07o\0" % 0
    fields = (
        encoded.ljust(100, b"\0"),
        b"%07o\0" % mode,
        b"%07o\0" % 0,
        b"%07o\0" % 0,
        b"%011o\0" % size,
        b"%011o\0" % 0,
        b" " * 8,
        kind,
        b"\0" * 100,
        b"ustar\x0000",
        b"\0" * 64,
        device,
        device,
    )
    header = b"".join(fields).ljust(BLOCK, b"\0")
    return header[:148] + b"%06o\0 " % sum(header) + header[156:]


def _pax_record(key: str, value: str) -> bytes:
    """``LENGTH KEY=VALUE\\n``, where the length counts its own digits."""
    rest = len(f" {key}={value}\n")
    length = rest + len(str(rest))
    length = rest + len(str(length))
    return f"{length} {key}={value}\n".encode()
