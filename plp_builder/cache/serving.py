"""The portable cache as a registry on loopback, for the daemon of one build.

BuildKit unpacks all layers of a local cache before it begins, and those of a registry when they
are needed. Its repository has a random name, which stands in the arguments of buildctl, where
other users can read it: so a client also has to be one of the users that take part in the build.
"""

from __future__ import annotations

import os
import socket
import sys
from collections.abc import Iterable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Self

from plp_builder.errors import ArchiveInvalid
from plp_builder.oci import distribution, layout
from plp_builder.oci.artifact import Blob
from plp_builder.oci.distribution import NOT_ALLOWED, NOT_FOUND, OK, Reply, Request, only_reads
from plp_builder.oci.model import Descriptor, Digest
from plp_builder.oci.serving import Server
from plp_builder.oci.walk import is_document

_DISCARD = 9
"""A port to try the way to; nothing is sent."""
_CONNECTIONS = Path("/proc/net/tcp")
_LOCAL, _REMOTE, _UID = 1, 2, 7
_OPEN = os.O_RDONLY | os.O_NOFOLLOW | os.O_NONBLOCK | os.O_CLOEXEC


class CacheRegistry(Server):
    """Serves ``blobs`` of the layout in ``directory``, and nothing else, to ``readers``.

    ``readers`` are user ids, none for anybody who knows the name. ``asked`` becomes true with the
    first request that knows it.
    """

    def __init__(
        self, directory: Path, blobs: Iterable[Descriptor], readers: frozenset[int]
    ) -> None:
        super().__init__()
        self.asked = False
        self._name = os.urandom(16).hex()
        self._directory = directory
        self._blobs = {each.digest: Blob(each, 0) for each in blobs}
        self._readers = readers

    def __enter__(self) -> Self:
        """Raises ResourcesExhausted, or OSError where no connection could be made."""
        # Without a loopback that is up one can listen all the same, and nobody ever comes.
        with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as probe:
            probe.connect(("127.0.0.1", _DISCARD))
        return super().__enter__()

    def reference(self, digest: Digest) -> str:
        """What BuildKit calls the entry."""
        return f"{self.address}/{self._name}@{digest}"

    def answer(self, request: Request) -> Reply:
        """Manifests and blobs by digest, to who knows the repository's name."""
        if not only_reads(request):
            return NOT_ALLOWED._replace(stranger=True)
        name, _, rest = request.path.removeprefix("/v2/").partition("/")
        if name != self._name:
            return (OK if request.path == "/v2/" else NOT_FOUND)._replace(stranger=True)
        self.asked = True
        kind, _, digest = rest.partition("/")
        blob = self._find(digest)
        if blob and kind == "blobs":
            return distribution.reply(request, blob, "application/octet-stream")
        if blob and kind == "manifests" and is_document(blob.descriptor):
            return distribution.reply(request, blob, blob.descriptor.media_type)
        return NOT_FOUND

    @contextmanager
    def opened(self, blob: Blob) -> Iterator[int]:
        """The blob's own file."""
        file = os.open(layout.blob_path(self._directory, blob.descriptor.digest), _OPEN)
        try:
            yield file
        finally:
            os.close(file)

    def admits(self, address: tuple[str, int]) -> bool:
        """Whether it is a reader's connection, as far as that can be told."""
        if not self._readers:
            return True
        try:
            table = _CONNECTIONS.read_text("ascii")
        except (OSError, ValueError):
            return True
        user = owner(table, address, self._listener.getsockname())
        return user is None or user in self._readers

    def _find(self, digest: str) -> Blob | None:
        """The blob, if it is there as it should be. BuildKit takes what is missing as not cached,
        but tries again and again to get one that ends early."""
        try:
            blob = self._blobs.get(Digest(digest))
            if blob:
                layout.blob_status(self._directory, blob.descriptor)
        except (ValueError, ArchiveInvalid, OSError):
            return None
        return blob


def owner(table: str, client: tuple[str, int], server: tuple[str, int]) -> int | None:
    """Whose socket it is that ``client`` speaks to ``server`` from; None where that is not known.

    ``table`` is /proc/net/tcp (proc(5)).
    """
    wanted = [_shown(client), _shown(server)]
    for line in table.splitlines():
        fields = line.split()
        if len(fields) > _UID and [fields[_LOCAL], fields[_REMOTE]] == wanted:
            return int(fields[_UID])
    return None


def _shown(address: tuple[str, int]) -> str:
    number = int.from_bytes(socket.inet_aton(address[0]), sys.byteorder)
    return f"{number:08X}:{address[1]:04X}"
