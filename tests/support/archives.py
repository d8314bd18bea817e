"""Image archives in the forms of other programs, byte by byte: what the real ones look like.

The structures are those of archives that docker 20.10 and crane 0.22 made, and of moby's source
(image/tarexport/save.go) for Docker 25, whose engine not every machine has.
"""

from __future__ import annotations

import gzip
import hashlib
import json
import os
import zlib
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from pathlib import Path

from tests.support import layouts
from tests.support.layouts import Files, Json, sha256

BLOCK = 512
END = bytes(2 * BLOCK)

_PLAIN = "application/vnd.oci.image.layer.v1.tar"


def member(
    name: str,
    data: bytes = b"",
    *,
    kind: bytes = b"0",
    target: str = "",
    prefix: str = "",
    size_field: bytes | None = None,
    magic: bytes = b"ustar\x0000",
) -> bytes:
    """One member of a tar: header, content and padding, whatever a header can be made to say."""
    size = b"%011o\0" % len(data) if size_field is None else size_field
    header = b"".join(
        (
            name.encode().ljust(100, b"\0"),
            b"0000644\0" + b"0000000\0" * 2,
            size,
            b"00000000000\0",
            b" " * 8,
            kind,
            target.encode().ljust(100, b"\0"),
            magic,
            bytes(80),
            prefix.encode().ljust(155, b"\0"),
        )
    ).ljust(BLOCK, b"\0")
    header = header[:148] + b"%06o\0 " % sum(header) + header[156:]
    assert len(header) == BLOCK, name
    return header + data + bytes(-len(data) % BLOCK)


def packed(files: Mapping[str, bytes], links: Mapping[str, str] | None = None) -> bytes:
    """The files, and symbolic links with their targets, as a tar in the order of their names."""
    members = {name: member(name, data) for name, data in files.items()}
    members |= {name: member(name, kind=b"2", target=to) for name, to in (links or {}).items()}
    return b"".join(data for _, data in sorted(members.items())) + END


def config_of(layers: Iterable[bytes]) -> bytes:
    """The configuration of an image of these (uncompressed) layers, as Docker writes it."""
    diff_ids = [f"sha256:{sha256(layer)}" for layer in layers]
    document = {
        "architecture": "amd64",
        "config": {"Cmd": ["/one"]},
        "created": "1970-01-01T00:00:00Z",
        "os": "linux",
        "rootfs": {"type": "layers", "diff_ids": diff_ids},
    }
    return json.dumps(document, separators=(",", ":")).encode()


def docker_save(
    layers: Sequence[bytes],
    *,
    tags: Sequence[str] = ("app:1",),
    change: Callable[[Files], object] = lambda _: None,
) -> bytes:
    """What docker save made up to Docker 24; ``change`` may change the files before.

    A layer that occurs again is a link to its first occurrence, as is the old name of its id.
    """
    files: Files = {}
    links: dict[str, str] = {}
    seen: dict[bytes, str] = {}
    names = []
    parent = ""
    for layer in layers:
        identifier = sha256(parent.encode() + layer)
        names.append(f"{identifier}/layer.tar")
        files[f"{identifier}/VERSION"] = b"1.0"
        files[f"{identifier}/json"] = json.dumps({"id": identifier, "parent": parent}).encode()
        if layer in seen:
            links[names[-1]] = f"../{seen[layer]}"
        else:
            files[names[-1]] = layer
            seen[layer] = names[-1]
        parent = identifier
    config = config_of(layers)
    files[f"{sha256(config)}.json"] = config
    entry = {"Config": f"{sha256(config)}.json", "RepoTags": list(tags), "Layers": names}
    files["manifest.json"] = json.dumps([entry]).encode()
    files["repositories"] = json.dumps({"app": {"1": parent}}).encode()
    change(files)
    return packed(files, links)


def docker_save_25(
    layers: Sequence[bytes],
    *,
    tags: Sequence[str] = ("app:1",),
    change: Callable[[Files], object] = lambda _: None,
) -> bytes:
    """What docker save makes since Docker 25: an OCI layout with manifest.json and leftovers.

    Layers are not compressed; beside the image's blobs lie the configurations of version 1 of
    each layer, which nothing refers to. index.json has an entry for each tag.
    """
    files: Files = {}
    config = layouts.add_blob(files, config_of(layers), layouts.CONFIG)
    config["platform"] = {"architecture": "amd64", "os": "linux"}
    descriptors: list[Json] = []
    for number, layer in enumerate(layers):
        descriptors.append(layouts.add_blob(files, layer, _PLAIN))
        layouts.add_json(files, {"id": sha256(layer), "created": str(number)}, "text/plain")
    manifest = {
        "schemaVersion": 2,
        "mediaType": layouts.MANIFEST,
        "config": config,
        "layers": descriptors,
    }
    entry = layouts.add_json(files, manifest, layouts.MANIFEST)
    entries = [
        {
            **entry,
            "annotations": {
                "io.containerd.image.name": f"docker.io/library/{tag}",
                "org.opencontainers.image.ref.name": tag.partition(":")[2],
            },
        }
        for tag in tags
    ]
    layouts.finish(files, *entries)
    files["manifest.json"] = layouts.docker_manifest(files, entry, list(tags))
    files["repositories"] = json.dumps({"app": {"1": sha256(layers[-1])}}).encode()
    change(files)
    return packed(files)


