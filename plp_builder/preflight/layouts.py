"""OCI image layouts as named contexts: which image in the layout is meant.

Sources: OCI image-spec, image-layout.md; the notation is that of `docker buildx build
--build-context name=oci-layout://PATH[:TAG][@DIGEST]`.
"""

from __future__ import annotations

import re
from collections.abc import Callable
from pathlib import Path

from plp_builder.errors import ArchiveInvalid, Failure
from plp_builder.oci.model import Descriptor, Digest, parse_index
from plp_builder.preflight.finding import open_regular, reason, show

MAX_INDEX_SIZE = 4 * 1024 * 1024
REF_NAME = "org.opencontainers.image.ref.name"
_REFERENCE = re.compile(r"(?P<path>.*?)(?::(?P<tag>\w[\w.-]{0,127}))?", re.ASCII | re.DOTALL)

Fail = Callable[[str, str], Failure]
"""Makes the failure from what is wrong and the next step."""


def resolve(reference: str, base: Path, fail: Fail) -> tuple[Path, str]:
    """`PATH[:TAG][@DIGEST]` → the layout's directory and the digest of one image in it.

    A relative path starts from ``base``. Without a tag and a digest the layout has to hold
    exactly one image. Raises what ``fail`` makes.
    """
    where, at, digest = reference.rpartition("@")
    if not at or "/" in digest:
        where, digest = reference, ""
    path, tag = _split_tag(where, base)
    if not path.is_dir():
        raise fail(f"{show(path)} is not a directory", "Mount the OCI layout there.")
    chosen = _parse_digest(digest, fail) if digest else _choose(path, tag, fail)
    blob = path / "blobs" / chosen.algorithm / chosen.encoded
    if not blob.is_file():
        raise fail(f"{show(path)} holds no blob {chosen}", "Copy the whole image into the layout.")
    return Path(path).resolve(), str(chosen)


def _split_tag(where: str, base: Path) -> tuple[Path, str]:
    """A colon may belong to the directory's name: what exists decides."""
    match = _REFERENCE.fullmatch(where)
    if match and match["tag"] and match["path"] and not (base / where).is_dir():
        return base / match["path"], match["tag"]
    return base / where, ""


def _parse_digest(text: str, fail: Fail) -> Digest:
    try:
        return Digest(text)
    except (ValueError, Failure) as error:
        hint = "Write sha256: and 64 lower-case hexadecimal digits."
        raise fail(f"{show(text)} is not a digest ({error})", hint) from None


def _choose(path: Path, tag: str, fail: Fail) -> Digest:
    entries = _entries(path, fail)
    wanted = [entry for entry in entries if not tag or _has_tag(entry, tag)]
    digests = list(dict.fromkeys(entry.digest for entry in wanted))
    if len(digests) == 1:
        return digests[0]
    names = sorted({name for entry in entries if (name := entry.annotations.get(REF_NAME, ""))})
    known = f" Known here: {', '.join(map(show, names[:8]))}." if names else ""
    if tag and not wanted:
        raise fail(f"{show(path)} has no image {show(tag)}", f"Name one that it has.{known}")
    many = f"holds {len(digests)} images" + (f" named {show(tag)}" if tag else "")
    raise fail(
        f"{show(path)} {many}" if digests else f"{show(path)} holds no image",
        f"Say which: oci-layout://PATH:TAG or oci-layout://PATH@sha256:….{known}",
    )


def _entries(path: Path, fail: Fail) -> tuple[Descriptor, ...]:
    try:
        with open_regular(path / "index.json") as file:
            content = file.read(MAX_INDEX_SIZE + 1)
    except OSError as error:
        hint = "An OCI layout is a directory with index.json, oci-layout and blobs/."
        raise fail(f"{show(path / 'index.json')}: {reason(error)}", hint) from None
    if len(content) > MAX_INDEX_SIZE:
        raise fail(f"{show(path / 'index.json')} is larger than 4 MiB", "")
    try:
        return parse_index(content, "index.json").manifests
    except ArchiveInvalid as error:
        raise fail(f"{show(path)} is no OCI layout: {error.what}", error.hint) from None


def _has_tag(entry: Descriptor, tag: str) -> bool:
    name = entry.annotations.get(REF_NAME, "")
    return name == tag or name.endswith(f":{tag}")
