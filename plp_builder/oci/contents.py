"""The members of one archive: small documents verified when they are read, the rest in one go."""

from __future__ import annotations

import hashlib
from collections.abc import Callable
from typing import BinaryIO

from plp_builder.errors import ArchiveInvalid
from plp_builder.oci import tar
from plp_builder.oci.hashing import Pieces, Work, for_each
from plp_builder.oci.model import (
    MAX_DOCUMENT_SIZE,
    Descriptor,
    Digest,
    invalid,
    shown,
)

MAX_DOCUMENTS_SIZE = 16 * 1024 * 1024
"""Of all manifests, indexes and configurations together: they are held in memory."""
MAX_VALUES = 1_000_000
"""In all of them: an object of two bytes takes up to a hundred in memory."""

_BLOBS = "blobs/"


def blob_name(digest: Digest) -> str:
    """The member that holds the blob in an image layout."""
    return f"{_BLOBS}{digest.algorithm}/{digest.encoded}"


class Contents:
    """The members of the tar in ``file``, by name.

    Documents are verified when they are asked for, so that nothing is concluded from bytes that
    nobody vouches for; `verify_blobs` does so with everything else.
    """

    def __init__(self, file: BinaryIO, check: Callable[[], None], *, links: bool = False) -> None:
        """Read all headers; ``check`` is called for each and may raise. ArchiveInvalid, OSError."""
        self.size = tar.file_size(file)
        self.members: dict[str, tar.Member] = {}
        self._file = file
        self._check = check
        self._verified: set[str] = set()
        self._documents_size = 0
        self._values = 0
        for member in tar.members(file, self.size, links=links):
            check()
            self.members[member.name] = member

    def __contains__(self, name: str) -> bool:
        """Whether there is a regular file of that name."""
        member = self.members.get(name)
        return member is not None and member.is_file

    def document(self, name: str) -> bytes:
        """The bytes of a small member."""
        if name not in self:
            raise ArchiveInvalid(f"The archive has no {name}", hint=self._hint())
        member = self.members[name]
        if member.size > MAX_DOCUMENT_SIZE:
            invalid(name, f"is larger than {MAX_DOCUMENT_SIZE} bytes")
        self._documents_size += member.size
        if self._documents_size > MAX_DOCUMENTS_SIZE:
            raise ArchiveInvalid(f"The archive's documents exceed {MAX_DOCUMENTS_SIZE} bytes")
        data = tar.read(self._file, member.offset, member.size, self.size)
        # Each value but the first follows one of these; those within texts count as well.
        self._values += sum(map(data.count, (b",", b"[", b"{")))
        if self._values > MAX_VALUES:
            raise ArchiveInvalid(f"The archive's documents hold more than {MAX_VALUES} values")
        return data

    def blob(self, descriptor: Descriptor) -> bytes:
        """The verified bytes of a small blob."""
        name = self.require(descriptor)
        data = self.document(name)
        if hashlib.sha256(data).hexdigest() != descriptor.digest.encoded:
            _differs(descriptor.digest)
        self._verified.add(name)
        return data

    def require(self, descriptor: Descriptor) -> str:
        """The name of the descriptor's blob, which is there and has the right size."""
        digest = descriptor.digest
        if digest.algorithm != "sha256":
            invalid(
                f"blob {digest}",
                f"has a {digest.algorithm} digest: only sha256 is supported",
            )
        name = blob_name(digest)
        if name not in self:
            raise ArchiveInvalid(
                f"blob {digest} is missing from the archive", hint=_hint_for(descriptor)
            )
        size = self.members[name].size
        if size != descriptor.size:
            invalid(
                f"blob {digest}",
                f"has {size} bytes where its descriptor promises {descriptor.size}",
            )
        return name

    def verify_blobs(self) -> None:
        """Hash every blob that `blob` has not, whether anything refers to it or not."""
        expected: dict[str, Digest] = {}
        for name, member in self.members.items():
            if name.startswith(_BLOBS) and member.is_file and name not in self._verified:
                expected[name] = _digest_of(name)

        def verify(member: tar.Member, pieces: Pieces) -> None:
            hashed = hashlib.sha256()
            for piece in pieces:
                hashed.update(piece)
            if hashed.hexdigest() != expected[member.name].encoded:
                _differs(expected[member.name])

        self.for_each([self.members[name] for name in expected], verify)

    def for_each(
        self,
        members: list[tar.Member],
        work: Work,
    ) -> None:
        """`hashing.for_each` over members of this archive."""
        for_each(self._file, members, work, self._check)

    def _hint(self) -> str:
        """For archives in which something is missing that every archive has."""
        inside = [name for name in self.members if name.endswith(("/oci-layout", "/index.json"))]
        if inside:
            directory = inside[0].rpartition("/")[0]
            return (
                f"Its layout lies in the directory {shown(directory)}: "
                "make the archive with `tar -C DIRECTORY -cf FILE .`"
            )
        return "An OCI image layout is wanted, as buildctl, skopeo or docker save make it."


def _differs(digest: Digest) -> None:
    invalid(f"blob {digest}", "has other content than its digest says")


def _digest_of(name: str) -> Digest:
    try:
        digest = Digest(name.removeprefix(_BLOBS).replace("/", ":", 1))
    except ValueError:
        raise ArchiveInvalid(
            f"The archive holds {shown(name)}, whose name is not a blob's"
        ) from None
    if digest.algorithm != "sha256":
        invalid(f"blob {digest}", "cannot be verified: only sha256 is supported")
    return digest


def _hint_for(descriptor: Descriptor) -> str:
    if descriptor.urls:
        return "Layers that lie elsewhere (urls) are not supported: all must be in the archive."
    return (
        "Make it again with all its content: an index names platforms that docker save "
        "leaves out unless `--platform` chooses one."
    )
