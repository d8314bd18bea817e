"""A verified archive as a read-only registry on 127.0.0.1, for skopeo to copy from.

Bytes go from the archive's descriptor straight into the socket, so no second copy is made
anywhere, and how many have gone is the progress of the push. Nothing is said without a random
password.
"""

from __future__ import annotations

import base64
import secrets
from contextlib import AbstractContextManager, nullcontext
from typing import TYPE_CHECKING, BinaryIO

from plp_builder.oci import distribution, serving
from plp_builder.oci.distribution import NOT_ALLOWED, NOT_FOUND, OK, Reply, Request, only_reads
from plp_builder.oci.model import Digest
from plp_builder.oci.walk import is_document
from publisher.credentials import Credentials

if TYPE_CHECKING:
    from plp_builder.oci.artifact import Artifact, Blob

NAME = "archive"


def answer(request: Request, artifact: Artifact, authorization: str) -> Reply:
    """What the registry says to ``request``; ``authorization`` is the header that opens it."""
    given = request.headers.get("authorization", "")
    if not secrets.compare_digest(given.encode(), authorization.encode()):
        asked = (("WWW-Authenticate", f'Basic realm="{NAME}"'),)
        return Reply("401 Unauthorized", asked, stranger=True)
    if not only_reads(request):
        return NOT_ALLOWED
    if request.path == "/v2/":
        return OK
    found = _find(request.path, artifact)
    return distribution.reply(request, *found) if found else NOT_FOUND


def _find(path: str, artifact: Artifact) -> tuple[Blob, str] | None:
    kind, _, name = path.removeprefix(f"/v2/{NAME}/").partition("/")
    try:
        blob = artifact.blobs.get(Digest(name))
    except ValueError:
        return None
    if blob and kind == "blobs":
        return blob, "application/octet-stream"
    if blob and kind == "manifests" and is_document(blob.descriptor):
        return blob, blob.descriptor.media_type
    return None


class Source(serving.Server):
    """Serves ``artifact`` from ``file`` from ``with`` on to the end of the block.

    ``file`` needs a descriptor; its position is not used. ``sent`` counts the bytes of layers and
    configurations that went out, ``moved`` also those of manifests, which are read anew for each
    tag; ``short`` is true once the file had less than was verified.
    """

    def __init__(self, artifact: Artifact, file: BinaryIO) -> None:
        super().__init__()
        self.sent = 0
        self.moved = 0
        self.credentials = Credentials("archive", secrets.token_urlsafe(32), origin="the archive")
        pair = f"{self.credentials.username}:{self.credentials.password}"
        self._authorization = f"Basic {base64.b64encode(pair.encode()).decode()}"
        self._artifact = artifact
        self._descriptor = file.fileno()

    def reference(self, digest: Digest) -> str:
        """The image's name for skopeo."""
        return f"docker://{self.address}/{NAME}@{digest}"

    def answer(self, request: Request) -> Reply:
        """To who shows the password."""
        return answer(request, self._artifact, self._authorization)

    def opened(self, blob: Blob) -> AbstractContextManager[int]:  # noqa: ARG002
        """The archive, in which all blobs lie."""
        return nullcontext(self._descriptor)

    def count(self, blob: Blob, size: int) -> None:
        """For ``sent`` and ``moved``."""
        self.moved += size
        if not is_document(blob.descriptor):
            self.sent += size
