"""Archives that must be refused, each wrong in one way: what an attacker or a full disk leaves.

``cases()`` names them and makes them from good ones, always the same bytes, at most a few MB
each. A publisher must end with exit code 3 for every one of them, before it says a word to any
registry.
"""

from __future__ import annotations

import bz2
import gzip
import io
import json
import lzma
import zipfile
from collections.abc import Callable, Iterable, Mapping
from functools import partial
from typing import Any

from tests.support import layouts
from tests.support.archives import END, docker_save, member, packed
from tests.support.layouts import Files, Json

Make = Callable[[], bytes]

SCHEMA1 = "application/vnd.docker.distribution.manifest.v1+prettyjws"
FOREIGN = "application/vnd.docker.image.rootfs.foreign.diff.tar.gzip"
NOWHERE = "sha256:" + "0" * 64


def cases() -> Mapping[str, Make]:
    """What is wrong, and the archive that has it."""
    return {
        name: make
        for group in (
            _no_tar(),
            _cut_off(),
            _names(),
            _kinds(),
            _sizes(),
            _pax(),
            _layout(),
            _json_text(),
            _index(),
            _descriptors(),
            _manifest(),
            _blobs(),
            _trees(),
            _docker_manifest(),
            _docker_form(),
        )
        for name, make in group.items()
    }


def good() -> bytes:
    """The archive that most cases are made from. It is not refused."""
    return packed(layouts.image_files(tags=["app:1"]))


def docker_good() -> bytes:
    """The same of Docker's old form, with a layer that occurs twice and so is a link."""
    return docker_save(_LAYERS)


def _tar_of(*names: str) -> bytes:
    """Some file's bytes as a layer: a tar of empty files."""
    return b"".join(member(name) for name in names) + END


_LAYERS = (_tar_of("one"), _tar_of("two"), _tar_of("one"))


def _constants(values: Mapping[str, bytes]) -> dict[str, Make]:
    return {name: partial(bytes, value) for name, value in values.items()}


def _no_tar() -> dict[str, Make]:
    def zip_file() -> bytes:
        buffer = io.BytesIO()
        with zipfile.ZipFile(buffer, "w") as file:
            file.writestr(zipfile.ZipInfo("index.json"), "{}" * 600)
        return buffer.getvalue()

    def wrong_checksum() -> bytes:
        data = bytearray(good())
        data[148:156] = b"000001\0 "
        return bytes(data)

    def no_magic() -> bytes:
        # The tar of Unix V7: not one program writes image archives like this.
        return member("oci-layout", b"{}", magic=b"\0" * 8) + END

    return {
        "empty": lambda: b"",
        "one-byte": lambda: b"\0",
        "only-zeros": lambda: bytes(10240),
        "text": lambda: b"this is not an archive\n" * 100,
        "error-page": lambda: b"<!DOCTYPE html><title>404 Not Found</title>".ljust(2048),
        "json": lambda: b'{"schemaVersion": 2}'.ljust(1024),
        "program": lambda: b"\x7fELF\2\1\1".ljust(4096, b"\0"),
        "zip": zip_file,
        "compressed-gzip": lambda: gzip.compress(good(), mtime=0),
        "compressed-bzip2": lambda: bz2.compress(good()),
        "compressed-xz": lambda: lzma.compress(good()),
        "compressed-zstd": lambda: b"\x28\xb5\x2f\xfd" + good(),
        "header-checksum-wrong": wrong_checksum,
        "header-without-magic": no_magic,
        "garbage-for-a-header": lambda: good()[: -len(END)] + b"x" * 512 + END,
        "content-behind-the-end": lambda: good() + b"x" * 512,
        "second-archive-behind-the-end": lambda: good() + good(),
    }