def crane_pull(
    layers: Sequence[bytes], *, change: Callable[[Files], object] = lambda _: None
) -> bytes:
    """What crane pull makes: compressed layers, and a configuration named by its digest."""
    files: Files = {}
    names = []
    for layer in layers:
        data = gzip.compress(layer, mtime=0)
        names.append(f"{sha256(data)}.tar.gz")
        files[names[-1]] = data
    config = config_of(layers)
    files[f"sha256:{sha256(config)}"] = config
    entry = {
        "Config": f"sha256:{sha256(config)}",
        "RepoTags": ["example.com/app:1"],
        "Layers": names,
    }
    files["manifest.json"] = json.dumps([entry]).encode()
    change(files)
    return packed(files)


def skopeo_copy(
    layers: Sequence[bytes], *, change: Callable[[Files], object] = lambda _: None
) -> bytes:
    """What skopeo and podman make for docker load: layers by digest, old names as links."""
    files: Files = {}
    links: dict[str, str] = {}
    names = []
    parent = ""
    for layer in layers:
        names.append(f"{sha256(layer)}.tar")
        files[names[-1]] = layer
        parent = sha256(parent.encode() + layer)
        links[f"{parent}/layer.tar"] = f"../{names[-1]}"
        files[f"{parent}/VERSION"] = b"1.0"
        files[f"{parent}/json"] = b"{}"
    config = config_of(layers)
    files[f"{sha256(config)}.json"] = config
    entry = {"Config": f"{sha256(config)}.json", "RepoTags": ["app:1"], "Layers": names}
    files["manifest.json"] = json.dumps([entry]).encode()
    files["repositories"] = json.dumps({"app": {"1": parent}}).encode()
    change(files)
    return packed(files, links)


def write_large(path: Path, sizes: Sequence[int], *, compressed: bool = False) -> None:
    """An archive of layers that are nothing but zeros, and take no room on the disk.

    Plain it is an OCI layout; compressed it is what crane pull makes, whose layers have to be
    uncompressed to be verified.
    """
    # No two layers of the same size: they would be the same blob.
    sizes = [size // BLOCK * BLOCK + number * BLOCK for number, size in enumerate(sizes)]
    diff_ids = [f"sha256:{_sha256_of_zeros(size)}" for size in sizes]
    config = {"os": "linux", "architecture": "amd64", "rootfs": {"diff_ids": diff_ids}}
    files: Files = {}
    if compressed:
        names = []
        for size in sizes:
            data = _gzip_of_zeros(size)
            names.append(f"{sha256(data)}.tar.gz")
            files[names[-1]] = data
        files["config.json"] = json.dumps(config).encode()
        entry = {"Config": "config.json", "Layers": names}
        files["manifest.json"] = json.dumps([entry]).encode()
    else:
        layers = [
            {"mediaType": _PLAIN, "digest": digest, "size": size}
            for digest, size in zip(diff_ids, sizes, strict=True)
        ]
        manifest = {
            "schemaVersion": 2,
            "config": layouts.add_json(files, config, layouts.CONFIG),
            "layers": layers,
        }
        layouts.finish(files, layouts.add_json(files, manifest, layouts.MANIFEST))
    with path.open("wb") as file:
        if not compressed:
            for digest, size in zip(diff_ids, sizes, strict=True):
                name = f"blobs/sha256/{digest.removeprefix('sha256:')}"
                file.write(member(name, size_field=b"%011o\0" % size))
                file.seek(size, os.SEEK_CUR)
        file.write(packed(files))


def _sha256_of_zeros(size: int) -> str:
    hashed = hashlib.sha256()
    for chunk in _zeros(size):
        hashed.update(chunk)
    return hashed.hexdigest()


def _gzip_of_zeros(size: int) -> bytes:
    stream = zlib.compressobj(1, wbits=31)
    return b"".join(map(stream.compress, _zeros(size))) + stream.flush()


def _zeros(size: int) -> Iterator[memoryview]:
    chunk = memoryview(bytes(1024 * 1024))
    while size:
        yield chunk[:size]
        size -= min(size, len(chunk))
