"""Digest, descriptor, manifest and index of the OCI image specification (v1.1).

The parsers take bytes that somebody else wrote. They refuse with ArchiveInvalid what the
specification does not allow and what two readers could understand differently: duplicate
members, documents that are manifest and index at once, other encodings than UTF-8.
The media types of Docker's "schema 2" are taken as the equals that they are.
"""

from __future__ import annotations

import json
import re
from collections.abc import Iterable, Mapping
from types import MappingProxyType
from typing import Any, NoReturn, Self

from plp_builder.errors import ArchiveInvalid
from plp_builder.tuples import NamedTuple

MANIFEST_TYPE = "application/vnd.oci.image.manifest.v1+json"
INDEX_TYPE = "application/vnd.oci.image.index.v1+json"
CONFIG_TYPE = "application/vnd.oci.image.config.v1+json"
LAYER_TYPE = "application/vnd.oci.image.layer.v1.tar"
MANIFEST_TYPES = frozenset({MANIFEST_TYPE, "application/vnd.docker.distribution.manifest.v2+json"})
INDEX_TYPES = frozenset({INDEX_TYPE, "application/vnd.docker.distribution.manifest.list.v2+json"})
CONFIG_TYPES = frozenset({CONFIG_TYPE, "application/vnd.docker.container.image.v1+json"})

# What registries accept as one manifest (distribution-spec, "Pushing Manifests").
MAX_DOCUMENT_SIZE = 4 * 1024 * 1024
MAX_SIZE = 2**63 - 1
MAX_DIGEST = 256
"""Characters. The longest that is registered, of sha512, has 135."""

_NO_ANNOTATIONS: Mapping[str, str] = MappingProxyType({})
_DIGEST = re.compile(r"[a-z0-9]+(?:[+._-][a-z0-9]+)*:[a-zA-Z0-9=_-]+")
_DOCUMENT_MEMBERS = ("schemaVersion", "mediaType", "config", "layers", "manifests", "annotations")
_DESCRIPTOR_MEMBERS = ("mediaType", "digest", "size", "annotations", "platform", "urls", "data")
_PLATFORM_WORD = re.compile(r"[A-Za-z0-9][A-Za-z0-9._+-]{0,63}")
_REGISTERED = {"sha256": re.compile(r"[a-f0-9]{64}"), "sha512": re.compile(r"[a-f0-9]{128}")}


class Digest(str):
    """A digest, ``algorithm:encoded``, checked when made (image-spec, descriptor.md).

    Raises ValueError for what is none. Algorithms that the specification does not register
    are legal here; whoever has to verify content asks for `algorithm`.
    """

    __slots__ = ()

    def __new__(cls, text: str) -> Self:
        if len(text) > MAX_DIGEST or not _DIGEST.fullmatch(text):
            raise ValueError(f"{shown(text)} is not a digest like sha256:<64 hexadecimal digits>")
        algorithm, _, encoded = text.partition(":")
        registered = _REGISTERED.get(algorithm)
        if registered and not registered.fullmatch(encoded):
            raise ValueError(f"{shown(text)} is not a {algorithm} digest: wrong length or letters")
        return super().__new__(cls, text)

    @property
    def algorithm(self) -> str:
        """The part before the colon."""
        return self.partition(":")[0]

    @property
    def encoded(self) -> str:
        """The part behind the colon."""
        return self.partition(":")[2]


class Platform(NamedTuple):
    """``os/architecture[/variant]``; ``unknown/unknown`` marks an attestation."""

    os: str
    architecture: str
    variant: str = ""

    def __str__(self) -> str:
        return "/".join(part for part in self if part)


class Descriptor(NamedTuple):
    """What is known of a blob before it is read: type, digest and size in bytes.

    With ``urls`` it lies elsewhere, as layers do that may not be handed on.
    """

    media_type: str
    digest: Digest
    size: int
    annotations: Mapping[str, str] = _NO_ANNOTATIONS
    platform: Platform | None = None
    urls: tuple[str, ...] = ()


