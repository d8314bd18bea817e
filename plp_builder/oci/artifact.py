"""A verified archive of any form as something that can be pushed: blobs, and where they lie.

Understood are image layouts (BuildKit, skopeo, podman, buildah, crane, docker save since 25) and
what docker load reads (docker save before 25, podman, skopeo, crane, kaniko, jib). The second
has no manifest that a registry knows: an OCI manifest of the same layers, byte by byte as they
lie in the archive, is made for it.
"""

from __future__ import annotations

import os
import stat
from collections.abc import Callable, Iterable, Mapping
from pathlib import Path
from typing import BinaryIO

from plp_builder.errors import ArchiveInvalid, Failure, exhausted
from plp_builder.oci import archive, tar
from plp_builder.oci.archive import DOCKER_MANIFEST, INDEX, LAYOUT, Image
from plp_builder.oci.contents import Contents, blob_name
from plp_builder.oci.model import LAYER_TYPE, Descriptor, Digest, Platform, parse_index, shown
from plp_builder.tuples import NamedTuple

OCI = "oci"
DOCKER = "docker"
SUFFIXES = (".tar", ".tar.gz", ".tgz", ".tar.zst", ".tar.xz", ".tar.bz2")
"""Names of archives in a directory; compressed ones are refused later, with what to do."""

_MAX_NAMED = 10
_PLAIN_LAYERS = frozenset({LAYER_TYPE, "application/vnd.docker.image.rootfs.diff.tar"})


class Blob(NamedTuple):
    """One manifest, configuration or layer.

    Its bytes begin at ``offset`` in the file, unless ``data`` holds them: those were made.
    """

    descriptor: Descriptor
    offset: int
    data: bytes | None = None


class Artifact(NamedTuple):
    """What a verified archive holds.

    ``size`` is the file's in bytes, ``form`` "oci" or "docker"; ``top`` is what a tag will point
    to and ``blobs`` everything that it reaches, itself included; ``notes`` are sentences that
    its user should know.
    """

    size: int
    form: str
    top: Descriptor
    blobs: Mapping[Digest, Blob]
    images: tuple[Image, ...]
    platforms: tuple[Platform, ...]
    notes: tuple[str, ...] = ()


def read(file: BinaryIO, *, check: Callable[[], None]) -> Artifact:
    """Verify the whole archive in ``file`` (seekable, unbuffered is best) and describe it.

    Blobs are read once, by several threads. ``check`` is called every few MB by the calling
    thread and may raise to stop. Raises ArchiveInvalid; OSError where the file cannot be read.
    """
    contents = Contents(file, check, links=True)
    if _is_docker_form(contents):
        from plp_builder.oci import docker_archive

        return docker_archive.read(contents)
    for member in contents.members.values():
        if member.target:
            raise tar.refused_link(member)
    found = archive.describe(contents)
    _refuse_elsewhere(found)
    contents.verify_blobs()
    blobs = {
        descriptor.digest: Blob(descriptor, found.members[blob_name(descriptor.digest)].offset)
        for descriptor in found.descriptors
    }
    layers = (layer for image in found.images for layer in image.layers)
    return Artifact(
        found.size, OCI, found.top, blobs, found.images, found.platforms, notes_on(layers)
    )


def opened(path: Path) -> BinaryIO:
    """The archive at ``path``, open for reading without a buffer; waits for nothing.

    Raises ArchiveInvalid where it is missing, not readable or not a regular file.
    """
    try:
        descriptor = os.open(path, os.O_RDONLY | os.O_NONBLOCK | os.O_CLOEXEC)
    except OSError as error:
        raise _unusable(path, error) from error
    if not stat.S_ISREG(os.fstat(descriptor).st_mode):
        os.close(descriptor)
        raise _no_file(path)
    return open(descriptor, "rb", buffering=0)  # noqa: PTH123 - a descriptor, not a path


def choose(path: Path) -> Path:
    """The archive that ``path`` means: itself, or the one archive in the directory that it is.

    Raises ArchiveInvalid where there is none, or several, or where it cannot be opened.
    """
    try:
        if stat.S_ISDIR(path.stat().st_mode):
            path = _only_one(path)
    except OSError as error:
        raise _unusable(path, error) from error
    opened(path).close()
    return path


def _refuse_elsewhere(found: archive.Archive) -> None:
    """skopeo pushes no layer that has ``urls``, so that registries would lack it."""
    for descriptor in found.descriptors:
        if descriptor.urls:
            raise ArchiveInvalid(
                f"blob {descriptor.digest} has urls: it is not meant to be pushed",
                hint="Build the image from a base whose layers may be handed on.",
            )


def notes_on(layers: Iterable[Descriptor]) -> tuple[str, ...]:
    """What should be known of the layers: those that are not compressed take long to push."""
    plain = {layer.digest for layer in layers if layer.media_type in _PLAIN_LAYERS}
    if not plain:
        return ()
    some = "One layer is" if len(plain) == 1 else f"{len(plain)} layers are"
    return (f"{some} not compressed; layers are pushed as they lie in the archive.",)


def _is_docker_form(contents: Contents) -> bool:
    """Whether manifest.json is all that tells what the archive holds.

    Docker 25 saved images without a tag with an index.json that names nothing (moby#47210).
    """
    if DOCKER_MANIFEST not in contents:
        return False
    if INDEX not in contents:
        return LAYOUT not in contents
    return not parse_index(contents.document(INDEX), INDEX).manifests


def _only_one(directory: Path) -> Path:
    if any((directory / name).exists() for name in (LAYOUT, INDEX)):
        raise ArchiveInvalid(
            f"{directory} is an image layout that is not in an archive",
            hint="Make one of it (tar -C DIRECTORY -cf container-image.tar .), and set "
            "PLP_ARTIFACT_PATH to that.",
        )
    found = sorted(
        each
        for each in directory.iterdir()
        if not each.name.startswith(".") and each.name.endswith(SUFFIXES) and each.is_file()
    )
    if not found:
        raise ArchiveInvalid(
            f"There is no archive in the directory {directory}",
            hint="Set PLP_ARTIFACT_PATH to the file itself, or let its name end with .tar.",
        )
    if len(found) > 1:
        names = [shown(each.name) for each in found[:_MAX_NAMED]]
        more = len(found) - len(names)
        raise ArchiveInvalid(
            f"There are {len(found)} archives in {directory}, so it is not clear which one",
            why=[*names, f"and {more} more"] if more else names,
            hint="Set PLP_ARTIFACT_PATH to one of them.",
        )
    return found[0]


def _no_file(path: Path) -> ArchiveInvalid:
    return ArchiveInvalid(
        f"{path} is not a regular file",
        hint="Set PLP_ARTIFACT_PATH to a file: an archive is read twice, so no pipe can be one.",
    )


def _unusable(path: Path, error: OSError) -> Failure:
    if lack := exhausted(error):
        return lack
    if isinstance(error, FileNotFoundError):
        return ArchiveInvalid(
            f"There is no archive at {path}",
            hint="Set PLP_ARTIFACT_PATH to the file that the build wrote; in a container, its "
            "directory has to be mounted, too.",
        )
    return ArchiveInvalid(
        f"The archive {path} cannot be read",
        why=[error.strerror or str(error)],
        hint="Let the publisher's user read it, or set PLP_ARTIFACT_PATH to another one.",
    )
