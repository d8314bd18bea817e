"""What is wrong with oci-layout and index.json."""

from __future__ import annotations

import json
from collections.abc import Callable, Mapping
from typing import Any

from tests.support import layouts
from tests.support.archives import packed
from tests.support.layouts import Files, Json
from tests.support.malformed.making import NOWHERE, SCHEMA1, Make, replaced, with_changes


def cases() -> Mapping[str, Make]:
    """What is wrong, and the archive that has it."""
    return _layout() | _json_text() | _index() | _descriptors()


def _without(*names: str) -> Make:
    def make() -> bytes:
        files = layouts.image_files()
        return packed({name: data for name, data in files.items() if name not in names})

    return make


def _layout() -> dict[str, Make]:
    return {
        "no-oci-layout": _without("oci-layout", "manifest.json"),
        "no-index-json": _without("index.json", "manifest.json"),
        "no-index-json-but-a-layout": _without("index.json"),
        "nothing-but-a-layout": lambda: packed({"oci-layout": b'{"imageLayoutVersion":"1.0.0"}'}),
        "no-blobs": lambda: packed(
            {k: v for k, v in layouts.image_files().items() if not k.startswith("blobs/")}
        ),
        "any-other-tar": lambda: packed({"etc/passwd": b"root", "etc/group": b"root"}),
        "layout-in-a-directory": lambda: packed(
            {f"image/{name}": data for name, data in layouts.image_files().items()}
        ),
        "layout-version-2": replaced("oci-layout", b'{"imageLayoutVersion":"2.0.0"}'),
        "layout-version-missing": replaced("oci-layout", b"{}"),
        "layout-version-a-number": replaced("oci-layout", b'{"imageLayoutVersion":1}'),
        "layout-no-object": replaced("oci-layout", b"[]"),
        "layout-no-json": replaced("oci-layout", b"1.0.0"),
    }


def _json_text() -> dict[str, Make]:
    text = json.dumps({"schemaVersion": 2, "manifests": []})
    texts = {
        "json-empty": b"",
        "json-cut-off": b'{"schemaVersion": 2, "manifests": [',
        "json-garbage-behind": text.encode() + b"x",
        "json-an-array": b"[]",
        "json-null": b"null",
        "json-a-text": b'"index"',
        "json-single-quotes": b"{'schemaVersion': 2}",
        "json-nan": b'{"schemaVersion": 2, "manifests": NaN}',
        "json-infinity": b'{"schemaVersion": 2, "manifests": -Infinity}',
        "json-utf-16": text.encode("utf-16"),
        "json-latin-1": b'{"schemaVersion": 2, "annotations": {"a": "\xe4"}}',
        "json-byte-order-mark": b"\xef\xbb\xbf" + text.encode(),
        "json-arrays-too-deep": b"[" * 100_000,
        "json-objects-too-deep": b'{"a":' * 100_000,
        "json-closed-but-too-deep": b"[" * 50_000 + b"]" * 50_000,
        "json-name-twice": b'{"schemaVersion": 2, "manifests": [], "manifests": []}',
        "json-name-twice-by-escape": b'{"manifests": [], "manifest\\u0073": []}',
        "json-name-in-capitals": b'{"schemaVersion": 2, "Manifests": []}',
        "json-name-of-odd-letters": '{"schemaVersion": 2, "manife\u017fts": []}'.encode(),
        "json-endless-number": b'{"schemaVersion": ' + b"9" * 5000 + b"}",
        "json-huge": b" " * (4 * 1024 * 1024 + 1),
    }
    return {name: replaced("index.json", data) for name, data in texts.items()}


def _index_with(**changes: object) -> Make:
    def make() -> bytes:
        files = layouts.image_files()
        index = json.loads(files["index.json"])
        return packed(files | {"index.json": json.dumps(with_changes(index, changes)).encode()})

    return make


def _entry_with(**changes: object) -> Make:
    def make() -> bytes:
        files = layouts.image_files()
        index = json.loads(files["index.json"])
        index["manifests"] = [with_changes(index["manifests"][0], changes)]
        return packed(files | {"index.json": json.dumps(index).encode()})

    return make


def _entries(change: Callable[[Json], list[Json]]) -> Make:
    def make() -> bytes:
        files = layouts.image_files()
        index = json.loads(files["index.json"])
        index["manifests"] = change(index["manifests"][0])
        return packed(files | {"index.json": json.dumps(index).encode()})

    return make


def _two_images() -> bytes:
    files: Files = {}
    entries = [layouts.add_image(files, [layer]) for layer in (b"one", b"two")]
    return packed(layouts.finish(files, *entries))


