"""An OCI image layout in a tar file, verified: what the builder makes and a publisher pushes."""

from __future__ import annotations

import hashlib
from collections.abc import Callable, Mapping
from typing import BinaryIO, NamedTuple

from plp_builder.errors import ArchiveInvalid
from plp_builder.oci import tar
from plp_builder.oci.model import (
    CONFIG_TYPES,
    MAX_DOCUMENT_SIZE,
    Descriptor,
    Digest,
    Index,
    Manifest,
    Platform,
    document,
    invalid,
    parse_index,
    parse_platform,
    shown,
    texts,
)
from plp_builder.oci.walk import Node, walk

INDEX = "index.json"
LAYOUT = "oci-layout"
DOCKER_MANIFEST = "manifest.json"
REF_NAME = "org.opencontainers.image.ref.name"
IMAGE_NAME = "io.containerd.image.name"

_LAYOUT_VERSION = "1.0.0"
_BUFFER = 1024 * 1024
_BETWEEN_CHECKS = 8


class Image(NamedTuple):
    """One manifest of the archive. An attestation has the platform ``unknown/unknown``."""

    manifest: Descriptor
    config: Descriptor
    layers: tuple[Descriptor, ...]
    platform: Platform | None
    annotations: Mapping[str, str]


class Archive(NamedTuple):
    """What a verified archive holds.

    ``size`` is the file's, in bytes; ``top`` the one descriptor that index.json names, whose
    digest is the image's; ``ref_names`` the full names (or tags) that the archive gives it;
    ``repo_tags`` those of manifest.json, and ``has_docker_manifest`` whether there is one, so
    that engines without containerd's image store can load the archive.
    """

    size: int
    top: Descriptor
    images: tuple[Image, ...]
    ref_names: tuple[str, ...]
    has_docker_manifest: bool
    repo_tags: tuple[str, ...]
    members: Mapping[str, tar.Member]

    @property
    def config_digests(self) -> tuple[Digest, ...]:
        """The configuration's digest of each image."""
        return tuple(image.config.digest for image in self.images)

    @property
    def platforms(self) -> tuple[Platform, ...]:
        """The platform of each image that has one, attestations left out."""
        found = (image.platform for image in self.images)
        return tuple(p for p in found if p and p.os != "unknown")


def _no_check() -> None:
    return None


def verify(file: BinaryIO, *, check: Callable[[], None] = _no_check) -> Archive:
    """Verify the whole archive in ``file`` (seekable, unbuffered is best) and describe it.

    Every blob's content is hashed in one pass; then every descriptor from index.json on must
    be there with the size and digest that it promises. ``check`` is called every few MB and
    may raise to stop. Raises ArchiveInvalid; OSError where the file cannot be read.
    """
    size = tar.file_size(file)
    found = _hash_members(file, size, check)
    reader = _Reader(file, size, found)
    _check_layout(reader)
    index = parse_index(reader.member(INDEX), INDEX)
    top = _single(index)
    nodes = tuple(walk(top, reader.blob))
    for node in nodes:
        reader.require(node.descriptor)
    images = tuple(_image(node, reader) for node in nodes if isinstance(node.document, Manifest))
    if not images:
        raise ArchiveInvalid("The archive holds no image manifest")
    repo_tags = _check_docker_manifest(reader, images) if DOCKER_MANIFEST in found else None
    return Archive(
        size, top, images, _ref_names(index), repo_tags is not None, repo_tags or (), found
    )


class _Reader:
    """The verified members of one tar."""

    def __init__(self, file: BinaryIO, size: int, found: Mapping[str, tar.Member]) -> None:
        self._file = file
        self._size = size
        self._found = found

    def member(self, name: str) -> bytes:
        """The bytes of a small member."""
        member = self._found.get(name)
        if member is None or member.is_directory:
            raise ArchiveInvalid(
                f"The archive has no {name}",
                hint="An OCI image layout is wanted, as buildctl, skopeo or docker save make it.",
            )
        if member.size > MAX_DOCUMENT_SIZE:
            invalid(name, f"is larger than {MAX_DOCUMENT_SIZE} bytes")
        return tar.read(self._file, member.offset, member.size, self._size)

    def blob(self, descriptor: Descriptor) -> bytes:
        """The bytes of a small blob."""
        return self.member(self.require(descriptor))

    def require(self, descriptor: Descriptor) -> str:
        """The name of the descriptor's blob, which is there and has the right size."""
        if descriptor.digest.algorithm != "sha256":
            invalid(
                f"blob {descriptor.digest}",
                f"has a {descriptor.digest.algorithm} digest: only sha256 is supported",
            )
        name = f"blobs/sha256/{descriptor.digest.encoded}"
        member = self._found.get(name)
        if member is None or member.is_directory:
            invalid(f"blob {descriptor.digest}", "is missing from the archive")
        if member.size != descriptor.size:
            invalid(
                f"blob {descriptor.digest}",
                f"has {member.size} bytes where its descriptor promises {descriptor.size}",
            )
        return name


