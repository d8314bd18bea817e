"""From a descriptor to everything that it needs, wherever the blobs are kept."""

from __future__ import annotations

from collections.abc import Callable, Iterator

from plp_builder.oci.model import (
    INDEX_TYPES,
    MANIFEST_TYPES,
    MAX_DOCUMENT_SIZE,
    Descriptor,
    Index,
    Manifest,
    invalid,
    parse_index,
    parse_manifest,
)
from plp_builder.tuples import NamedTuple

MAX_DEPTH = 8
MAX_DESCRIPTORS = 100_000


class Node(NamedTuple):
    """A descriptor met on the way, and what its blob says if it is a manifest or an index."""

    descriptor: Descriptor
    document: Manifest | Index | None


def walk(top: Descriptor, read: Callable[[Descriptor], bytes]) -> Iterator[Node]:
    """Every descriptor that ``top`` reaches, itself first, each digest once.

    ``read`` gives the verified bytes of a manifest or index; it is asked for nothing else.
    Raises ArchiveInvalid for documents that are wrong, too deep or contradict each other.
    """
    known = {top.digest: top}
    waiting = [(top, 0)]
    while waiting:
        descriptor, depth = waiting.pop()
        document = _document(descriptor, read)
        yield Node(descriptor, document)
        if depth == MAX_DEPTH and children(document):
            invalid(f"blob {descriptor.digest}", f"is an index in {MAX_DEPTH} others")
        fresh = []
        for child in children(document):
            before = known.setdefault(child.digest, child)
            if before is child:
                fresh.append((child, depth + 1))
            elif _contradict(before, child):
                invalid(f"blob {child.digest}", "is described in two ways")
        if len(known) > MAX_DESCRIPTORS:
            invalid(f"blob {top.digest}", f"needs more than {MAX_DESCRIPTORS} blobs")
        waiting.extend(reversed(fresh))


def children(document: Manifest | Index | None) -> tuple[Descriptor, ...]:
    """What a manifest or index refers to directly."""
    if isinstance(document, Manifest):
        return (document.config, *document.layers)
    return document.manifests if document else ()


def is_document(descriptor: Descriptor) -> bool:
    """Whether the blob is a manifest or an index, by its media type."""
    return descriptor.media_type in MANIFEST_TYPES or descriptor.media_type in INDEX_TYPES


def _document(
    descriptor: Descriptor, read: Callable[[Descriptor], bytes]
) -> Manifest | Index | None:
    if not is_document(descriptor):
        return None
    where = f"blob {descriptor.digest}"
    if descriptor.size > MAX_DOCUMENT_SIZE:
        invalid(where, f"is larger than {MAX_DOCUMENT_SIZE} bytes")
    parse = parse_manifest if descriptor.media_type in MANIFEST_TYPES else parse_index
    return parse(read(descriptor), where, descriptor.media_type)


def _contradict(one: Descriptor, other: Descriptor) -> bool:
    if one.size != other.size:
        return True
    # Layers and configurations may be labelled as one likes; what is walked may not.
    return one.media_type != other.media_type and (is_document(one) or is_document(other))