def _index() -> dict[str, Make]:
    def nothing() -> bytes:
        files = layouts.finish({})
        return packed(files)

    def config_as_image() -> bytes:
        files: Files = {}
        config = layouts.add_json(files, {"os": "linux"}, layouts.CONFIG)
        return packed(layouts.finish(files, config))

    return {
        "index-names-nothing": nothing,
        "index-names-null": lambda: packed(
            layouts.finish({}) | {"index.json": b'{"schemaVersion": 2, "manifests": null}'}
        ),
        "index-names-two-images": _two_images,
        "index-names-a-configuration": config_as_image,
        "index-names-schema-1": _entry_with(mediaType=SCHEMA1),
        "index-names-an-unknown-type": _entry_with(mediaType="text/plain"),
        "index-takes-manifest-for-index": _entry_with(mediaType=layouts.INDEX),
        "index-says-two-sizes": _entries(lambda entry: [entry, {**entry, "size": 1}]),
        "index-says-two-types": _entries(
            lambda entry: [entry, {**entry, "mediaType": layouts.INDEX}]
        ),
        "index-has-type-of-manifest": _index_with(mediaType=layouts.MANIFEST),
        "index-has-unknown-type": _index_with(mediaType="application/json"),
        "index-has-type-that-is-no-text": _index_with(mediaType=3),
        "index-schema-1": _index_with(schemaVersion=1),
        "index-schema-3": _index_with(schemaVersion=3),
        "index-schema-missing": _index_with(schemaVersion=None),
        "index-schema-a-text": _index_with(schemaVersion="2"),
        "index-schema-a-fraction": _index_with(schemaVersion=2.0),
        "index-is-a-manifest-too": _index_with(layers=[], config={}),
        "index-manifests-missing": _index_with(manifests=None),
        "index-manifests-an-object": _index_with(manifests={}),
        "index-manifests-of-texts": _index_with(manifests=[NOWHERE]),
        "index-annotations-a-list": _index_with(annotations=[]),
        "index-annotations-numbers": _index_with(annotations={"a": 1}),
        "index-annotations-half-a-character": _index_with(annotations={"a": "\ud800"}),
    }


def _descriptors() -> dict[str, Make]:
    changes: dict[str, dict[str, Any]] = {
        "descriptor-size-2-to-the-62": {"size": 2**62},
        "descriptor-size-2-to-the-63": {"size": 2**63},
        "descriptor-size-negative": {"size": -1},
        "descriptor-size-zero": {"size": 0},
        "descriptor-size-a-text": {"size": "100"},
        "descriptor-size-a-fraction": {"size": 100.0},
        "descriptor-size-true": {"size": True},
        "descriptor-size-missing": {"size": None},
        "descriptor-digest-missing": {"digest": None},
        "descriptor-digest-of-nothing": {"digest": NOWHERE},
        "descriptor-digest-a-number": {"digest": 5},
        "descriptor-digest-a-path": {"digest": "sha256:../../index.json"},
        "descriptor-digest-short": {"digest": "sha256:abc"},
        "descriptor-digest-in-capitals": {"digest": "sha256:" + "A" * 64},
        "descriptor-digest-md5": {"digest": "md5:" + "0" * 32},
        "descriptor-digest-sha512": {"digest": "sha512:" + "0" * 128},
        "descriptor-digest-endless": {"digest": "crc:" + "0" * 1_000_000},
        "descriptor-type-missing": {"mediaType": None},
        "descriptor-type-a-list": {"mediaType": []},
        "descriptor-platform-a-text": {"platform": "linux/amd64"},
        "descriptor-platform-without-os": {"platform": {"architecture": "amd64"}},
        "descriptor-platform-without-architecture": {"platform": {"os": "linux"}},
        "descriptor-platform-of-numbers": {"platform": {"os": 1, "architecture": 2}},
        "descriptor-platform-of-lines": {"platform": {"os": "a\n# b", "architecture": "x"}},
        "descriptor-platform-of-markup": {"platform": {"os": "a", "architecture": "<img>"}},
        "descriptor-platform-that-colours": {
            "platform": {"os": "linux", "architecture": "arm", "variant": "\x1b[31m7"}
        },
        "descriptor-platform-of-no-letters": {"platform": {"os": "|", "architecture": "a"}},
        "descriptor-annotations-a-text": {"annotations": "a=b"},
        "descriptor-annotations-nested": {"annotations": {"a": {"b": "c"}}},
        "descriptor-size-spelled-twice": {"Size": 5},
    }
    return {name: _entry_with(**change) for name, change in changes.items()}
