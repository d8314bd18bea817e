"""The archives that docker load reads, and the OCI manifest that a registry wants of them.

manifest.json names a configuration and layers by their paths (moby, image/tarexport); the
configuration promises the digest of each layer's uncompressed content. Nothing is compressed
again: a layer is pushed as it lies in the archive, so the same archive always has one digest.
"""

from __future__ import annotations

import hashlib
import json
import posixpath
import re
from collections.abc import Mapping

from plp_builder.errors import ArchiveInvalid
from plp_builder.oci.archive import DOCKER_MANIFEST, Image
from plp_builder.oci.artifact import DOCKER, Artifact, Blob, notes_on
from plp_builder.oci.contents import Contents
from plp_builder.oci.hashing import Pieces
from plp_builder.oci.layers import Allowance, LayerHash
from plp_builder.oci.model import (
    CONFIG_TYPE,
    LAYER_TYPE,
    MANIFEST_TYPE,
    MAX_DOCUMENT_SIZE,
    Descriptor,
    Digest,
    Platform,
    descriptor_members,
    document,
    exact,
    invalid,
    parse_platform,
    shown,
    texts,
)
from plp_builder.oci.tar import Member, refused_link
from plp_builder.tuples import NamedTuple

_MADE = "The archive is in docker load's form: an OCI manifest was made for its image."
_MEMBERS = ("Config", "RepoTags", "Layers")
_HEX = r"[0-9a-f]{64}"
_LINK_NAME = re.compile(rf"{_HEX}/layer\.tar")
_LINK_TARGET = re.compile(rf"\.\./(?:{_HEX}/layer\.tar|{_HEX}\.tar)")
_DIGEST_IN_NAME = re.compile(rf"(?:.*/)?(?:sha256:)?({_HEX})(?:\.json)?")


class _Entry(NamedTuple):
    """What manifest.json says of one image."""

    config: str
    layers: tuple[str, ...]
    tags: tuple[str, ...]


def read(contents: Contents) -> Artifact:
    """The archive's one image, verified, with a manifest of its own. Raises ArchiveInvalid."""
    links = _links(contents)
    entry = _only_entry(contents)
    data, config = _configuration(contents, entry.config)
    diff_ids = _diff_ids(config, entry)
    members = [_layer_member(contents, links, name) for name in entry.layers]
    layers = _verified_layers(contents, members, diff_ids)
    config_descriptor = Descriptor(CONFIG_TYPE, _digest(data), len(data))
    manifest = _manifest(config_descriptor, layers)
    if len(manifest) > MAX_DOCUMENT_SIZE:
        invalid(DOCKER_MANIFEST, f"names more layers than {MAX_DOCUMENT_SIZE} bytes can describe")
    top = Descriptor(MANIFEST_TYPE, _digest(manifest), len(manifest))
    blobs = {
        top.digest: Blob(top, 0, manifest),
        config_descriptor.digest: Blob(config_descriptor, contents.members[entry.config].offset),
    }
    for descriptor, member in zip(layers, members, strict=True):
        blobs[descriptor.digest] = Blob(descriptor, member.offset)
    platform = _platform(config, entry.config)
    return Artifact(
        contents.size,
        DOCKER,
        top,
        blobs,
        (Image(top, config_descriptor, layers, platform, {}),),
        (platform,) if platform else (),
        (_MADE, *notes_on(layers)),
    )


def _links(contents: Contents) -> dict[str, str]:
    """Where the archive's links lead: each is a layer's, and leads to a layer that is a file.

    docker save before 25 wrote a layer that occurs twice as a link to its first occurrence,
    and skopeo and podman link the names of old to the layers.
    """
    found: dict[str, str] = {}
    for member in contents.members.values():
        if not member.target:
            continue
        if not (_LINK_NAME.fullmatch(member.name) and _LINK_TARGET.fullmatch(member.target)):
            raise refused_link(member)
        target = posixpath.normpath(f"{posixpath.dirname(member.name)}/{member.target}")
        if target not in contents:
            raise ArchiveInvalid(
                f"The archive's link {shown(member.name)} does not lead to a file in it"
            )
        found[member.name] = target
    return found


