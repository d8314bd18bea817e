"""What the publisher reads in an archive, and archives of every form for it to read."""

from __future__ import annotations

import hashlib
import io
import json

from plp_builder.oci import artifact
from plp_builder.oci.artifact import Artifact
from tests.support import archives, malformed
from tests.support.archives import END, member

LAYERS = tuple(member(name, name.encode()) + END for name in ("one", "two", "one"))
FORMS = {
    "docker-save": archives.docker_save(LAYERS[:2] + LAYERS[:1]),
    "docker-save-25": archives.docker_save_25(LAYERS),
    "skopeo": archives.skopeo_copy(LAYERS[:1]),
    "layout": malformed.good(),
}


def read(data: bytes) -> Artifact:
    return artifact.read(io.BytesIO(data), check=lambda: None)


def content(data: bytes, found: Artifact, digest: str) -> bytes:
    """The bytes that a reader of the artifact would be given."""
    blob = {str(key): blob for key, blob in found.blobs.items()}[digest]
    if blob.data is not None:
        return blob.data
    return data[blob.offset : blob.offset + blob.descriptor.size]


def consistent(data: bytes, found: Artifact) -> dict[str, object]:
    """Check that everything which the artifact names is there; its top manifest comes back."""
    assert found.size == len(data)
    assert found.blobs[found.top.digest].descriptor == found.top
    for digest, blob in found.blobs.items():
        bytes_ = content(data, found, digest)
        assert f"sha256:{hashlib.sha256(bytes_).hexdigest()}" == digest
        assert len(bytes_) == blob.descriptor.size
    top = json.loads(content(data, found, found.top.digest))
    assert isinstance(top, dict)
    if "layers" in top:
        named = {each["digest"] for each in (top["config"], *(top["layers"] or ()))}
        assert named == {str(digest) for digest in found.blobs} - {str(found.top.digest)}
    return top


def pushed(found: Artifact) -> object:
    """All that a registry gets. The names in index.json, annotations, are not part of it."""
    blobs = {key: (blob.descriptor[:3], blob[1:]) for key, blob in found.blobs.items()}
    return (found.top[:3], blobs)
