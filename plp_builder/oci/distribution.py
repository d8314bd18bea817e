"""Requests and replies of a registry that is only pulled from.

The endpoints are those of the distribution specification's pull category: ``/v2/``, manifests
and blobs by digest.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from plp_builder.tuples import NamedTuple

if TYPE_CHECKING:
    from plp_builder.oci.artifact import Blob

MAX_RANGE = 50


class Request(NamedTuple):
    """What a request asks for; names of headers are in lower case."""

    method: str
    path: str
    headers: dict[str, str]


class Reply(NamedTuple):
    """A status line, headers, and which bytes of which blob follow (none to a HEAD).

    ``stranger``: who asked has not shown that he may.
    """

    status: str
    headers: tuple[tuple[str, str], ...] = ()
    blob: Blob | None = None
    first: int = 0
    length: int = 0
    stranger: bool = False


OK = Reply("200 OK")
NOT_FOUND = Reply("404 Not Found")
NOT_ALLOWED = Reply("405 Method Not Allowed")


def parse(head: bytes) -> Request | None:
    """A request's head, without the empty line at its end; None if it is none."""
    try:
        line, *fields = head.decode("ascii").split("\r\n")
        method, path, version = line.split(" ")
    except ValueError:
        return None
    if version != "HTTP/1.1":
        return None
    headers: dict[str, str] = {}
    for field in fields:
        name, colon, value = field.partition(":")
        if not colon:
            return None
        before = headers.get(name.lower())  # RFC 9110, 5.3: a repeated header is a list
        headers[name.lower()] = f"{before}, {value.strip()}" if before else value.strip()
    return Request(method, path, headers)


def only_reads(request: Request) -> bool:
    """Whether it is a GET or a HEAD, without a body."""
    return request.method in {"GET", "HEAD"} and request.headers.get("content-length", "0") == "0"


def reply(request: Request, blob: Blob, media_type: str) -> Reply:
    """The whole of ``blob``, or the part that is asked for."""
    size = blob.descriptor.size
    headers = (
        ("Content-Type", media_type),
        ("Docker-Content-Digest", str(blob.descriptor.digest)),
        ("Accept-Ranges", "bytes"),
    )
    first, length = _range(request.headers.get("range", ""), size)
    if length < 0:
        return Reply("416 Range Not Satisfiable", (("Content-Range", f"bytes */{size}"),))
    if (first, length) == (0, size):
        return Reply("200 OK", headers, blob, 0, size)
    content_range = ("Content-Range", f"bytes {first}-{first + length - 1}/{size}")
    return Reply("206 Partial Content", (*headers, content_range), blob, first, length)


def _range(text: str, size: int) -> tuple[int, int]:
    """First byte and length of a Range header; all of it where there is none that is simple.

    RFC 9110, 14.2: a server may ignore the header. A negative length is one out of bounds.
    """
    begin, dash, end = text.removeprefix("bytes=").partition("-")
    if not text.startswith("bytes=") or not dash or not begin.isdigit():
        return 0, size
    if (end and not end.isdigit()) or len(text) > MAX_RANGE:
        return 0, size
    first, last = int(begin), min(int(end) if end else size - 1, size - 1)
    return (first, last - first + 1) if first <= last else (0, -1)
