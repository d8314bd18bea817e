"""What is wrong with the tar itself: its members, their names, kinds and sizes."""

from __future__ import annotations

import bz2
import gzip
import io
import lzma
import zipfile
from collections.abc import Callable, Mapping

from tests.support import layouts
from tests.support.archives import END, member, packed
from tests.support.malformed.making import Make, good, record, with_members


def cases() -> Mapping[str, Make]:
    """What is wrong, and the archive that has it."""
    return _no_tar() | _cut_off() | _names() | _kinds() | _sizes() | _pax()


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
        {name: with_members(member(value, b"x")) for name, value in odd.items()}
        | {name: with_members(member(value, kind=b"5")) for name, value in directories.items()}
        | {
            "name-goes-up-by-its-prefix": with_members(member("escape", b"x", prefix="..")),
            "name-twice": with_members(member("index.json", b"{}")),
            "name-twice-with-a-dot": with_members(member("./index.json", b"{}")),
            "name-twice-as-a-directory": with_members(member("index.json/", kind=b"5")),
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
        name: with_members(member("extra", kind=kind, target="index.json"))
        for name, kind in kinds.items()
    } | {
        "layer-link-in-a-layout": with_members(
            member(f"{'a' * 64}/layer.tar", kind=b"2", target=f"../{'b' * 64}.tar")
        ),
        "blob-is-a-link": blob_is_link,
        "blob-is-a-directory": directory_for_blob,
        "index-json-is-a-directory": instead("index.json"),
        "oci-layout-is-a-directory": instead("oci-layout"),
        "manifest-json-is-a-directory": instead("manifest.json"),
        "directory-with-content": with_members(member("extra/", b"x" * 512, kind=b"5")),
        "link-with-content": with_members(member("extra", b"x" * 512, kind=b"2", target="a")),
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
    return {name: with_members(member("extra", size_field=field)) for name, field in fields.items()}


def _pax() -> dict[str, Make]:
    def pax(body: bytes) -> bytes:
        return member("PaxHeaders/extra", body, kind=b"x")

    extra = member("extra", b"abc")
    bodies = {
        "pax-size-larger": record("size", "99999999"),
        "pax-size-negative": record("size", "-1"),
        "pax-size-no-number": record("size", "many"),
        "pax-size-absurd": record("size", "9" * 30),
        "pax-size-that-hides-a-member": record("size", "1024"),
        "pax-path-goes-up": record("path", "../escape"),
        "pax-path-absolute": record("path", "/etc/passwd"),
        "pax-path-with-nul": record("path", "index.json\0"),
        "pax-path-of-another": record("path", "index.json"),
        "pax-path-endless": record("path", "x" * 5000),
        "pax-key-twice": record("path", "a") + record("path", "b"),
        "pax-sparse": record("GNU.sparse.major", "1"),
        "pax-length-wrong": b"99 path=a\n",
        "pax-length-zero": b"0 path=a\n",
        "pax-length-missing": b"path=a\n",
        "pax-without-newline": b"9 path=ab",
        "pax-without-equals": b"8 path0\n",
    }
    return {name: with_members(pax(body), extra) for name, body in bodies.items()} | {
        "pax-of-pax": with_members(pax(record("size", "3")), pax(record("size", "3")), extra),
        "pax-large": with_members(pax(record("comment", "x" * 70_000)), extra),
        "pax-of-nothing": lambda: good()[: -len(END)] + pax(record("size", "3")) + END,
    }