class Manifest(NamedTuple):
    """An image manifest: one configuration and its layers, the lowest first."""

    media_type: str
    config: Descriptor
    layers: tuple[Descriptor, ...]
    annotations: Mapping[str, str] = _NO_ANNOTATIONS


class Index(NamedTuple):
    """An image index: manifests, or for BuildKit's cache up to v0.21 its blobs themselves."""

    media_type: str
    manifests: tuple[Descriptor, ...]
    annotations: Mapping[str, str] = _NO_ANNOTATIONS


def shown(text: str) -> str:
    """``text`` for a message: quoted, control characters escaped, at most 80 characters."""
    return ascii(text if len(text) <= 80 else f"{text[:77]}...")


def invalid(where: str, problem: str) -> NoReturn:
    """Refuse ``where`` (a member's or blob's name) with ArchiveInvalid."""
    raise ArchiveInvalid(f"{where} {problem}")


def document(data: bytes, where: str) -> Any:
    """The JSON value in ``data``, read strictly; ArchiveInvalid names ``where`` otherwise."""
    if len(data) > MAX_DOCUMENT_SIZE:
        invalid(where, f"is larger than {MAX_DOCUMENT_SIZE} bytes")
    try:
        return json.loads(
            data.decode(), object_pairs_hook=_unambiguous, parse_constant=_no_constant
        )
    except UnicodeDecodeError:
        invalid(where, "is not UTF-8 text")
    except RecursionError:
        invalid(where, "is nested too deeply")
    except ValueError as error:
        invalid(where, f"is not valid JSON: {error}")


def parse_index(data: bytes, where: str, media_type: str = "") -> Index:
    """The index in ``data``; ``media_type`` is what its descriptor promises, if it has one."""
    members = _object(document(data, where), where)
    exact(members, _DOCUMENT_MEMBERS, where)
    if "config" in members or "layers" in members:
        invalid(where, "is an index and a manifest at once")
    if "manifests" not in members:
        invalid(where, "has no manifests")
    return Index(
        _document_type(members, where, media_type, INDEX_TYPES, INDEX_TYPE),
        _descriptors(members, "manifests", where),
        _annotations(members, where),
    )


def parse_manifest(data: bytes, where: str, media_type: str = "") -> Manifest:
    """The manifest in ``data``; ``"layers": null`` is the image of ``FROM scratch``."""
    members = _object(document(data, where), where)
    exact(members, _DOCUMENT_MEMBERS, where)
    if "manifests" in members:
        invalid(where, "is a manifest and an index at once")
    if "config" not in members:
        invalid(where, "has no config")
    return Manifest(
        _document_type(members, where, media_type, MANIFEST_TYPES, MANIFEST_TYPE),
        parse_descriptor(members["config"], f"config of {where}"),
        _descriptors(members, "layers", where),
        _annotations(members, where),
    )


def parse_descriptor(value: object, where: str) -> Descriptor:
    """The descriptor in an already decoded JSON value."""
    members = _object(value, where)
    exact(members, _DESCRIPTOR_MEMBERS, where)
    size = members.get("size")
    if isinstance(size, bool) or not isinstance(size, int) or not 0 <= size <= MAX_SIZE:
        invalid(where, "has no valid size")
    try:
        digest = Digest(_text(members, "digest", where))
    except ValueError as error:
        invalid(where, f"has a wrong digest: {error}")
    media_type = _text(members, "mediaType", where)
    if not (media_type.isascii() and media_type.isprintable()):
        invalid(where, f"has the media type {shown(media_type)}, which is none")
    if members.get("data") is not None:
        _check_data(members["data"], digest, where)
    return Descriptor(
        media_type,
        digest,
        size,
        _annotations(members, where),
        parse_platform(members["platform"], where) if members.get("platform") else None,
        texts(members.get("urls"), where),
    )


def descriptor_members(descriptor: Descriptor) -> dict[str, object]:
    """The JSON object of a descriptor: what `parse_descriptor` reads."""
    members: dict[str, object] = {
        "mediaType": descriptor.media_type,
        "digest": str(descriptor.digest),
        "size": descriptor.size,
    }
    if descriptor.urls:
        members["urls"] = list(descriptor.urls)
    if descriptor.annotations:
        members["annotations"] = dict(descriptor.annotations)
    if descriptor.platform:
        platform = descriptor.platform._asdict()
        members["platform"] = {key: value for key, value in platform.items() if value}
    return members


