"""OCI image layouts made by hand: as files in memory, in a directory or in a tar."""

from __future__ import annotations

import hashlib
import io
import json
import tarfile
from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import Any

MANIFEST = "application/vnd.oci.image.manifest.v1+json"
INDEX = "application/vnd.oci.image.index.v1+json"
CONFIG = "application/vnd.oci.image.config.v1+json"
LAYER = "application/vnd.oci.image.layer.v1.tar+gzip"
CACHE_CONFIG = "application/vnd.buildkit.cacheconfig.v0"

Json = dict[str, Any]
Files = dict[str, bytes]


def sha256(data: bytes) -> str:
    return hashlib.sha256(data).hexdigest()


def add_blob(files: Files, data: bytes, media_type: str, **members: object) -> Json:
    """Put a blob into a layout; its descriptor comes back."""
    files[f"blobs/sha256/{sha256(data)}"] = data
    return {
        "mediaType": media_type,
        "digest": f"sha256:{sha256(data)}",
        "size": len(data),
        **members,
    }


def add_json(files: Files, document: object, media_type: str, **members: object) -> Json:
    return add_blob(files, json.dumps(document).encode(), media_type, **members)


def add_image(
    files: Files,
    layers: Iterable[bytes] = (b"layer one", b"layer two"),
    *,
    architecture: str = "amd64",
    annotations: Mapping[str, str] | None = None,
    **members: object,
) -> Json:
    """An image of these layers; the descriptor of its manifest comes back."""
    descriptors = [add_blob(files, layer, LAYER) for layer in layers]
    config = {
        "architecture": architecture,
        "os": "linux",
        "rootfs": {"type": "layers", "diff_ids": [d["digest"] for d in descriptors]},
    }
    manifest = {
        "schemaVersion": 2,
        "mediaType": MANIFEST,
        "config": add_json(files, config, CONFIG),
        "layers": descriptors,
        "annotations": dict(annotations or {}),
    }
    return add_json(files, manifest, MANIFEST, **members)


def add_cache(files: Files, name: str, layers: Iterable[bytes], tag: str) -> Json:
    """What BuildKit's cache export makes: a manifest of layers with a configuration of its own."""
    manifest = {
        "schemaVersion": 2,
        "mediaType": MANIFEST,
        "config": add_json(files, {"records": [name]}, CACHE_CONFIG),
        "layers": [add_blob(files, layer, LAYER) for layer in layers],
    }
    return add_json(
        files, manifest, MANIFEST, annotations={"org.opencontainers.image.ref.name": tag}
    )


def finish(files: Files, *entries: Json) -> Files:
    """Add index.json and oci-layout, the last ones in the order of names."""
    index = {"schemaVersion": 2, "mediaType": INDEX, "manifests": list(entries)}
    files["index.json"] = json.dumps(index).encode()
    files["oci-layout"] = b'{"imageLayoutVersion":"1.0.0"}'
    return files


def docker_manifest(files: Files, entry: Json, tags: list[str] | None) -> bytes:
    """The manifest.json that goes with the image of ``entry``."""
    manifest = json.loads(files["blobs/sha256/" + entry["digest"].removeprefix("sha256:")])

    def path(descriptor: Json) -> str:
        return f"blobs/sha256/{descriptor['digest'].removeprefix('sha256:')}"

    return json.dumps(
        [
            {
                "Config": path(manifest["config"]),
                "RepoTags": tags,
                "Layers": [path(layer) for layer in manifest["layers"] or ()],
            }
        ]
    ).encode()


def image_files(*, tags: list[str] | None = None, **members: object) -> Files:
    """A whole layout of one image with manifest.json, as BuildKit's docker exporter makes it."""
    files: Files = {}
    entry = add_image(files, **members)  # type: ignore[arg-type]
    files["manifest.json"] = docker_manifest(files, entry, tags)
    return finish(files, entry)


def tar_of(files: Mapping[str, bytes], format: int = tarfile.USTAR_FORMAT) -> bytes:
    """The files as a tar, sorted as BuildKit does it; made by the standard library."""
    buffer = io.BytesIO()
    with tarfile.open(fileobj=buffer, mode="w", format=format) as tar:
        for name in ("blobs", "blobs/sha256"):
            directory = tarfile.TarInfo(name)
            directory.type = tarfile.DIRTYPE
            tar.addfile(directory)
        for name, data in sorted(files.items()):
            add_member(tar, name, data)
    return buffer.getvalue()


def add_member(tar: tarfile.TarFile, name: str, data: bytes) -> None:
    member = tarfile.TarInfo(name)
    member.size = len(data)
    tar.addfile(member, io.BytesIO(data))


def write(directory: Path, files: Mapping[str, bytes]) -> None:
    """The files as a layout directory."""
    for name, data in files.items():
        path = directory / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_bytes(data)


def two_platforms(repeated: int) -> Files:
    """An index as BuildKit makes one: two platforms with a layer in common and one of their own.

    Each layer of their own holds the platform's name ``repeated`` times.
    """
    files: Files = {}
    images = [
        add_image(
            files,
            [architecture.encode() * repeated, b"shared layer"],
            architecture=architecture,
            platform={"architecture": architecture, "os": "linux"},
        )
        for architecture in ("amd64", "arm64")
    ]
    index = {"schemaVersion": 2, "mediaType": INDEX, "manifests": images}
    return finish(files, add_json(files, index, INDEX))
