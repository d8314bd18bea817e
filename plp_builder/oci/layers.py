"""A layer's two digests, of its bytes as they are and of its uncompressed content, in one go."""

from __future__ import annotations

import hashlib
import zlib

from plp_builder.oci.model import Digest, invalid

MAX_UNPACKED = 64 * 1024**3
"""Bytes. No layer is that large, but a few MB of gzip can claim to be."""

_GZIP = b"\x1f\x8b"
_OTHERS = {b"\x28\xb5\x2f\xfd": "zstd", b"BZh": "bzip2", b"\xfd7zXZ\x00": "xz"}
_PIECE = 256 * 1024


class LayerHash:
    """Fed with a layer piece by piece; knows both digests when `finish` was called.

    ``suffix`` is what the compression adds to the layer's media type. Raises ArchiveInvalid for
    gzip that is damaged or endless, and for compressions that cannot be looked into here.
    """

    def __init__(self, where: str) -> None:
        """``where`` names the layer in errors."""
        self._where = f"the layer {where}"
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
            self._gzip = _Gzip(self._where)


class _Gzip:
    """The digest of what a gzip stream holds, which may have several members (RFC 1952, 2.2)."""

    def __init__(self, where: str) -> None:
        self._where = where
        self.content = hashlib.sha256()
        self._stream = zlib.decompressobj(wbits=31)
        self._unpacked = 0

    def update(self, piece: memoryview) -> None:
        rest: bytes | memoryview = piece
        while rest:
            if self._stream.eof:
                self._stream = zlib.decompressobj(wbits=31)
            self._take(rest)
            rest = self._stream.unconsumed_tail or self._stream.unused_data

    def finish(self) -> None:
        # What was left in the stream when the last piece filled the output.
        while not self._stream.eof:
            if not self._take(b""):
                invalid(self._where, "is cut off: its gzip stream has no end")

    def _take(self, data: bytes | memoryview) -> int:
        try:
            content = self._stream.decompress(data, _PIECE)
        except zlib.error as error:
            invalid(self._where, f"is not valid gzip: {error}")
        self.content.update(content)
        self._unpacked += len(content)
        if self._unpacked > MAX_UNPACKED:
            invalid(self._where, f"has more than {MAX_UNPACKED} bytes of content")
        return len(content)