def _cut_off() -> dict[str, Make]:
    def cut(at: Callable[[bytes], int]) -> Make:
        return lambda: (data := good())[: at(data)]

    def in_blob(data: bytes) -> int:
        return data.index(b"blobs/sha256/") + 512 + 3

    return {
        "cut-in-the-first-header": cut(lambda _: 100),
        "cut-behind-the-first-header": cut(lambda _: 512),
        "cut-in-a-later-header": cut(lambda _: 700),
        "cut-in-a-blob": cut(in_blob),
        "cut-in-the-middle": cut(lambda data: len(data) // 2),
        "cut-at-the-last-block": cut(lambda data: len(data) // 2 // 512 * 512),
        "cut-in-index-json": cut(lambda data: data.index(b"index.json") + 512 + 10),
        "cut-before-the-end-marker": cut(lambda data: len(data) - len(END)),
        "cut-in-the-end-marker": cut(lambda data: len(data) - 512),
        "cut-by-one-byte": cut(lambda data: len(data) - 1),
    }


def _with(*members: bytes) -> Make:
    """A good archive with more members in front."""
    return lambda: b"".join(members) + good()


def _names() -> dict[str, Make]:
    odd = {
        "name-goes-up": "../escape",
        "name-goes-up-inside": "blobs/../../escape",
        "name-goes-up-and-back": "blobs/../index.json",
        "name-absolute": "/etc/passwd",
        "name-with-empty-part": "blobs//x",
        "name-with-a-dot": "blobs/./x",
        "name-only-dots": "..",
        "name-empty": "",
        "name-is-a-directory-s": "x/",
    }
    directories = {"directory-goes-up": "../escape/", "directory-absolute": "/root/"}
    return (
        {name: _with(member(value, b"x")) for name, value in odd.items()}
        | {name: _with(member(value, kind=b"5")) for name, value in directories.items()}
        | {
            "name-goes-up-by-its-prefix": _with(member("escape", b"x", prefix="..")),
            "name-twice": _with(member("index.json", b"{}")),
            "name-twice-with-a-dot": _with(member("./index.json", b"{}")),
            "name-twice-as-a-directory": _with(member("index.json/", kind=b"5")),
            "blob-twice": lambda: _repeated(good(), b"blobs/sha256/"),
        }
    )


def _repeated(data: bytes, name: bytes) -> bytes:
    start = data.index(name)
    return data[start : start + 1024] + data


def _kinds() -> dict[str, Make]:
    kinds = {
        "hard-link": b"1",
        "symbolic-link": b"2",
        "character-device": b"3",
        "block-device": b"4",
        "fifo": b"6",
        "contiguous-file": b"7",
        "gnu-long-link": b"K",
        "gnu-long-name": b"L",
        "gnu-volume": b"V",
        "gnu-multi-volume": b"M",
        "gnu-sparse": b"S",
        "unknown-kind": b"Z",
        "pax-global": b"g",
    }

    def blob_is_link() -> bytes:
        files = layouts.image_files()
        name = next(name for name in files if name.startswith("blobs/"))
        data = files.pop(name)
        rest = packed(files | {"content": data})
        return member(name, kind=b"2", target="../../content") + rest

    def instead(name: str) -> Make:
        def make() -> bytes:
            files = layouts.image_files()
            del files[name]
            return member(f"{name}/", kind=b"5") + packed(files)

        return make

    def directory_for_blob() -> bytes:
        files = layouts.image_files()
        name = next(name for name in files if name.startswith("blobs/"))
        del files[name]
        return member(f"{name}/", kind=b"5") + packed(files)

    return {
        name: _with(member("extra", kind=kind, target="index.json")) for name, kind in kinds.items()
    } | {
        "layer-link-in-a-layout": _with(
            member(f"{'a' * 64}/layer.tar", kind=b"2", target=f"../{'b' * 64}.tar")
        ),
        "blob-is-a-link": blob_is_link,
        "blob-is-a-directory": directory_for_blob,
        "index-json-is-a-directory": instead("index.json"),
        "oci-layout-is-a-directory": instead("oci-layout"),
        "manifest-json-is-a-directory": instead("manifest.json"),
        "directory-with-content": _with(member("extra/", b"x" * 512, kind=b"5")),
        "link-with-content": _with(member("extra", b"x" * 512, kind=b"2", target="a")),
    }


def _sizes() -> dict[str, Make]:
    fields = {
        "size-beyond-the-file": b"77777777777\0",
        "size-binary-beyond-the-file": b"\x80" + (2**40).to_bytes(11, "big"),
        "size-binary-absurd": b"\x80" + b"\xff" * 11,
        "size-binary-2-to-the-63": b"\x80" + (2**63).to_bytes(11, "big"),
        "size-binary-negative": b"\xff" * 12,
        "size-no-number": b"hello world\0",
        "size-decimal": b"00000000099\0",
        "size-negative": b"-0000000001\0",
        "size-with-a-hole": b"0000\0" + b"000001\0",
    }
    return {name: _with(member("extra", size_field=field)) for name, field in fields.items()}


def _record(key: str, value: str) -> bytes:
    text = f" {key}={value}\n".encode()
    length = len(text) + 1
    while len(str(length)) + len(text) != length:
        length += 1
    return str(length).encode() + text


def _pax() -> dict[str, Make]:
    def pax(body: bytes) -> bytes:
        return member("PaxHeaders/extra", body, kind=b"x")

    extra = member("extra", b"abc")
    bodies = {
        "pax-size-larger": _record("size", "99999999"),
        "pax-size-negative": _record("size", "-1"),
        "pax-size-no-number": _record("size", "many"),
        "pax-size-absurd": _record("size", "9" * 30),
        "pax-size-that-hides-a-member": _record("size", "1024"),
        "pax-path-goes-up": _record("path", "../escape"),
        "pax-path-absolute": _record("path", "/etc/passwd"),
        "pax-path-with-nul": _record("path", "index.json\0"),
        "pax-path-of-another": _record("path", "index.json"),
        "pax-path-endless": _record("path", "x" * 5000),
        "pax-key-twice": _record("path", "a") + _record("path", "b"),
        "pax-sparse": _record("GNU.sparse.major", "1"),
        "pax-length-wrong": b"99 path=a\n",
        "pax-length-zero": b"0 path=a\n",
        "pax-length-missing": b"path=a\n",
        "pax-without-newline": b"9 path=ab",
        "pax-without-equals": b"8 path0\n",
    }
    return {name: _with(pax(body), extra) for name, body in bodies.items()} | {
        "pax-of-pax": _with(pax(_record("size", "3")), pax(_record("size", "3")), extra),
        "pax-large": _with(pax(_record("comment", "x" * 70_000)), extra),
        "pax-of-nothing": lambda: good()[: -len(END)] + pax(_record("size", "3")) + END,
    }


def _without(*names: str) -> Make:
    def make() -> bytes:
        files = layouts.image_files()
        return packed({name: data for name, data in files.items() if name not in names})

    return make


def _replaced(name: str, data: bytes) -> Make:
    return lambda: packed(layouts.image_files() | {name: data})


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
        "layout-version-2": _replaced("oci-layout", b'{"imageLayoutVersion":"2.0.0"}'),
        "layout-version-missing": _replaced("oci-layout", b"{}"),
        "layout-version-a-number": _replaced("oci-layout", b'{"imageLayoutVersion":1}'),
        "layout-no-object": _replaced("oci-layout", b"[]"),
        "layout-no-json": _replaced("oci-layout", b"1.0.0"),
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
    return {name: _replaced("index.json", data) for name, data in texts.items()}


def _changed(document: Json, changes: Mapping[str, object]) -> Json:
    """The document with these members; what is None is gone."""
    merged = {**document, **changes}
    return {name: value for name, value in merged.items() if value is not None}


def _index_with(**changes: object) -> Make:
    def make() -> bytes:
        files = layouts.image_files()
        index = json.loads(files["index.json"])
        return packed(files | {"index.json": json.dumps(_changed(index, changes)).encode()})

    return make


def _entry_with(**changes: object) -> Make:
    def make() -> bytes:
        files = layouts.image_files()
        index = json.loads(files["index.json"])
        index["manifests"] = [_changed(index["manifests"][0], changes)]
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
        "descriptor-type-missing": {"mediaType": None},
        "descriptor-type-a-list": {"mediaType": []},
        "descriptor-platform-a-text": {"platform": "linux/amd64"},
        "descriptor-platform-without-os": {"platform": {"architecture": "amd64"}},
        "descriptor-platform-without-architecture": {"platform": {"os": "linux"}},
        "descriptor-platform-of-numbers": {"platform": {"os": 1, "architecture": 2}},
        "descriptor-annotations-a-text": {"annotations": "a=b"},
        "descriptor-annotations-nested": {"annotations": {"a": {"b": "c"}}},
        "descriptor-size-spelled-twice": {"Size": 5},
    }
    return {name: _entry_with(**change) for name, change in changes.items()}


def _manifest_with(change: Callable[[Json, Files], object]) -> Make:
    """An archive whose manifest was changed, with digests that are right again."""

    def make() -> bytes:
        files: Files = {}
        entry = layouts.add_image(files)
        manifest = json.loads(files.pop(_name(entry)))
        change(manifest, files)
        entry = layouts.add_json(files, manifest, layouts.MANIFEST)
        return packed(layouts.finish(files, entry))

    return make


def _name(descriptor: Json) -> str:
    return "blobs/" + str(descriptor["digest"]).replace(":", "/")


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
        manifest["layers"][0] = _changed(manifest["layers"][0], changes)

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
        del files[_name(layer)]
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
        manifest = json.loads(files[_name(entry)])
        chosen = {"manifest": entry, "config": manifest["config"], "layer": manifest["layers"][1]}
        return files, _name(chosen[which])

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
        "unused-blob-changed": _replaced(f"blobs/sha256/{'0' * 64}", b"other"),
        "unused-blob-without-digest": _replaced("blobs/sha256/abc", b"x"),
        "unused-blob-without-algorithm": _replaced("blobs/abc", b"x"),
        "unused-blob-deeper": _replaced(f"blobs/sha256/{'0' * 64}/x", b"x"),
        "unused-blob-sha512": _with(
            member("pax", _record("path", f"blobs/sha512/{'0' * 128}"), kind=b"x"),
            member("blob", b"x"),
        ),
    }


