"""What a registry answers when nothing goes wrong: the distribution specification in memory.

https://github.com/opencontainers/distribution-spec/blob/v1.1.1/spec.md, its endpoints end-1 to
end-11 and end-13, told in the words of distribution v3 (tests compare the two).
"""

from __future__ import annotations

import hashlib
import json
import re
import uuid
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any, NamedTuple
from urllib.parse import parse_qs

_NAME = r"(?P<name>[a-z0-9._/-]+)"
ENDPOINTS: tuple[tuple[str, str, str], ...] = (
    ("ping", "GET", r"/v2/"),
    ("blob-head", "HEAD", rf"/v2/{_NAME}/blobs/(?P<what>sha256:[0-9a-f]{{64}})"),
    ("blob-get", "GET", rf"/v2/{_NAME}/blobs/(?P<what>sha256:[0-9a-f]{{64}})"),
    ("manifest-head", "HEAD", rf"/v2/{_NAME}/manifests/(?P<what>[\w.:-]+)"),
    ("manifest-get", "GET", rf"/v2/{_NAME}/manifests/(?P<what>[\w.:-]+)"),
    ("manifest-put", "PUT", rf"/v2/{_NAME}/manifests/(?P<what>[\w.:-]+)"),
    ("upload-start", "POST", rf"/v2/{_NAME}/blobs/uploads/"),
    ("upload-status", "GET", rf"/v2/{_NAME}/blobs/uploads/(?P<what>[0-9a-f-]+)"),
    ("upload-data", "PATCH", rf"/v2/{_NAME}/blobs/uploads/(?P<what>[0-9a-f-]+)"),
    ("upload-finish", "PUT", rf"/v2/{_NAME}/blobs/uploads/(?P<what>[0-9a-f-]+)"),
    ("upload-cancel", "DELETE", rf"/v2/{_NAME}/blobs/uploads/(?P<what>[0-9a-f-]+)"),
    ("tags", "GET", rf"/v2/{_NAME}/tags/list"),
)
"""Name, method and path of everything that it answers."""


class Request(NamedTuple):
    """A request for one endpoint; ``host`` is what absolute locations begin with."""

    endpoint: str
    name: str
    what: str
    query: Mapping[str, str]
    headers: Mapping[str, str]
    body: bytes
    host: str


class Reply(NamedTuple):
    """An answer; Content-Length is added to the headers when it is sent."""

    status: int
    headers: dict[str, str]
    body: bytes = b""


def parse(
    method: str, target: str, headers: Mapping[str, str], body: bytes, host: str
) -> Request | None:
    """The request for an endpoint, or None: no registry answers that."""
    path, _, query = target.partition("?")
    for endpoint, wanted, pattern in ENDPOINTS:
        found = re.fullmatch(pattern, path) if method == wanted else None
        if found:
            parts = found.groupdict()
            first = {name: values[0] for name, values in parse_qs(query).items()}
            name, what = parts.get("name", ""), parts.get("what", "")
            return Request(endpoint, name, what, first, headers, body, host)
    return None


def digest_of(data: bytes) -> str:
    return "sha256:" + hashlib.sha256(data).hexdigest()


def error(status: int, code: str, message: str = "", **headers: str) -> Reply:
    """A refusal as the specification words it."""
    document = {"errors": [{"code": code, "message": message or code.lower().replace("_", " ")}]}
    return Reply(
        status, {"Content-Type": "application/json", **headers}, json.dumps(document).encode()
    )


@dataclass(slots=True)
class Repository:
    """Blobs are bytes; manifests are media type and bytes; tags are digests."""

    blobs: dict[str, bytes] = field(default_factory=dict)
    manifests: dict[str, tuple[str, bytes]] = field(default_factory=dict)
    tags: dict[str, str] = field(default_factory=dict)