def parse_platform(value: object, where: str) -> Platform:
    """The platform in a descriptor or an image configuration.

    Its parts are shown in many places, and are words like ``linux``, ``arm64`` and ``v8``.
    """
    members = _object(value, where)
    names = ("os", "architecture", "variant") if members.get("variant") else ("os", "architecture")
    words = [_text(members, name, where) for name in names]
    for name, word in zip(names, words, strict=True):
        if not _PLATFORM_WORD.fullmatch(word):
            invalid(where, f"has the {name} {shown(word)}, which is no short word")
    return Platform(*words)


def exact(members: Mapping[str, object], names: Iterable[str], where: str) -> None:
    """Refuse members that are one of ``names`` but for the case of their letters.

    Go, which registries and skopeo are written in, takes ``Layers`` for ``layers``.
    """
    folded = {name.casefold() for name in names}
    for name in members.keys() - set(names):
        if name.casefold() in folded:
            invalid(where, f"spells a member in an ambiguous way: {shown(name)}")


def texts(value: object, where: str) -> tuple[str, ...]:
    """A JSON list of strings; null is the empty list, as Go writes it."""
    if value is None:
        return ()
    if not isinstance(value, list) or not all(isinstance(item, str) for item in value):
        invalid(where, "is not a list of texts")
    return tuple(value)


def _check_data(value: object, digest: Digest, where: str) -> None:
    """A copy of the blob in its descriptor: some read it instead of the blob."""
    from binascii import a2b_base64
    from hashlib import sha256

    try:
        data = a2b_base64(value, strict_mode=True) if isinstance(value, str) else None
    except ValueError:
        data = None
    if data is None or f"sha256:{sha256(data).hexdigest()}" != digest:
        invalid(where, "has data that are not what its digest says")


def _unambiguous(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
    members = dict(pairs)
    if len(members) != len(pairs):
        raise ValueError("a name appears twice in one object")
    return members


def _no_constant(text: str) -> NoReturn:
    raise ValueError(f"{text} is not JSON")


def _object(value: object, where: str) -> dict[str, Any]:
    if not isinstance(value, dict):
        invalid(where, "is not a JSON object")
    return value


def _text(members: dict[str, Any], key: str, where: str) -> str:
    value = members.get(key)
    if not isinstance(value, str) or not value:
        invalid(where, f"has no {key}")
    _check_unicode(value, f"{key} of {where}")
    return value


def _check_unicode(text: str, where: str) -> None:
    # "\ud800" is legal JSON but no text: printing or sending it would fail much later.
    try:
        text.encode()
    except UnicodeEncodeError:
        invalid(where, "holds half of a surrogate pair")


def _document_type(
    members: dict[str, Any], where: str, promised: str, allowed: frozenset[str], default: str
) -> str:
    version = members.get("schemaVersion")
    if type(version) is not int or version != 2:
        invalid(where, "does not have schemaVersion 2")
    found = _text(members, "mediaType", where) if members.get("mediaType") else ""
    media_type = found or promised or default
    if media_type not in allowed or (promised and media_type != promised):
        invalid(where, f"has the media type {shown(media_type)}, which does not fit its place")
    return media_type


def _descriptors(members: dict[str, Any], key: str, where: str) -> tuple[Descriptor, ...]:
    values = members.get(key)
    if values is None:
        return ()
    if not isinstance(values, list):
        invalid(where, f"has {key} that are no list")
    return tuple(
        parse_descriptor(value, f"{key}[{number}] of {where}")
        for number, value in enumerate(values)
    )


def _annotations(members: dict[str, Any], where: str) -> Mapping[str, str]:
    values = members.get("annotations")
    if values is None:
        return _NO_ANNOTATIONS
    if not isinstance(values, dict) or not all(isinstance(v, str) for v in values.values()):
        invalid(where, "has annotations that are not texts")
    for key, value in values.items():
        _check_unicode(key + value, f"annotations of {where}")
    return MappingProxyType(values)
