"""An OCI image layout in a tar file, verified: what the builder makes and a publisher pushes."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import BinaryIO

from plp_builder.errors import ArchiveInvalid
from plp_builder.oci import tar
from plp_builder.oci.contents import Contents, blob_name
from plp_builder.oci.model import (
    CONFIG_TYPES,
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
from plp_builder.oci.walk import Node, is_document, walk
from plp_builder.tuples import NamedTuple

INDEX = "index.json"
LAYOUT = "oci-layout"
DOCKER_MANIFEST = "manifest.json"
REF_NAME = "org.opencontainers.image.ref.name"
IMAGE_NAME = "io.containerd.image.name"

_LAYOUT_VERSION = "1.0.0"


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
    descriptors: tuple[Descriptor, ...]

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

    Every descriptor from index.json on must be there with the size and digest that it promises;
    every blob is read once. ``check`` is called every few MB and may raise to stop. Raises
    ArchiveInvalid; OSError where the file cannot be read.
    """
    contents = Contents(file, check)
    found = describe(contents)
    contents.verify_blobs()
    return found


def describe(contents: Contents) -> Archive:
    """What the archive says that it holds: documents verified, other blobs not yet hashed."""
    _check_layout(contents)
    index = parse_index(contents.document(INDEX), INDEX)
    top = _single(index)
    nodes = tuple(walk(top, contents.blob))
    for node in nodes:
        contents.require(node.descriptor)
        if isinstance(node.document, Index):
            _check_entries(node.document, f"blob {node.descriptor.digest}")
    images = tuple(_image(node, contents) for node in nodes if isinstance(node.document, Manifest))
    if not images:
        raise ArchiveInvalid("The archive holds no image manifest")
    has_docker_manifest = DOCKER_MANIFEST in contents.members
    return Archive(
        contents.size,
        top,
        images,
        _ref_names(index),
        has_docker_manifest,
        _check_docker_manifest(contents, images) if has_docker_manifest else (),
        contents.members,
        tuple(node.descriptor for node in nodes),
    )


def _check_layout(contents: Contents) -> None:
    layout = document(contents.document(LAYOUT), LAYOUT)
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
    if any(entry[:3] != index.manifests[0][:3] for entry in index.manifests):
        invalid(INDEX, "describes its image in two ways")
    _check_entries(index, INDEX)
    return index.manifests[0]


def _check_entries(index: Index, where: str) -> None:
    """An index names manifests and indexes. (BuildKit's cache has others, but is no archive.)"""
    for entry in index.manifests:
        if not is_document(entry):
            raise ArchiveInvalid(
                f"{where} names {entry.digest} as {shown(entry.media_type)}, "
                "which is neither an image manifest nor an index",
                hint="Convert the image: `skopeo copy --format oci`." if _is_old(entry) else None,
            )


def _is_old(entry: Descriptor) -> bool:
    return ".manifest.v1+" in entry.media_type and "docker" in entry.media_type


def _ref_names(index: Index) -> tuple[str, ...]:
    names = (
        entry.annotations.get(IMAGE_NAME) or entry.annotations.get(REF_NAME)
        for entry in index.manifests
    )
    return tuple(name for name in names if name)


def _image(node: Node, contents: Contents) -> Image:
    manifest = node.document
    assert isinstance(manifest, Manifest)  # noqa: S101 - for the type checker
    platform = node.descriptor.platform
    if manifest.config.media_type in CONFIG_TYPES:
        where = f"blob {manifest.config.digest}"
        config = document(contents.blob(manifest.config), where)
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


def _check_docker_manifest(contents: Contents, images: tuple[Image, ...]) -> tuple[str, ...]:
    """The tags of manifest.json, whose entries must say the same as the OCI manifests."""
    entries = document(contents.document(DOCKER_MANIFEST), DOCKER_MANIFEST)
    if not isinstance(entries, list) or not entries:
        invalid(DOCKER_MANIFEST, "is not a list of images")
    promised = {
        (blob_name(image.config.digest), tuple(blob_name(layer.digest) for layer in image.layers))
        for image in images
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
