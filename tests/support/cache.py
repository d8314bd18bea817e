"""A portable cache without BuildKit: what its export does to a staging directory."""

from __future__ import annotations

import os
from collections.abc import Iterable
from pathlib import Path

from plp_builder.cache import index, merging, staging
from plp_builder.cache.staging import Staged
from plp_builder.errors import Failure
from tests.support import layouts
from tests.support.layouts import Files

LARGE = 10**9
SETTLED = {".lock", ".verified.json", "blobs", "index.json", "oci-layout"}
"""What lies in a portable cache that no build is using."""


def no_check() -> None:
    return None


def names(directory: Path) -> set[str]:
    return {path.name for path in directory.iterdir()}


def blobs(directory: Path) -> dict[str, bytes]:
    return {path.name: path.read_bytes() for path in (directory / "blobs/sha256").iterdir()}


class Cache:
    """A cache directory; the warnings of all that happens to it are in ``warnings``."""

    def __init__(self, path: Path) -> None:
        self.path = path
        self.layout = path / "buildkit"
        self.warnings: list[Failure] = []

    def prepare(self, tag: str) -> Staged:
        staged = self.try_prepare(tag)
        assert staged is not None
        return staged

    def try_prepare(self, tag: str) -> Staged | None:
        return staging.prepare(self.path, tag, check=no_check, warn=self.warnings.append)

    def keep(self, staged: Staged, max_size: int = LARGE) -> None:
        merging.keep(staged, max_size=max_size, check=no_check, warn=self.warnings.append)

    def build(self, tag: str, layers: Iterable[bytes] = (), max_size: int = LARGE) -> Staged:
        """One build of the image ``tag`` that ends with these layers in its cache."""
        staged = self.prepare(tag)
        export(staged, layers or [f"layer of {tag}".encode()])
        self.keep(staged, max_size)
        return staged

    def tags(self) -> list[str]:
        return [index.tag_of(entry) for entry in index.read(self.layout).entries]

    def contents(self) -> set[bytes]:
        """The content of every blob."""
        return set(blobs(self.layout).values())


def export(staged: Staged, layers: Iterable[bytes]) -> None:
    """What BuildKit does: write the blobs that are not there yet, then the index."""
    files: Files = {}
    entry = layouts.add_cache(files, staged.tag, layers, staged.tag)
    for name, data in files.items():
        path = staged.directory / name
        if not path.exists():
            temporary = path.with_suffix(".new")
            temporary.write_bytes(data)
            os.rename(temporary, path)  # noqa: PTH104 - as BuildKit: never into an old inode
    layouts.write(
        staged.directory,
        {name: data for name, data in layouts.finish({}, entry).items() if "/" not in name},
    )
