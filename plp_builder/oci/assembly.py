"""The archive of one image, written from a layout: BuildKit's own, byte for byte, but not by it.

What BuildKit writes: exporter/oci/export.go (v0.32) and core/images/archive/exporter.go of
containerd (v2.3), with the members in the order of their names, owned by root, dated 1970.
"""

from __future__ import annotations

import json
import os
import stat
from collections.abc import Callable, Iterable, Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path

from plp_builder.errors import ArchiveInvalid
from plp_builder.oci import layout, reference, tar_headers
from plp_builder.oci.archive import DOCKER_MANIFEST, IMAGE_NAME, INDEX, LAYOUT, REF_NAME
from plp_builder.oci.contents import blob_name
from plp_builder.oci.copying import copy, write_all
from plp_builder.oci.layout import BlobDamaged
from plp_builder.oci.model import INDEX_TYPE, Descriptor, Manifest, descriptor_members
from plp_builder.oci.walk import Node
from plp_builder.tuples import NamedTuple

Holds = Callable[[str, os.stat_result], bool]
"""Whether this very file is known to be the blob of this encoded digest."""

_OPEN = os.O_RDONLY | os.O_NOFOLLOW | os.O_NONBLOCK | os.O_CLOEXEC
_BLOB_MODE = 0o444
_FILE_MODE = 0o644
_DIRECTORIES = ("blobs/", "blobs/sha256/")


class Part(NamedTuple):
    """A member: its header, then its content, which is at hand or in a blob."""

    header: bytes
    content: bytes
    blob: Descriptor | None = None

    @property
    def size(self) -> int:
        """Bytes in the archive, without the padding behind."""
        return len(self.header) + (self.blob.size if self.blob else len(self.content))


Draft = dict[int, Part]
"""What of an archive is in its file already, by the offset at which it begins."""


def parts(
    nodes: Sequence[Node], top: Descriptor, names: Iterable[str], archive_format: str
) -> Iterator[Part]:
    """The members of the archive, in order: see `assemble`. The first node is that of ``top``."""
    manifest = nodes[0].document
    if archive_format == "docker" and not isinstance(manifest, Manifest):
        raise ArchiveInvalid(
            "The image is an index, for several platforms or with attestations, "
            "which an archive for docker load cannot hold",
            hint="Set PLP_ARCHIVE_FORMAT to oci or auto.",
        )
    references = tuple(map(_reference, names))
    yield from _blob_parts(nodes)
    yield _small(INDEX, _json(_index(top, references)), _FILE_MODE)
    if archive_format != "oci" and isinstance(manifest, Manifest):
        yield _small(DOCKER_MANIFEST, _json(_docker_manifest(manifest, references)), _FILE_MODE)
    yield _small(LAYOUT, layout.LAYOUT_CONTENT, _BLOB_MODE)


def _blob_parts(nodes: Sequence[Node]) -> Iterator[Part]:
    for name in _DIRECTORIES:
        yield Part(tar_headers.directory_header(name), b"")
    for descriptor in sorted((node.descriptor for node in nodes), key=lambda each: each.digest):
        header = tar_headers.file_header(
            blob_name(descriptor.digest), descriptor.size, mode=_BLOB_MODE
        )
        yield Part(header, b"", descriptor)


def draft(
    file: int, directory: Path, nodes: Sequence[Node], holds: Holds, check: Callable[[], None]
) -> Draft:
    """Write what the archive of an image begins with, but not the first node's blob.

    That one, the manifest, need not be in the layout yet. What comes back is for `assemble`, which
    also says what the rest means and what is raised.
    """
    done: Draft = {}
    offset = 0
    for part in _blob_parts(nodes):
        check()
        if part.blob != nodes[0].descriptor:
            _write(file, directory, part, offset, holds, check)
            done[offset] = part
        offset += part.size + len(tar_headers.padding(part.size))
    return done


