"""What is wrong with manifests, configurations, layers and the trees that they are in."""

from __future__ import annotations

import json
from collections.abc import Callable, Mapping
from functools import partial

from tests.support import layouts
from tests.support.archives import member, packed
from tests.support.layouts import Files, Json
from tests.support.malformed.making import (
    NOWHERE,
    SCHEMA1,
    Make,
    index_of,
    name_of,
    record,
    replaced,
    with_changes,
    with_members,
)

FOREIGN = "application/vnd.docker.image.rootfs.foreign.diff.tar.gzip"


def cases() -> Mapping[str, Make]:
    """What is wrong, and the archive that has it."""
    return _manifest() | _blobs() | _trees()


def _manifest_with(change: Callable[[Json, Files], object]) -> Make:
    """An archive whose manifest was changed, with digests that are right again."""

    def make() -> bytes:
        files: Files = {}
        entry = layouts.add_image(files)
        manifest = json.loads(files.pop(name_of(entry)))
        change(manifest, files)
        entry = layouts.add_json(files, manifest, layouts.MANIFEST)
        return packed(layouts.finish(files, entry))

    return make


def _manifest_members(**changes: object) -> Make:
    def change(manifest: Json, _: Files) -> None:
        for name, value in changes.items():
            if value is None:
                del manifest[name]
            else:
                manifest[name] = value

    return _manifest_with(change)


def _layer_with(**changes: object) -> Make:
    def change(manifest: Json, _: Files) -> None:
        manifest["layers"][0] = with_changes(manifest["layers"][0], changes)

    return _manifest_with(change)


def _config_is(value: object) -> Make:
    def change(manifest: Json, files: Files) -> None:
        manifest["config"] = layouts.add_blob(
            files,
            value if isinstance(value, bytes) else json.dumps(value).encode(),
            layouts.CONFIG,
        )

    return _manifest_with(change)


def _manifest() -> dict[str, Make]:
    def raw(data: bytes) -> Make:
        def make() -> bytes:
            files: Files = {}
            entry = layouts.add_blob(files, data, layouts.MANIFEST)
            return packed(layouts.finish(files, entry))

        return make

    def foreign(manifest: Json, files: Files) -> None:
        layer = manifest["layers"][0]
        del files[name_of(layer)]
        layer.update(mediaType=FOREIGN, urls=["https://example.com/layer"])

    diff_ids = {"type": "layers", "diff_ids": [NOWHERE]}
    return {
        "manifest-no-json": raw(b"manifest"),
        "manifest-empty": raw(b""),
        "manifest-an-array": raw(b"[]"),
        "manifest-huge": raw(b" " * (4 * 1024 * 1024 + 1)),
        "manifest-too-deep": raw(b"[" * 100_000),
        "manifest-name-twice": raw(b'{"schemaVersion":2,"config":{},"config":{}}'),
        "manifest-schema-1": raw(
            json.dumps({"schemaVersion": 1, "name": "app", "fsLayers": [], "history": []}).encode()
        ),
        "manifest-without-config": _manifest_members(config=None),
        "manifest-config-a-text": _manifest_members(config=NOWHERE),
        "manifest-is-an-index-too": _manifest_members(manifests=[]),
        "manifest-of-another-type": _manifest_members(mediaType=layouts.INDEX),
        "manifest-layers-an-object": _manifest_members(layers={}),
        "manifest-layers-spelled-twice": _manifest_members(Layers=[]),
        "manifest-annotations-numbers": _manifest_members(annotations={"a": 1}),
        "manifest-fewer-layers-than-config": _manifest_with(
            lambda manifest, _: manifest["layers"].pop()
        ),
        "layer-size-larger": _layer_with(size=10),
        "layer-size-2-to-the-62": _layer_with(size=2**62),
        "layer-of-nothing": _layer_with(digest=NOWHERE),
        "layer-sha512": _layer_with(digest="sha512:" + "0" * 128),
        "layer-without-type": _layer_with(mediaType=None),
        "layer-is-a-manifest": _layer_with(mediaType=layouts.MANIFEST),
        "layer-elsewhere": _manifest_with(foreign),
        "layer-here-and-elsewhere": _layer_with(urls=["https://example.com/layer"]),
        "layer-urls-a-text": _layer_with(urls="https://example.com/layer"),
        "layer-type-of-two-lines": _layer_with(mediaType="a/b\r\nc: d"),
        "layer-type-not-ascii": _layer_with(mediaType="\u00e4/b"),
        "layer-data-of-another": _layer_with(data="e30="),
        "layer-data-no-base64": _layer_with(data="bGF5ZXIgb25l?"),
        "layer-data-a-number": _layer_with(data=1),
        "config-no-json": _config_is(b"config"),
        "config-an-array": _config_is([]),
        "config-too-deep": _config_is(b"[" * 100_000),
        "config-without-layers": _config_is({"os": "linux", "architecture": "amd64"}),
        "config-fewer-layers": _config_is({"os": "linux", "rootfs": diff_ids}),
        "config-layers-no-texts": _config_is({"rootfs": {"diff_ids": [1, 2]}}),
    }


