"""A layer's two digests, of its bytes as they are and of its uncompressed content, in one go."""

from __future__ import annotations

import hashlib
import zlib
from collections.abc import Callable
from threading import Lock

from plp_builder.errors import ArchiveInvalid
from plp_builder.oci.model import Digest, invalid

MAX_UNPACKED = 64 * 1024**3
"""Bytes, of all layers of an image. None is that large, but some MB of gzip can claim to be."""

_GZIP = b"\x1f\x8b"
_OTHERS = {b"\x28\xb5\x2f\xfd": "zstd", b"BZh": "bzip2", b"\xfd7zXZ\x00": "xz"}
_PIECE = 256 * 1024
_FIRST_BITE = 4096
_SPENT_AT_ONCE = 4 * 1024 * 1024


class Allowance:
    """How much all layers together may hold once they are unpacked; several threads spend it."""

    def __init__(self) -> None:
        self._left = MAX_UNPACKED
        self._lock = Lock()

    def spend(self, size: int) -> None:
        """Take ``size`` bytes of it. Raises ArchiveInvalid when it is used up."""
        with self._lock:
            self._left -= size
            spent = self._left < 0
        if spent:
            raise ArchiveInvalid(
                f"The archive's layers have more than {MAX_UNPACKED} bytes of content",
                hint="Save the image as an OCI archive: its layers need not be unpacked.",
            )


class LayerHash:
    """Fed with a layer piece by piece; knows both digests when `finish` was called.

    ``suffix`` is what the compression adds to the layer's media type. Raises ArchiveInvalid for
    gzip that is damaged, and for compressions that cannot be looked into here.
    """

    def __init__(self, where: str, spend: Callable[[int], None]) -> None:
        """``where`` names the layer in errors.

        ``spend`` is told every few MB how many bytes were unpacked, and may raise.
        """
        self._where = f"the layer {where}"
        self._spend = spend
        self._stored = hashlib.sha256()
        self._gzip: _Gzip | None = None
        self._begun = False

    @property
    def suffix(self) -> str:
        """Of the media type."""
        return "+gzip" if self._gzip else ""

    @property
    def digest(self) -> Digest:
        """Of the bytes as they are."""
        return Digest(f"sha256:{self._stored.hexdigest()}")

    @property
    def diff_id(self) -> Digest:
        """Of the uncompressed content."""
        content = self._gzip.content if self._gzip else self._stored
        return Digest(f"sha256:{content.hexdigest()}")

    def update(self, piece: memoryview) -> None:
        """Take the next bytes."""
        if not self._begun:
            self._begin(bytes(piece[:6]))
        self._stored.update(piece)
        if self._gzip:
            self._gzip.update(piece)

    def finish(self) -> None:
        """Say that this was all."""
        if self._gzip:
            self._gzip.finish()

    def _begin(self, start: bytes) -> None:
        self._begun = True
        for magic, name in _OTHERS.items():
            if start.startswith(magic):
                invalid(
                    self._where,
                    f"is compressed with {name}: in this form of archive only gzip is supported",
                )
        if start.startswith(_GZIP):
            self._gzip = _Gzip(self._where, self._spend)


class _Gzip:
    """The digest of what a gzip stream holds, which may have several members (RFC 1952, 2.2)."""

    def __init__(self, where: str, spend: Callable[[int], None]) -> None:
        self._where = where
        self._spend = spend
        self._spent = 0
        self.content = hashlib.sha256()
        self._begin()

    def _begin(self) -> None:
        self._stream = zlib.decompressobj(wbits=31)
        # zlib copies what it leaves over: of a small member's input it gets little at once.
        self._bite = _FIRST_BITE

    def update(self, piece: memoryview) -> None:
        position = 0
        while position < len(piece):
            if self._stream.eof:
                self._begin()
            bite = piece[position : position + self._bite]
            self._take(bite)
            left = self._stream.unused_data if self._stream.eof else self._stream.unconsumed_tail
            position += len(bite) - len(left)
            self._bite = min(2 * self._bite, _PIECE)

    def finish(self) -> None:
        # What was left in the stream when the last piece filled the output.
        while not self._stream.eof:
            if not self._take(b""):
                invalid(self._where, "is cut off: its gzip stream has no end")
        self._spend(self._spent)

    def _take(self, data: bytes | memoryview) -> int:
        try:
            content = self._stream.decompress(data, _PIECE)
        except zlib.error as error:
            invalid(self._where, f"is not valid gzip: {error}")
        self.content.update(content)
        # An empty member is work as well: without this, millions of them would take no time.
        self._spent += max(len(content), _FIRST_BITE)
        if self._spent >= _SPENT_AT_ONCE:
            self._spend(self._spent)
            self._spent = 0
        return len(content)
