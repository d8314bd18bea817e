"""The blobs of the portable cache: each is hashed once, and can be stopped at that."""

from __future__ import annotations

import errno
import os
import threading
from pathlib import Path

import pytest

from plp_builder.cache import staging, verification
from plp_builder.errors import CacheNotUsable
from plp_builder.oci.model import Digest
from tests.support import layouts
from tests.support.cache import Cache
from tests.support.damage import blob, flipped


@pytest.fixture
def cache(tmp_path: Path) -> Cache:
    return Cache(tmp_path / "cache")


def test_blobs_are_hashed_once(cache: Cache, monkeypatch: pytest.MonkeyPatch) -> None:
    cache.build("app", [b"one", b"two"])
    hashed: list[Digest] = []
    real = verification._is_correct

    def counted(directory: Path, descriptor: object, stop: object) -> bool:
        hashed.append(descriptor.digest)  # type: ignore[attr-defined]
        return real(directory, descriptor, stop)  # type: ignore[arg-type]

    monkeypatch.setattr(verification, "_is_correct", counted)
    staging.discard(cache.prepare("app"))
    assert hashed == []
    os.utime(cache.layout / "blobs/sha256" / layouts.sha256(b"one"), (1, 1))
    staging.discard(cache.prepare("app"))
    assert [digest.encoded for digest in hashed] == [layouts.sha256(b"one")]


@pytest.mark.parametrize(
    "record",
    [
        b"",
        b"[]",
        b"{",
        b'{"a": 3}',
        b'{"a": [1, 2]}',
        b"\xff",
        b'{"a": [1e999, 1, 1]}',
        b'{"a": [NaN, 1, 1]}',
    ],
)
def test_a_record_that_cannot_be_read_only_costs_time(cache: Cache, record: bytes) -> None:
    cache.build("app")
    (cache.layout / ".verified.json").write_bytes(record)
    assert cache.build("app").imports
    assert cache.warnings == []


def test_large_blobs_are_hashed_in_threads(cache: Cache, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(verification, "_ALONE", -1)
    cache.build("app", [b"one", b"two", b"three"])
    (cache.layout / ".verified.json").unlink()
    flipped(blob(b"two")(cache.layout))
    assert cache.prepare("app").imports == ()
    assert "other content" in cache.warnings[0].why[0]


def test_threads_that_hash_can_be_stopped(cache: Cache, monkeypatch: pytest.MonkeyPatch) -> None:
    class StopError(Exception):
        pass

    def hang(directory: object, descriptor: object, stop: threading.Event) -> bool:
        return stop.wait()

    def check() -> None:
        if any(thread.name == "verify" for thread in threading.enumerate()):
            raise StopError

    cache.build("app")
    (cache.layout / ".verified.json").unlink()
    monkeypatch.setattr(verification, "_ALONE", -1)
    monkeypatch.setattr(verification, "_is_correct", hang)
    with pytest.raises(StopError):
        staging.prepare(cache.path, "app", check=check, warn=cache.warnings.append)
    assert not any(thread.name == "verify" for thread in threading.enumerate())
    assert cache.warnings == []


def test_a_blob_that_cannot_be_read_costs_a_warning(
    cache: Cache, monkeypatch: pytest.MonkeyPatch
) -> None:
    def fail(*_: object) -> bool:
        raise OSError(errno.EIO, os.strerror(errno.EIO))

    cache.build("app")
    (cache.layout / ".verified.json").unlink()
    monkeypatch.setattr(verification, "_is_correct", fail)
    assert cache.try_prepare("app") is None
    assert [type(warning) for warning in cache.warnings] == [CacheNotUsable]
