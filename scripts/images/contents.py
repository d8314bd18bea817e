"""What an archive's image weighs, unpacked, layer by layer."""

from __future__ import annotations

import json
import tarfile
from pathlib import Path
from typing import IO, Any, NamedTuple

_BY_BUILDKIT = "# buildkit"


class Layer(NamedTuple):
    """``made_by`` is the step that made it; ``size`` the bytes of its files."""

    made_by: str
    size: int


class Weight(NamedTuple):
    """``base`` are the bytes of the base image's layers; ``layers`` those above it."""

    base: int
    layers: tuple[Layer, ...]

    @property
    def above(self) -> int:
        """Bytes above the base image."""
        return sum(layer.size for layer in self.layers)


def weigh(archive: Path) -> Weight:
    """Unpack an archive of one image in passing. Raises OSError, tarfile.TarError, ValueError."""
    with tarfile.open(archive) as tar:
        (entry,) = _json(tar, "manifest.json")
        history = _json(tar, entry["Config"]).get("history") or []
        steps = [item.get("created_by", "") for item in history if not item.get("empty_layer")]
        sizes = [_unpacked(tar, name) for name in entry["Layers"] or []]
    first = next((i for i, step in enumerate(steps) if step.endswith(_BY_BUILDKIT)), len(steps))
    layers = [
        Layer(step.removesuffix(_BY_BUILDKIT).removeprefix("RUN /bin/sh -c ").strip(), size)
        for step, size in zip(steps[first:], sizes[first:], strict=True)
    ]
    return Weight(sum(sizes[:first]), tuple(layers))


def _file(tar: tarfile.TarFile, name: str) -> IO[bytes]:
    file = tar.extractfile(name)
    if file is None:
        raise ValueError(f"{name} is no file")
    return file


def _json(tar: tarfile.TarFile, name: str) -> Any:
    return json.load(_file(tar, name))


def _unpacked(tar: tarfile.TarFile, name: str) -> int:
    with tarfile.open(fileobj=_file(tar, name), mode="r:*") as layer:
        return sum(member.size for member in layer if member.isreg())
