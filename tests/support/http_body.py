"""The body of a request, for servers of the standard library, which leave reading it to others."""

from __future__ import annotations

from email.message import Message
from io import BufferedIOBase


def read(headers: Message, file: BufferedIOBase) -> bytes:
    """All of it, of announced length or in chunks (RFC 9112, 7.1): skopeo sends both."""
    if headers.get("Transfer-Encoding", "").lower() != "chunked":
        return file.read(int(headers.get("Content-Length", 0)))
    data = b""
    while size := int(file.readline().partition(b";")[0], 16):
        data += file.read(size)
        file.readline()
    file.readline()
    return data
