"""What an archive may cost before anything is pushed: layers, documents, and time to stop."""

from __future__ import annotations

import gzip
import hashlib
import io

import pytest

from plp_builder.errors import ArchiveInvalid
from plp_builder.oci import artifact, layers
from tests.support import archives, layouts, malformed
from tests.support.artifacts import LAYERS, consistent, read
from tests.support.layouts import Files


@pytest.mark.parametrize("size", [0, 1, 256 * 1024, 256 * 1024 + 1, 3_000_000])
@pytest.mark.parametrize("step", [1 << 10, 1 << 20])
def test_layers_of_any_size_have_both_digests(size: int, step: int) -> None:
    """Also those whose last piece fills the output exactly."""
    plain = bytes(size)
    packed = gzip.compress(plain, mtime=0)
    spent: list[int] = []
    hashed = layers.LayerHash("x", spent.append)
    for start in range(0, len(packed), step):
        hashed.update(memoryview(packed)[start : start + step])
    hashed.finish()
    assert sum(spent) >= size
    assert hashed.digest == f"sha256:{hashlib.sha256(packed).hexdigest()}"
    assert hashed.diff_id == f"sha256:{hashlib.sha256(plain).hexdigest()}"


def test_endless_layers_are_refused(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(layers, "MAX_UNPACKED", 1_000_000)
    with pytest.raises(ArchiveInvalid, match="more than 1000000 bytes"):
        read(archives.crane_pull([bytes(1_000_001)]))


def test_all_layers_together_have_a_bound(monkeypatch: pytest.MonkeyPatch) -> None:
    """Each alone would pass, and a hundred thousand of them would take weeks."""
    monkeypatch.setattr(layers, "MAX_UNPACKED", 1_000_000)
    consistent(data := archives.crane_pull([bytes(400_000), bytes(400_001)]), read(data))
    with pytest.raises(ArchiveInvalid, match="more than 1000000 bytes"):
        read(archives.crane_pull([bytes(400_000), bytes(400_001), bytes(400_002)]))


class StopError(Exception):
    """What a check raises."""


@pytest.mark.parametrize(
    "layer",
    [gzip.compress(bytes(100 << 20), mtime=0), gzip.compress(b"", mtime=0) * 20_000],
    ids=["much content", "many empty members"],
)
def test_a_stop_is_seen_while_little_becomes_much(layer: bytes) -> None:
    """Input alone says nothing: a piece of it may take minutes to unpack."""
    checks: list[int] = []

    def spend(size: int) -> None:
        checks.append(size)
        if len(checks) == 3:
            raise StopError

    assert len(layer) < 1 << 20
    with pytest.raises(StopError):
        layers.LayerHash("x", spend).update(memoryview(layer))
    assert max(checks) < 5 << 20


def test_the_caller_is_asked_while_a_layer_is_unpacked() -> None:
    """However small the layer in the archive is."""
    data = archives.crane_pull([bytes(100 << 20)])
    calls: list[None] = []
    artifact.read(io.BytesIO(data), check=lambda: calls.append(None))
    assert len(calls) > 20


def test_a_manifest_that_no_registry_takes_is_not_made(monkeypatch: pytest.MonkeyPatch) -> None:
    from plp_builder.oci import docker_archive

    monkeypatch.setattr(docker_archive, "MAX_DOCUMENT_SIZE", 500)
    with pytest.raises(ArchiveInvalid, match="more layers than"):
        read(archives.docker_save(LAYERS))


def test_many_documents_are_refused(monkeypatch: pytest.MonkeyPatch) -> None:
    from plp_builder.oci import contents

    monkeypatch.setattr(contents, "MAX_DOCUMENTS_SIZE", 500)
    with pytest.raises(ArchiveInvalid, match="documents exceed 500 bytes"):
        read(malformed.good())


def test_documents_of_very_many_values_are_refused_before_they_are_parsed() -> None:
    """Two bytes of JSON can become an object of a hundred bytes in memory."""
    data = b'{"os":"linux","architecture":"amd64","x":[' + b",".join([b"{}"] * 1_000_000) + b"]}"
    files: Files = {}
    config = layouts.add_blob(files, data, layouts.CONFIG)
    manifest = {"schemaVersion": 2, "config": config, "layers": []}
    layouts.finish(files, layouts.add_json(files, manifest, layouts.MANIFEST))
    with pytest.raises(ArchiveInvalid, match="hold more than 1000000 values"):
        read(layouts.tar_of(files))


def test_an_index_of_a_thousand_images_is_read() -> None:
    files: Files = {}
    entries = []
    for number in range(1000):
        history = [{"created_by": f"{number} " + "x" * 100}] * 20
        config = {"os": "linux", "architecture": "amd64", "history": history}
        manifest = {
            "schemaVersion": 2,
            "config": layouts.add_json(files, config, layouts.CONFIG),
            "layers": [],
        }
        entries.append(layouts.add_json(files, manifest, layouts.MANIFEST))
    index = {"schemaVersion": 2, "mediaType": layouts.INDEX, "manifests": entries}
    layouts.finish(files, layouts.add_json(files, index, layouts.INDEX))
    assert len(read(layouts.tar_of(files)).images) == 1000