def assemble(
    file: int,
    directory: Path,
    top: Descriptor,
    *,
    names: Iterable[str] = (),
    archive_format: str = "auto",
    holds: Holds | None = None,
    done: Draft | None = None,
    check: Callable[[], None] = lambda: None,
) -> int:
    """Write the archive of the image ``top`` in the layout ``directory``; its size comes back.

    ``file`` is a file's descriptor, and what it has beyond ``done``, by `draft`, is lost;
    ``archive_format`` is auto, docker or oci: auto has a
    manifest.json for an image of one platform, which docker insists on. Of ``names``, index.json
    has the first, because its readers want one entry, and manifest.json all. ``top`` keeps the
    annotations that BuildKit gave it, such as the time of its making.

    With ``holds`` each blob's file must be a verified one, before its copy and after it; without,
    the archive must be verified by whoever wants to rely on it. ``check`` is called every few MB
    and may raise. Raises BlobDamaged for a blob that is missing, changed or no regular file,
    ArchiveInvalid for other faults of the layout, OSError where the archive cannot be written.
    """
    try:
        nodes = tuple(layout.reachable(directory, top))
    except OSError as error:
        reason = error.strerror or str(error)
        raise ArchiveInvalid(f"The layout {directory} cannot be read", why=[reason]) from error
    offset = 0
    for part in parts(nodes, top, names, archive_format):
        check()
        if done and done.get(offset) == part:
            _check(directory, part, holds)
        else:
            _write(file, directory, part, offset, holds, check)
        offset += part.size + len(tar_headers.padding(part.size))
    write_all(file, tar_headers.END, offset)
    os.ftruncate(file, offset + len(tar_headers.END))
    return offset + len(tar_headers.END)


def _write(
    file: int,
    directory: Path,
    part: Part,
    offset: int,
    holds: Holds | None,
    check: Callable[[], None],
) -> None:
    write_all(file, part.header + part.content, offset)
    if part.blob:
        _copy_blob(file, directory, part.blob, offset + len(part.header), holds, check)
    write_all(file, tar_headers.padding(part.size), offset + part.size)


def _check(directory: Path, part: Part, holds: Holds | None) -> None:
    """What was copied before is still what it was."""
    if part.blob:
        with _opened(directory, part.blob) as source:
            _status(source, part.blob, holds)


def _copy_blob(
    file: int,
    directory: Path,
    blob: Descriptor,
    offset: int,
    holds: Holds | None,
    check: Callable[[], None],
) -> None:
    with _opened(directory, blob) as source:
        before = _status(source, blob, holds)
        copied = copy(source, file, blob.size, offset, check)
        after = _status(source, blob, holds)
        if copied != blob.size or after.st_mtime_ns != before.st_mtime_ns:
            raise _changed(blob)


@contextmanager
def _opened(directory: Path, blob: Descriptor) -> Iterator[int]:
    try:
        layout.blob_status(directory, blob)
        source = os.open(layout.blob_path(directory, blob.digest), _OPEN)
    except OSError as error:
        raise BlobDamaged(blob.digest, f"cannot be read: {error.strerror or error}") from error
    try:
        yield source
    finally:
        os.close(source)


def _status(source: int, blob: Descriptor, holds: Holds | None) -> os.stat_result:
    """The status of a blob's open file, which is still what it was verified as."""
    found = os.fstat(source)
    if not stat.S_ISREG(found.st_mode) or found.st_size != blob.size:
        raise _changed(blob)
    if holds and not holds(blob.digest.encoded, found):
        raise _changed(blob)
    return found


def _changed(blob: Descriptor) -> BlobDamaged:
    return BlobDamaged(blob.digest, "was changed after it had been verified")


def _reference(name: str) -> reference.Reference:
    return reference.parse(name)._replace(digest="").with_default_tag()


def _small(name: str, content: bytes, mode: int) -> Part:
    return Part(tar_headers.file_header(name, len(content), mode=mode), content)


def _index(top: Descriptor, names: tuple[reference.Reference, ...]) -> dict[str, object]:
    """The one entry: named like BuildKit's, whatever the layout calls the image."""
    annotations = dict(top.annotations)
    annotations.pop(REF_NAME, None)
    annotations.pop(IMAGE_NAME, None)
    if names:
        annotations |= {IMAGE_NAME: str(names[0]), REF_NAME: names[0].tag}
    entry = descriptor_members(top._replace(annotations=dict(sorted(annotations.items()))))
    if platform := entry.get("platform"):
        assert isinstance(platform, dict)  # noqa: S101 - for the type checker
        entry["platform"] = dict(sorted(platform.items()))
    return {"schemaVersion": 2, "mediaType": INDEX_TYPE, "manifests": [entry]}


def _docker_manifest(
    manifest: Manifest, names: tuple[reference.Reference, ...]
) -> list[dict[str, object]]:
    tags = list(dict.fromkeys(name.familiar for name in names))
    layers = [blob_name(each.digest) for each in manifest.layers]
    return [
        {
            "Config": blob_name(manifest.config.digest),
            "RepoTags": tags or None,
            "Layers": layers or None,
        }
    ]


def _json(value: object) -> bytes:
    return json.dumps(value, separators=(",", ":"), ensure_ascii=False).encode()
