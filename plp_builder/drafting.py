"""The archive of an unchanged build, begun while the daemon starts and solves.

Where the context is what it was and the same is asked for, the image will most likely have the
layers of the last one, and the archive consists of little else. Whether it has is known after the
solve: what was guessed wrong is written again, and costs nobody a wait.
"""

from __future__ import annotations

import hashlib
import json
import os
import re
from contextlib import suppress
from threading import Event, Thread
from typing import TYPE_CHECKING

from plp_builder.cache.verification import Record
from plp_builder.errors import ArchiveInvalid
from plp_builder.oci import assembly, layout
from plp_builder.oci.model import (
    MANIFEST_TYPES,
    Descriptor,
    Digest,
    Manifest,
    document,
    parse_manifest,
)
from plp_builder.oci.walk import Node
from plp_builder.solve import arguments

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping
    from pathlib import Path

    from plp_builder.buildkit.options import Options
    from plp_builder.oci.assembly import Draft
    from plp_builder.solve import SolveRequest

_BETWEEN_CHECKS = 0.1
_ANNOTATION = "annotation."
_ESCAPED = {"<": r"\u003c", ">": r"\u003e", "&": r"\u0026"}
"""Go's encoding/json writes these so."""


def key_of(request: SolveRequest, options: Options) -> str:
    """The same for requests that differ in annotations and caches at most.

    ``options`` are those of the daemon that is asked: it may refuse what another one does.
    """
    output = tuple(
        pair
        for pair in request.output
        if pair.key != "dest" and not pair.key.startswith(_ANNOTATION)
    )
    same = request._replace(output=output, cache_imports=(), cache_export=None)
    words = "\0".join((*arguments(same), "", *options.flags, "", options.config))
    return hashlib.sha256(words.encode("utf-8", "surrogateescape")).hexdigest()


def expected(directory: Path, last: Descriptor, request: SolveRequest) -> tuple[Node, ...]:
    """The image that the layout ``directory`` will have if it is ``last`` but for annotations.

    Its manifest comes first, and need not be there yet; nothing where it cannot be told.
    """
    with suppress(ArchiveInvalid, OSError):
        first, *rest = layout.reachable(directory, last)
        if isinstance(first.document, Manifest):
            text = layout.read_document(directory, last)
            text = _annotated(text, first.document.annotations, annotations_of(request))
            return (first._replace(descriptor=described(last, text)), *rest)
    return ()


def manifest(directory: Path, last: Descriptor, request: SolveRequest) -> bytes:
    """The manifest of the image ``last`` with the annotations that ``request`` asks for.

    Nothing where that is not certain.
    """
    with suppress(ArchiveInvalid, OSError):
        if last.media_type in MANIFEST_TYPES:
            old = layout.read_document(directory, last)
            wanted = annotations_of(request)
            new = _annotated(old, parse_manifest(old, "the last image").annotations, wanted)
            if _split(new) == (_split(old)[0], wanted):
                return new
    return b""


def described(last: Descriptor, content: bytes) -> Descriptor:
    """The descriptor of a manifest in place of that of ``last``."""
    digest = Digest(f"sha256:{hashlib.sha256(content).hexdigest()}")
    return last._replace(digest=digest, size=len(content))


def annotations_of(request: SolveRequest) -> dict[str, str]:
    """What is asked for as the manifest's annotations."""
    return {
        pair.key.removeprefix(_ANNOTATION): pair.value
        for pair in request.output
        if pair.key.startswith(_ANNOTATION)
    }


class Drafting:
    """Writes in a thread of its own into ``file``, until `finish`, which must be called."""

    def __init__(self, file: int, directory: Path, nodes: tuple[Node, ...]) -> None:
        self._file = file
        self._directory = directory
        self._nodes = nodes
        self._over = Event()
        self._done: Draft = {}
        self._thread = Thread(target=self._run, name="drafting", daemon=True)
        with suppress(RuntimeError):  # no further thread: the archive is written later
            self._thread.start()

    def finish(self, top: Digest | None = None, check: Callable[[], None] = lambda: None) -> Draft:
        """What was written of the image ``top``; nothing for another one, or for none.

        ``check`` is called ten times a second and may raise, which ends the writing, too.
        """
        if top != self._nodes[0].descriptor.digest:
            self._over.set()
        try:
            while self._thread.is_alive():
                self._thread.join(_BETWEEN_CHECKS)
                check()
        except BaseException:
            self._over.set()
            self._thread.join()  # before anybody closes its file
            raise
        return {} if self._over.is_set() else self._done

    def _run(self) -> None:
        # What fails here is found again, and told, when the archive is assembled.
        with suppress(ArchiveInvalid, OSError, _OverError):
            holds = Record.read(self._directory).holds
            done = assembly.draft(self._file, self._directory, self._nodes, holds, self._check)
            os.fsync(self._file)
            self._done = done

    def _check(self) -> None:
        if self._over.is_set():
            raise _OverError


class _OverError(Exception):
    """Nobody wants it any more."""


def _split(text: bytes) -> tuple[dict[str, object], object]:
    """A manifest without its annotations, and these."""
    members = document(text, "the manifest")
    return members, members.pop("annotations", {})


def _annotated(text: bytes, had: Mapping[str, str], wanted: Mapping[str, str]) -> bytes:
    """The manifest with other annotations; as it was where that is not a matter of values."""
    if had.keys() != wanted.keys():
        return text
    for key, value in wanted.items():
        if had[key] != value:
            old = rb"(%b\s*:\s*)%b" % (re.escape(_string(key)), re.escape(_string(had[key])))
            if found := re.search(old, text):
                text = text[: found.start()] + found[1] + _string(value) + text[found.end() :]
    return text


def _string(value: str) -> bytes:
    text = json.dumps(value, ensure_ascii=False)
    for plain, escaped in _ESCAPED.items():
        text = text.replace(plain, escaped)
    return text.encode("utf-8", "surrogateescape")
