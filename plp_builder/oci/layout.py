"""An OCI image layout in a directory (image-spec, image-layout.md), read with distrust."""

from __future__ import annotations

import hashlib
import os
import stat
from collections.abc import Iterator
from pathlib import Path

from plp_builder.errors import ArchiveInvalid
from plp_builder.oci.model import MAX_DOCUMENT_SIZE, Descriptor, Digest, invalid
from plp_builder.oci.walk import Node, walk

INDEX = "index.json"
LAYOUT = "oci-layout"
LAYOUT_CONTENT = b'{"imageLayoutVersion":"1.0.0"}'
BLOBS = Path("blobs", "sha256")

_READ = os.O_RDONLY | os.O_NOFOLLOW | os.O_NONBLOCK | os.O_CLOEXEC


class BlobDamaged(ArchiveInvalid):
    """A blob of a layout is missing or is not what its digest says."""

    def __init__(self, digest: Digest, problem: str) -> None:
        super().__init__(f"blob {digest} {problem}")
        self.digest = digest
        self.problem = problem


def blob_path(layout: Path, digest: Digest) -> Path:
    """Where the blob lies, whether it is there or not."""
    if digest.algorithm != "sha256":
        invalid(f"blob {digest}", "cannot be verified: only sha256 is supported")
    return layout / BLOBS / digest.encoded


def blob_status(layout: Path, descriptor: Descriptor) -> os.stat_result:
    """The status of a blob that is there, a regular file, readable, and of the promised size.

    Raises BlobDamaged otherwise, OSError where it cannot be looked at.
    """
    digest = descriptor.digest
    path = blob_path(layout, digest)
    try:
        found = os.lstat(path)
    except (FileNotFoundError, NotADirectoryError):
        raise BlobDamaged(digest, "is missing") from None
    if not stat.S_ISREG(found.st_mode):
        raise BlobDamaged(digest, "is not a regular file")
    if found.st_size != descriptor.size:
        raise BlobDamaged(digest, f"has {found.st_size} bytes instead of {descriptor.size}")
    if not os.access(path, os.R_OK):
        raise BlobDamaged(digest, "may not be read")
    return found


def read_document(layout: Path, descriptor: Descriptor) -> bytes:
    """The verified bytes of a manifest or index. Raises BlobDamaged, ArchiveInvalid, OSError."""
    blob_status(layout, descriptor)
    data = read_small(blob_path(layout, descriptor.digest), str(descriptor.digest))
    if hashlib.sha256(data).hexdigest() != descriptor.digest.encoded:
        raise BlobDamaged(descriptor.digest, "has other content than its digest says")
    return data


def reachable(layout: Path, top: Descriptor) -> Iterator[Node]:
    """Every descriptor that ``top`` needs; documents verified, other blobs not looked at."""
    return walk(top, lambda descriptor: read_document(layout, descriptor))


def read_small(path: Path, where: str) -> bytes:
    """A regular file of at most 4 MiB, links not followed. Raises ArchiveInvalid or OSError."""
    descriptor = os.open(path, _READ)
    with open(descriptor, "rb") as file:  # noqa: PTH123 - a descriptor, not a path
        if not stat.S_ISREG(os.fstat(descriptor).st_mode):
            invalid(where, "is not a regular file")
        data = file.read(MAX_DOCUMENT_SIZE + 1)
    if len(data) > MAX_DOCUMENT_SIZE:
        invalid(where, f"is larger than {MAX_DOCUMENT_SIZE} bytes")
    return data