def _only_entry(contents: Contents) -> _Entry:
    entries = document(contents.document(DOCKER_MANIFEST), DOCKER_MANIFEST)
    if not isinstance(entries, list) or not entries:
        invalid(DOCKER_MANIFEST, "is not a list of images")
    parsed = [_entry(value) for value in entries]
    if len({each[:2] for each in parsed}) > 1:
        raise ArchiveInvalid(
            f"The archive's {DOCKER_MANIFEST} names {len(parsed)} images, "
            "so it is not clear which one",
            why=[", ".join(map(shown, each.tags)) or shown(each.config) for each in parsed[:10]],
            hint="Put each image into an archive of its own.",
        )
    return parsed[0]


def _entry(value: object) -> _Entry:
    if not isinstance(value, dict):
        invalid(DOCKER_MANIFEST, "is not a list of images")
    exact(value, _MEMBERS, DOCKER_MANIFEST)
    config = value.get("Config")
    if not isinstance(config, str) or not config:
        invalid(DOCKER_MANIFEST, "names no configuration")
    return _Entry(
        config,
        texts(value.get("Layers"), DOCKER_MANIFEST),
        texts(value.get("RepoTags"), DOCKER_MANIFEST),
    )


def _configuration(contents: Contents, name: str) -> tuple[bytes, Mapping[str, object]]:
    if name not in contents:
        invalid(f"the configuration {shown(name)}", f"of {DOCKER_MANIFEST} is missing")
    data = contents.document(name)
    promised = _DIGEST_IN_NAME.fullmatch(name)
    if promised and promised[1] != hashlib.sha256(data).hexdigest():
        invalid(f"the configuration {shown(name)}", "has other content than its name says")
    config = document(data, shown(name))
    if not isinstance(config, dict):
        invalid(shown(name), "is not a JSON object")
    return data, config


def _diff_ids(config: Mapping[str, object], entry: _Entry) -> tuple[Digest, ...]:
    rootfs = config.get("rootfs")
    where = shown(entry.config)
    values = texts(rootfs.get("diff_ids") if isinstance(rootfs, dict) else None, where)
    if len(values) != len(entry.layers):
        invalid(where, f"names {len(values)} layers and {DOCKER_MANIFEST} {len(entry.layers)}")
    try:
        found = tuple(map(Digest, values))
    except ValueError as error:
        invalid(where, f"has a wrong digest: {error}")
    if any(each.algorithm != "sha256" for each in found):
        invalid(where, "has other digests than sha256")
    return found


def _layer_member(contents: Contents, links: Mapping[str, str], name: str) -> Member:
    name = links.get(name, name)
    if name not in contents:
        invalid(f"the layer {shown(name)}", f"of {DOCKER_MANIFEST} is missing")
    return contents.members[name]


def _verified_layers(
    contents: Contents, members: list[Member], diff_ids: tuple[Digest, ...]
) -> tuple[Descriptor, ...]:
    distinct = {member.name: member for member in members}
    found: dict[str, LayerHash] = {}
    allowance = Allowance()

    def work(member: Member, pieces: Pieces) -> None:
        def spend(size: int) -> None:
            allowance.spend(size)
            pieces.check()

        hashed = LayerHash(shown(member.name), spend)
        for piece in pieces:
            hashed.update(piece)
        hashed.finish()
        found[member.name] = hashed

    contents.for_each(list(distinct.values()), work)
    layers = []
    for member, diff_id in zip(members, diff_ids, strict=True):
        hashed = found[member.name]
        if hashed.diff_id != diff_id:
            invalid(
                f"the layer {shown(member.name)}", f"has other content than its diff_id {diff_id}"
            )
        layers.append(Descriptor(LAYER_TYPE + hashed.suffix, hashed.digest, member.size))
    return tuple(layers)


def _manifest(config: Descriptor, layers: tuple[Descriptor, ...]) -> bytes:
    members = {
        "schemaVersion": 2,
        "mediaType": MANIFEST_TYPE,
        "config": descriptor_members(config),
        "layers": [descriptor_members(layer) for layer in layers],
    }
    return json.dumps(members, separators=(",", ":")).encode()


def _platform(config: Mapping[str, object], name: str) -> Platform | None:
    if config.get("os") and config.get("architecture"):
        return parse_platform(config, shown(name))
    return None


def _digest(data: bytes) -> Digest:
    return Digest(f"sha256:{hashlib.sha256(data).hexdigest()}")