def _blobs_swapped() -> bytes:
    files = layouts.image_files(layers=(b"layer 1", b"layer 2"))
    one, two = sorted(name for name, data in files.items() if data.startswith(b"layer"))
    files[one], files[two] = files[two], files[one]
    return packed(files)


def _index_of(files: Files, entries: Iterable[Json]) -> Json:
    document = {"schemaVersion": 2, "mediaType": layouts.INDEX, "manifests": list(entries)}
    return layouts.add_json(files, document, layouts.INDEX)


def _too_deep() -> bytes:
    files: Files = {}
    top = layouts.add_image(files)
    for _ in range(9):
        top = _index_of(files, [top])
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
        files[_name(here)] = text.ljust(207).encode()
    return packed(layouts.finish(files, first))


def _trees() -> dict[str, Make]:
    def nested(entries: Callable[[Files], list[Json]]) -> Make:
        def make() -> bytes:
            files: Files = {}
            top = _index_of(files, entries(files))
            return packed(layouts.finish(files, top))

        return make

    def without_child(files: Files) -> list[Json]:
        images = [layouts.add_image(files, [b"one"]), layouts.add_image(files, [b"two"])]
        del files[_name(images[1])]
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


def _docker_manifest() -> dict[str, Make]:
    def changed(**changes: object) -> Make:
        def make() -> bytes:
            files = layouts.image_files(tags=["app:1"])
            (entry,) = json.loads(files["manifest.json"])
            text = json.dumps([_changed(entry, changes)])
            return packed(files | {"manifest.json": text.encode()})

        return make

    def another_too() -> bytes:
        files = layouts.image_files(tags=["app:1"])
        other = layouts.image_files(tags=["other:1"], layers=[b"other"])
        entries = json.loads(files["manifest.json"]) + json.loads(other["manifest.json"])
        return packed(other | files | {"manifest.json": json.dumps(entries).encode()})

    return {
        "docker-manifest-no-json": _replaced("manifest.json", b"x"),
        "docker-manifest-an-object": _replaced("manifest.json", b"{}"),
        "docker-manifest-empty": _replaced("manifest.json", b"[]"),
        "docker-manifest-of-numbers": _replaced("manifest.json", b"[3]"),
        "docker-manifest-too-deep": _replaced("manifest.json", b"[" * 100_000),
        "docker-manifest-other-layers": changed(Layers=[]),
        "docker-manifest-other-config": changed(Config=f"blobs/sha256/{'0' * 64}"),
        "docker-manifest-config-a-list": changed(Config=[]),
        "docker-manifest-layers-of-numbers": changed(Layers=[1]),
        "docker-manifest-tags-a-text": changed(RepoTags="app:1"),
        "docker-manifest-names-another-too": another_too,
    }


