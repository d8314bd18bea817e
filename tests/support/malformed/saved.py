"""What is wrong with manifest.json, beside an index and in the archives of docker save."""

from __future__ import annotations

import bz2
import gzip
import json
import lzma
from collections.abc import Callable, Mapping

from tests.support import layouts
from tests.support.archives import docker_save, member, packed
from tests.support.layouts import Files
from tests.support.malformed.making import LAYERS, Make, docker_good, replaced, with_changes


def cases() -> Mapping[str, Make]:
    """What is wrong, and the archive that has it."""
    return _docker_manifest() | _docker_form()


def _docker_manifest() -> dict[str, Make]:
    def changed(**changes: object) -> Make:
        def make() -> bytes:
            files = layouts.image_files(tags=["app:1"])
            (entry,) = json.loads(files["manifest.json"])
            text = json.dumps([with_changes(entry, changes)])
            return packed(files | {"manifest.json": text.encode()})

        return make

    def another_too() -> bytes:
        files = layouts.image_files(tags=["app:1"])
        other = layouts.image_files(tags=["other:1"], layers=[b"other"])
        entries = json.loads(files["manifest.json"]) + json.loads(other["manifest.json"])
        return packed(other | files | {"manifest.json": json.dumps(entries).encode()})

    return {
        "docker-manifest-no-json": replaced("manifest.json", b"x"),
        "docker-manifest-an-object": replaced("manifest.json", b"{}"),
        "docker-manifest-empty": replaced("manifest.json", b"[]"),
        "docker-manifest-of-numbers": replaced("manifest.json", b"[3]"),
        "docker-manifest-too-deep": replaced("manifest.json", b"[" * 100_000),
        "docker-manifest-other-layers": changed(Layers=[]),
        "docker-manifest-other-config": changed(Config=f"blobs/sha256/{'0' * 64}"),
        "docker-manifest-config-a-list": changed(Config=[]),
        "docker-manifest-layers-of-numbers": changed(Layers=[1]),
        "docker-manifest-tags-a-text": changed(RepoTags="app:1"),
        "docker-manifest-names-another-too": another_too,
    }


def _saved(change: Callable[[Files], object]) -> Make:
    """An archive of docker save whose files were changed."""
    return lambda: docker_save(LAYERS, change=change)


def _manifest_json(files: Files, **changes: object) -> None:
    (entry,) = json.loads(files["manifest.json"])
    files["manifest.json"] = json.dumps([with_changes(entry, changes)]).encode()


def _saved_with(**changes: object) -> Make:
    return _saved(lambda files: _manifest_json(files, **changes))


def _saved_config(**changes: object) -> Make:
    """A configuration of other content, under the name that goes with it."""

    def change(files: Files) -> None:
        (entry,) = json.loads(files["manifest.json"])
        config = with_changes(json.loads(files.pop(entry["Config"])), changes)
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
        "saved-no-image": _saved(lambda files: files.update({"manifest.json": b"[]"})),
        "saved-images-no-objects": _saved(lambda files: files.update({"manifest.json": b"[1]"})),
        "saved-two-images": _saved(two_images),
        "saved-config-missing": _saved(config_missing),
        "saved-config-changed": _saved(other_config),
        "saved-config-a-list": _saved_with(Config=["a"]),
        "saved-config-unnamed": _saved_with(Config=""),
        "saved-config-a-directory": lambda: (
            member("config/", kind=b"5") + docker_save(LAYERS, change=_named_config("config"))
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
        "saved-platform-endless": _saved_config(os="l" * 1_000_000),
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