def _hash_members(file: BinaryIO, size: int, check: Callable[[], None]) -> dict[str, tar.Member]:
    found: dict[str, tar.Member] = {}
    buffer = memoryview(bytearray(_BUFFER))
    for member in tar.members(file, size):
        check()
        found[member.name] = member
        if not member.name.startswith("blobs/") or member.is_directory:
            continue
        try:
            digest = Digest(member.name.removeprefix("blobs/").replace("/", ":", 1))
        except ValueError:
            raise ArchiveInvalid(
                f"The archive holds {shown(member.name)}, whose name is not a blob's"
            ) from None
        if digest.algorithm != "sha256":
            invalid(f"blob {digest}", "cannot be verified: only sha256 is supported")
        if _sha256(file, member, buffer, check) != digest.encoded:
            invalid(f"blob {digest}", "has other content than its digest says")
    return found


def _sha256(
    file: BinaryIO, member: tar.Member, buffer: memoryview, check: Callable[[], None]
) -> str:
    readinto: Callable[[memoryview], int] = file.readinto  # type: ignore[attr-defined]
    hashed = hashlib.sha256()
    left = member.size
    reads = 0
    file.seek(member.offset)
    while left:
        count = readinto(buffer[: min(left, _BUFFER)])
        if not count:
            raise ArchiveInvalid("The archive became shorter while it was read")
        hashed.update(buffer[:count])
        left -= count
        reads += 1
        if reads % _BETWEEN_CHECKS == 0:
            check()
    return hashed.hexdigest()


def _check_layout(reader: _Reader) -> None:
    layout = document(reader.member(LAYOUT), LAYOUT)
    if not isinstance(layout, dict) or layout.get("imageLayoutVersion") != _LAYOUT_VERSION:
        invalid(LAYOUT, f"does not name the layout version {_LAYOUT_VERSION}")


def _single(index: Index) -> Descriptor:
    """The one image of index.json. Several names of one image are several equal entries."""
    digests = {entry.digest for entry in index.manifests}
    if not digests:
        raise ArchiveInvalid("The archive's index.json names no image")
    if len(digests) > 1:
        raise ArchiveInvalid(
            f"The archive's index.json names {len(digests)} images, so it is not clear which one",
            why=[str(entry.digest) for entry in index.manifests],
            hint="Put each image into an archive of its own.",
        )
    return index.manifests[0]


def _ref_names(index: Index) -> tuple[str, ...]:
    names = (
        entry.annotations.get(IMAGE_NAME) or entry.annotations.get(REF_NAME)
        for entry in index.manifests
    )
    return tuple(name for name in names if name)


def _image(node: Node, reader: _Reader) -> Image:
    manifest = node.document
    assert isinstance(manifest, Manifest)  # noqa: S101 - for the type checker
    platform = node.descriptor.platform
    if manifest.config.media_type in CONFIG_TYPES:
        where = f"blob {manifest.config.digest}"
        config = document(reader.blob(manifest.config), where)
        if not isinstance(config, dict):
            invalid(where, "is not a JSON object")
        if not platform and config.get("os") and config.get("architecture"):
            platform = parse_platform(config, where)
        if not (platform and platform.os == "unknown"):
            _check_root_filesystem(config, manifest, where)
    return Image(node.descriptor, manifest.config, manifest.layers, platform, manifest.annotations)


def _check_root_filesystem(config: Mapping[str, object], manifest: Manifest, where: str) -> None:
    rootfs = config.get("rootfs")
    diff_ids = texts(rootfs.get("diff_ids") if isinstance(rootfs, dict) else None, where)
    if len(diff_ids) != len(manifest.layers):
        invalid(where, f"names {len(diff_ids)} layers and its manifest {len(manifest.layers)}")


def _check_docker_manifest(reader: _Reader, images: tuple[Image, ...]) -> tuple[str, ...]:
    """The tags of manifest.json, whose entries must say the same as the OCI manifests."""
    entries = document(reader.member(DOCKER_MANIFEST), DOCKER_MANIFEST)
    if not isinstance(entries, list) or not entries:
        invalid(DOCKER_MANIFEST, "is not a list of images")
    promised = {
        (_blob_name(image.config), tuple(map(_blob_name, image.layers))) for image in images
    }
    tags: list[str] = []
    for entry in entries:
        if not isinstance(entry, dict):
            invalid(DOCKER_MANIFEST, "is not a list of images")
        config, layers = entry.get("Config"), texts(entry.get("Layers"), DOCKER_MANIFEST)
        if not isinstance(config, str) or (config, layers) not in promised:
            invalid(DOCKER_MANIFEST, "describes another image than index.json")
        tags.extend(texts(entry.get("RepoTags"), DOCKER_MANIFEST))
    return tuple(tags)


def _blob_name(descriptor: Descriptor) -> str:
    return f"blobs/{descriptor.digest.algorithm}/{descriptor.digest.encoded}"