def _saved(change: Callable[[Files], object]) -> Make:
    """An archive of docker save whose files were changed."""
    return lambda: docker_save(_LAYERS, change=change)


def _manifest_json(files: Files, **changes: object) -> None:
    (entry,) = json.loads(files["manifest.json"])
    files["manifest.json"] = json.dumps([_changed(entry, changes)]).encode()


def _saved_with(**changes: object) -> Make:
    return _saved(lambda files: _manifest_json(files, **changes))


def _saved_config(**changes: object) -> Make:
    """A configuration of other content, under the name that goes with it."""

    def change(files: Files) -> None:
        (entry,) = json.loads(files["manifest.json"])
        config = _changed(json.loads(files.pop(entry["Config"])), changes)
        data = json.dumps(config).encode()
        name = f"{layouts.sha256(data)}.json"
        files[name] = data
        _manifest_json(files, Config=name)

    return _saved(change)


def _saved_layer(change: Callable[[bytes], bytes]) -> Make:
    def make(files: Files) -> None:
        name = next(name for name in files if name.endswith("/layer.tar"))
        files[name] = change(files[name])

    return _saved(make)


def _docker_form() -> dict[str, Make]:
    def link(target: str, name: str = f"{'a' * 64}/layer.tar") -> Make:
        return lambda: member(name, kind=b"2", target=target) + docker_good()

    def packed_layer(data: bytes) -> bytes:
        return gzip.compress(data, mtime=0)

    def other_config(files: Files) -> None:
        (entry,) = json.loads(files["manifest.json"])
        files[entry["Config"]] += b" "

    def config_missing(files: Files) -> None:
        del files[json.loads(files["manifest.json"])[0]["Config"]]

    def layer_missing(files: Files) -> None:
        del files[next(name for name in files if name.endswith("/layer.tar"))]

    def two_images(files: Files) -> None:
        (entry,) = json.loads(files["manifest.json"])
        other = {**entry, "Layers": entry["Layers"][:1], "RepoTags": ["other:1"]}
        files["manifest.json"] = json.dumps([entry, other]).encode()

    def two_links() -> bytes:
        first, second = "a" * 64, "b" * 64
        return (
            member(f"{first}/layer.tar", kind=b"2", target=f"../{second}/layer.tar")
            + member(f"{second}/layer.tar", kind=b"2", target=f"../{first}/layer.tar")
            + docker_good()
        )

    ids = {"type": "layers", "diff_ids": ["sha512:" + "0" * 128] * 3}
    short = {"type": "layers", "diff_ids": ["sha256:abc"] * 3}
    return {
        "saved-two-images": _saved(two_images),
        "saved-config-missing": _saved(config_missing),
        "saved-config-changed": _saved(other_config),
        "saved-config-a-list": _saved_with(Config=["a"]),
        "saved-config-unnamed": _saved_with(Config=""),
        "saved-config-a-directory": lambda: (
            member("config/", kind=b"5") + docker_save(_LAYERS, change=_named_config("config"))
        ),
        "saved-config-spelled-twice": _saved_with(config="a"),
        "saved-config-no-object": _saved(_config_no_object),
        "saved-layers-none": _saved_with(Layers=[]),
        "saved-layers-of-numbers": _saved_with(Layers=[1, 2, 3]),
        "saved-layers-go-up": _saved_with(Layers=["../a", "../b", "../c"]),
        "saved-layers-are-the-config": _saved(_layers_are_config),
        "saved-layer-missing": _saved(layer_missing),
        "saved-layer-changed": _saved_layer(lambda data: data[:-1] + b"x"),
        "saved-layer-empty": _saved_layer(lambda _: b""),
        "saved-layer-gzip-of-another": _saved_layer(lambda _: packed_layer(b"other")),
        "saved-layer-gzip-cut-off": _saved_layer(lambda data: packed_layer(data)[:-9]),
        "saved-layer-gzip-damaged": _saved_layer(lambda data: packed_layer(data)[:-8] + b"\0" * 8),
        "saved-layer-gzip-and-garbage": _saved_layer(lambda data: packed_layer(data) + b"garbage"),
        "saved-layer-gzip-twice": _saved_layer(lambda data: packed_layer(data) * 2),
        "saved-layer-zstd": _saved_layer(lambda data: b"\x28\xb5\x2f\xfd" + data),
        "saved-layer-bzip2": _saved_layer(bz2.compress),
        "saved-layer-xz": _saved_layer(lzma.compress),
        "saved-diff-ids-sha512": _saved_config(rootfs=ids),
        "saved-diff-ids-short": _saved_config(rootfs=short),
        "saved-diff-ids-missing": _saved_config(rootfs=None),
        "saved-diff-ids-an-object": _saved_config(rootfs={"diff_ids": {}}),
        "saved-platform-of-numbers": _saved_config(os=1, architecture=2),
        "saved-link-to-nowhere": link(f"../{'c' * 64}/layer.tar"),
        "saved-link-out": link("../../../etc/passwd"),
        "saved-link-absolute": link("/etc/passwd"),
        "saved-link-to-itself": link(f"../{'a' * 64}/layer.tar"),
        "saved-link-to-the-manifest": link("../manifest.json"),
        "saved-link-empty": link(""),
        "saved-link-of-another-name": link(f"../{'c' * 64}.tar", "link"),
        "saved-link-for-the-config": link("manifest.json", "config.json"),
        "saved-links-in-a-circle": two_links,
        "saved-hard-link": lambda: member("a", kind=b"1", target="manifest.json") + docker_good(),
        "saved-cut-off": lambda: docker_good()[: len(docker_good()) // 2],
        "saved-content-behind-the-end": lambda: docker_good() + b"x" * 512,
        "saved-name-twice": lambda: member("manifest.json", b"[]") + docker_good(),
        "saved-and-a-wrong-index": _saved(lambda files: files.update({"index.json": b"{}"})),
    }


def _named_config(name: str) -> Callable[[Files], None]:
    return lambda files: _manifest_json(files, Config=name)


def _config_no_object(files: Files) -> None:
    files["c"] = b"[]"
    _manifest_json(files, Config="c")


def _layers_are_config(files: Files) -> None:
    (entry,) = json.loads(files["manifest.json"])
    _manifest_json(files, Layers=[entry["Config"]] * 3)