class Store:
    """The content of a registry; whoever shares it between threads holds a lock."""

    def __init__(self) -> None:
        self.repositories: dict[str, Repository] = {}
        self.uploads: dict[str, bytes] = {}

    def answer(self, request: Request) -> Reply:
        """Do what is asked for, and say so."""
        method = getattr(self, "_" + request.endpoint.replace("-", "_"))
        reply: Reply = method(request)
        return reply

    def _repository(self, name: str) -> Repository:
        return self.repositories.get(name, Repository())

    def _made(self, name: str) -> Repository:
        return self.repositories.setdefault(name, Repository())

    def _ping(self, _: Request) -> Reply:
        return Reply(200, {"Content-Type": "application/json"}, b"{}")

    def _blob_get(self, request: Request) -> Reply:
        data = self._repository(request.name).blobs.get(request.what)
        if data is None:
            return error(404, "BLOB_UNKNOWN", "blob unknown to registry")
        headers = {
            "Content-Type": "application/octet-stream",
            "Docker-Content-Digest": request.what,
            "Etag": f'"{request.what}"',
            "Accept-Ranges": "bytes",
        }
        asked = re.fullmatch(r"bytes=(\d+)-(\d*)", request.headers.get("Range", ""))
        if not asked:
            return Reply(200, headers, data)
        start = int(asked[1])
        end = min(int(asked[2] or len(data)), len(data) - 1)
        headers["Content-Range"] = f"bytes {start}-{end}/{len(data)}"
        return Reply(206, headers, data[start : end + 1])

    _blob_head = _blob_get

    def _manifest_get(self, request: Request) -> Reply:
        repository = self._repository(request.name)
        digest = repository.tags.get(request.what, request.what)
        found = repository.manifests.get(digest)
        if found is None:
            return error(404, "MANIFEST_UNKNOWN", "manifest unknown")
        media_type, data = found
        headers = {
            "Content-Type": media_type,
            "Docker-Content-Digest": digest,
            "Etag": f'"{digest}"',
        }
        return Reply(200, headers, data)

    _manifest_head = _manifest_get

    def _manifest_put(self, request: Request) -> Reply:
        try:
            document = json.loads(request.body)
        except ValueError:
            return error(400, "MANIFEST_INVALID", "manifest invalid")
        digest = digest_of(request.body)
        if ":" in request.what and request.what != digest:
            return error(400, "DIGEST_INVALID", "provided digest did not match uploaded content")
        repository = self._made(request.name)
        if any(missing(repository, document)):
            return error(400, "MANIFEST_BLOB_UNKNOWN", "blob unknown to registry")
        media_type = request.headers.get("Content-Type", "")
        repository.manifests[digest] = media_type, request.body
        if ":" not in request.what:
            repository.tags[request.what] = digest
        where = f"{request.host}/v2/{request.name}/manifests/{digest}"
        return Reply(201, {"Location": where, "Docker-Content-Digest": digest})

    def _tags(self, request: Request) -> Reply:
        if request.name not in self.repositories:
            return error(404, "NAME_UNKNOWN", "repository name not known to registry")
        document = {"name": request.name, "tags": sorted(self.repositories[request.name].tags)}
        return Reply(200, {"Content-Type": "application/json"}, json.dumps(document).encode())

    def _upload_start(self, request: Request) -> Reply:
        digest, origin = request.query.get("mount", ""), request.query.get("from", "")
        data = self._repository(origin).blobs.get(digest)
        if data is not None:
            return self._finished(request, digest, data)
        return self._continued(request, uuid.uuid4().hex, b"", 202)

    def _upload_data(self, request: Request) -> Reply:
        if "_state" not in request.query:
            return error(404, "BLOB_UPLOAD_INVALID", "blob upload invalid")
        if request.what not in self.uploads:
            return error(404, "BLOB_UPLOAD_UNKNOWN", "blob upload unknown to registry")
        data = self.uploads[request.what] + request.body
        return self._continued(request, request.what, data, 202)

    def _upload_status(self, request: Request) -> Reply:
        if request.what not in self.uploads:
            return error(404, "BLOB_UPLOAD_UNKNOWN", "blob upload unknown to registry")
        return self._continued(request, request.what, self.uploads[request.what], 204)

    def _upload_cancel(self, request: Request) -> Reply:
        if self.uploads.pop(request.what, None) is None:
            return error(404, "BLOB_UPLOAD_UNKNOWN", "blob upload unknown to registry")
        return Reply(204, {"Docker-Upload-Uuid": request.what})

    def _upload_finish(self, request: Request) -> Reply:
        if request.what not in self.uploads:
            return error(404, "BLOB_UPLOAD_UNKNOWN", "blob upload unknown to registry")
        data = self.uploads[request.what] + request.body
        digest = request.query.get("digest", "")
        if digest_of(data) != digest:
            return error(400, "DIGEST_INVALID", "provided digest did not match uploaded content")
        del self.uploads[request.what]
        return self._finished(request, digest, data)

    def _continued(self, request: Request, upload: str, data: bytes, status: int) -> Reply:
        self.uploads[upload] = data
        return Reply(
            status,
            {
                "Location": f"{request.host}/v2/{request.name}/blobs/uploads/{upload}?_state=x",
                "Docker-Upload-Uuid": upload,
                "Range": f"0-{max(len(data) - 1, 0)}",
            },
        )

    def _finished(self, request: Request, digest: str, data: bytes) -> Reply:
        self._made(request.name).blobs[digest] = data
        where = f"{request.host}/v2/{request.name}/blobs/{digest}"
        return Reply(201, {"Location": where, "Docker-Content-Digest": digest})


def missing(repository: Repository, manifest: Any) -> list[str]:
    """The digests that a manifest names and the repository lacks."""
    if "manifests" in manifest:
        named = [entry["digest"] for entry in manifest["manifests"]]
        return [digest for digest in named if digest not in repository.manifests]
    named = [entry["digest"] for entry in (manifest.get("config"), *manifest["layers"]) if entry]
    return [digest for digest in named if digest not in repository.blobs]
