"""What the archive's own registry answers; sockets are in the integration tests."""

from __future__ import annotations

import pytest

from plp_builder.oci.artifact import Artifact, Blob
from plp_builder.oci.distribution import Reply, Request, parse
from plp_builder.oci.model import INDEX_TYPE, MANIFEST_TYPE, Descriptor, Digest
from publisher.source import answer

KEY = "Basic a2V5"
MANIFEST = Digest("sha256:" + "a" * 64)
LAYER = Digest("sha256:" + "b" * 64)
TOP = Descriptor(MANIFEST_TYPE, MANIFEST, 7)
ARTIFACT = Artifact(
    size=1000,
    form="oci",
    top=TOP,
    blobs={
        MANIFEST: Blob(TOP, 512, None),
        LAYER: Blob(Descriptor("application/vnd.oci.image.layer.v1.tar", LAYER, 100), 600, None),
    },
    images=(),
    platforms=(),
)


def ask(path: str, method: str = "GET", **headers: str) -> Reply:
    headers = {"authorization": KEY, **headers}
    return answer(Request(method, path, headers), ARTIFACT, KEY)


def test_a_manifest_has_its_own_media_type() -> None:
    reply = ask(f"/v2/archive/manifests/{MANIFEST}")
    assert reply.status == "200 OK"
    assert dict(reply.headers)["Content-Type"] == MANIFEST_TYPE
    assert dict(reply.headers)["Docker-Content-Digest"] == MANIFEST
    assert (reply.blob, reply.first, reply.length) == (ARTIFACT.blobs[MANIFEST], 0, 7)


def test_an_index_is_a_manifest_too() -> None:
    top = TOP._replace(media_type=INDEX_TYPE)
    artifact = ARTIFACT._replace(top=top, blobs={MANIFEST: Blob(top, 512, None)})
    request = Request("GET", f"/v2/archive/manifests/{MANIFEST}", {"authorization": KEY})
    assert dict(answer(request, artifact, KEY).headers)["Content-Type"] == INDEX_TYPE


@pytest.mark.parametrize("method", ["GET", "HEAD"])
def test_a_blob_is_there(method: str) -> None:
    reply = ask(f"/v2/archive/blobs/{LAYER}", method)
    assert (reply.status, reply.length) == ("200 OK", 100)


@pytest.mark.parametrize(
    "path",
    [
        "/",
        "/v2",
        "/v2/_catalog",
        "/v2/archive/tags/list",
        "/v2/archive/manifests/latest",
        f"/v2/archive/manifests/{LAYER}",
        f"/v2/archive/blobs/sha256:{'c' * 64}",
        f"/v2/other/blobs/{LAYER}",
        f"/v2/archive/blobs/{LAYER}/",
        f"/v2/archive/blobs/../blobs/{LAYER}",
        f"//v2/archive/blobs/{LAYER}",
        "/v2/archive/blobs/",
    ],
)
def test_there_is_nothing_else(path: str) -> None:
    assert ask(path) == Reply("404 Not Found")


@pytest.mark.parametrize("method", ["PUT", "POST", "PATCH", "DELETE", "get", "OPTIONS"])
def test_nothing_can_be_written(method: str) -> None:
    assert ask(f"/v2/archive/blobs/{LAYER}", method).status == "405 Method Not Allowed"


def test_a_request_with_a_body_is_refused() -> None:
    assert ask("/v2/", **{"content-length": "5"}).status.startswith("405")


@pytest.mark.parametrize(
    "given", ["", "Basic", "Basic a2V", "Basic a2V5x", "basic a2V5", "Bearer x"]
)
@pytest.mark.parametrize("path", ["/v2/", f"/v2/archive/blobs/{LAYER}", "/nothing"])
def test_nothing_is_said_without_the_password(path: str, given: str) -> None:
    reply = ask(path, authorization=given)
    assert reply.status == "401 Unauthorized"
    assert reply.headers == (("WWW-Authenticate", 'Basic realm="archive"'),)
    assert reply.blob is None


@pytest.mark.parametrize(
    ("header", "first", "length"),
    [
        ("bytes=0-", 0, 100),
        ("bytes=0-99", 0, 100),
        ("bytes=10-", 10, 90),
        ("bytes=10-19", 10, 10),
        ("bytes=99-", 99, 1),
        ("bytes=10-5000", 10, 90),
        # What is not understood is no range: RFC 9110, 14.2.
        ("bytes=-5", 0, 100),
        ("bytes=1-2,4-5", 0, 100),
        ("bytes=a-b", 0, 100),
        ("bits=1-2", 0, 100),
        (f"bytes={'9' * 5000}-", 0, 100),
        ("", 0, 100),
    ],
)
def test_ranges(header: str, first: int, length: int) -> None:
    reply = ask(f"/v2/archive/blobs/{LAYER}", range=header)
    assert (reply.first, reply.length) == (first, length)
    assert reply.status.startswith("200" if length == 100 else "206")
    if length < 100:
        content_range = dict(reply.headers)["Content-Range"]
        assert content_range == f"bytes {first}-{first + length - 1}/100"


@pytest.mark.parametrize("header", ["bytes=100-", "bytes=7-3", f"bytes={10**30}-"])
def test_a_range_outside_is_told(header: str) -> None:
    assert ask(f"/v2/archive/blobs/{LAYER}", range=header).status.startswith("416")


def test_requests_are_read() -> None:
    head = b"GET /v2/ HTTP/1.1\r\nHost: x\r\nAccept: a\r\nACCEPT:  b \r\nEmpty:"
    headers = {"host": "x", "accept": "a, b", "empty": ""}
    assert parse(head) == Request("GET", "/v2/", headers)


@pytest.mark.parametrize(
    "head",
    [
        b"",
        b"\x16\x03\x01",
        b"GET /v2/ HTTP/1.0",
        b"GET  /v2/ HTTP/1.1",
        b"GET /v2/",
        b"GET /v2/ HTTP/1.1\r\nno colon",
        b"GET /\xff HTTP/1.1",
        b"PRI * HTTP/2.0",
    ],
)
def test_what_is_no_request_is_none(head: bytes) -> None:
    assert parse(head) is None
