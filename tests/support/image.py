"""What an archive holds, read by nothing but tarfile: a second opinion on plp_builder.oci."""

from __future__ import annotations

import gzip
import io
import json
import tarfile
from dataclasses import dataclass
from pathlib import Path
from typing import Any


@dataclass(frozen=True, slots=True)
class Image:
    """The one image of an archive. ``files`` are the regular files of its layers by path.

    ``digest`` is its manifest's.
    """

    digest: str
    manifest: dict[str, Any]
    config: dict[str, Any]
    files: dict[str, bytes]
    everything: bytes

    def text(self, path: str) -> str:
        """The content of a file, as text."""
        return self.files[path].decode()


def read(archive: Path) -> Image:
    """Read a single-platform archive with gzip or plain layers; whiteouts are not applied.

    ``everything`` is all that is in it: each member, and each layer uncompressed.
    """
    with tarfile.open(archive) as tar:
        members = {member.name: file.read() for member in tar if (file := tar.extractfile(member))}

    def blob(descriptor: dict[str, Any]) -> bytes:
        return members["blobs/" + descriptor["digest"].replace(":", "/")]

    (entry,) = json.loads(members["index.json"])["manifests"]
    manifest = json.loads(blob(entry))
    files: dict[str, bytes] = {}
    everything = [*members.values()]
    for descriptor in manifest["layers"] or ():
        data = blob(descriptor)
        data = gzip.decompress(data) if data.startswith(b"\x1f\x8b") else data
        everything.append(data)
        with tarfile.open(fileobj=io.BytesIO(data)) as layer:
            for member in layer:
                if member.isreg() and (file := layer.extractfile(member)):
                    files[member.name] = file.read()
    config = json.loads(blob(manifest["config"]))
    return Image(entry["digest"], manifest, config, files, b"\n".join(everything))