def _blobs() -> dict[str, Make]:
    def chosen(which: str) -> tuple[Files, str]:
        files = layouts.image_files()
        entry = json.loads(files["index.json"])["manifests"][0]
        manifest = json.loads(files[name_of(entry)])
        chosen = {"manifest": entry, "config": manifest["config"], "layer": manifest["layers"][1]}
        return files, name_of(chosen[which])

    def missing(which: str) -> bytes:
        files, name = chosen(which)
        del files[name]
        return packed(files)

    def changed(which: str) -> bytes:
        files, name = chosen(which)
        data = bytearray(files[name])
        data[len(data) // 2] ^= 1
        return packed(files | {name: bytes(data)})

    def shorter(which: str) -> bytes:
        files, name = chosen(which)
        return packed(files | {name: files[name][:-1]})

    def longer(which: str) -> bytes:
        files, name = chosen(which)
        return packed(files | {name: files[name] + b"\0"})

    return {
        f"{which}-{make.__name__}": partial(make, which)
        for which in ("manifest", "config", "layer")
        for make in (missing, changed, shorter, longer)
    } | {
        "blobs-swapped": _blobs_swapped,
        "unused-blob-changed": replaced(f"blobs/sha256/{'0' * 64}", b"other"),
        "unused-blob-without-digest": replaced("blobs/sha256/abc", b"x"),
        "unused-blob-without-algorithm": replaced("blobs/abc", b"x"),
        "unused-blob-deeper": replaced(f"blobs/sha256/{'0' * 64}/x", b"x"),
        "unused-blob-sha512": with_members(
            member("pax", record("path", f"blobs/sha512/{'0' * 128}"), kind=b"x"),
            member("blob", b"x"),
        ),
    }


def _blobs_swapped() -> bytes:
    files = layouts.image_files(layers=(b"layer 1", b"layer 2"))
    one, two = sorted(name for name, data in files.items() if data.startswith(b"layer"))
    files[one], files[two] = files[two], files[one]
    return packed(files)


def _too_deep() -> bytes:
    files: Files = {}
    top = layouts.add_image(files)
    for _ in range(9):
        top = index_of(files, [top])
    return packed(layouts.finish(files, top))


def _circle() -> bytes:
    # No digest can be that of a document that holds it: one of the two has to be wrong.
    files: Files = {}
    name = f"blobs/sha256/{'1' * 64}"
    entry = {"mediaType": layouts.INDEX, "digest": name[6:].replace("/", ":"), "size": 0}
    document = {"schemaVersion": 2, "manifests": [entry]}
    entry["size"] = len(json.dumps(document)) + 2
    files[name] = json.dumps(document).encode()
    assert len(files[name]) == entry["size"]
    return packed(layouts.finish(files, entry))


def _circle_of_two() -> bytes:
    files: Files = {}
    first, second = (
        {"mediaType": layouts.INDEX, "digest": f"sha256:{digit * 64}", "size": 207}
        for digit in "12"
    )
    for here, there in ((first, second), (second, first)):
        text = json.dumps({"schemaVersion": 2, "manifests": [there]})
        files[name_of(here)] = text.ljust(207).encode()
    return packed(layouts.finish(files, first))


def _trees() -> dict[str, Make]:
    def nested(entries: Callable[[Files], list[Json]]) -> Make:
        def make() -> bytes:
            files: Files = {}
            top = index_of(files, entries(files))
            return packed(layouts.finish(files, top))

        return make

    def without_child(files: Files) -> list[Json]:
        images = [layouts.add_image(files, [b"one"]), layouts.add_image(files, [b"two"])]
        del files[name_of(images[1])]
        return images

    def two_types(files: Files) -> list[Json]:
        image = layouts.add_image(files)
        return [image, {**image, "mediaType": layouts.INDEX}]

    def two_sizes(files: Files) -> list[Json]:
        image = layouts.add_image(files)
        return [image, {**image, "size": 7}]

    return {
        "tree-of-nothing": nested(lambda _: []),
        "tree-too-deep": _too_deep,
        "tree-in-a-circle": _circle,
        "tree-in-a-circle-of-two": _circle_of_two,
        "tree-without-a-child": nested(without_child),
        "tree-says-two-types": nested(two_types),
        "tree-says-two-sizes": nested(two_sizes),
        "tree-names-a-layer": nested(lambda files: [layouts.add_blob(files, b"x", layouts.LAYER)]),
        "tree-names-schema-1": nested(
            lambda files: [layouts.add_image(files), layouts.add_blob(files, b"{}", SCHEMA1)]
        ),
        "tree-platform-of-numbers": nested(
            lambda files: [layouts.add_image(files, platform={"os": 1, "architecture": "a"})]
        ),
    }
