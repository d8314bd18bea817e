"""What the registry of the portable cache answers, and to whom; sockets are integration tests."""

from __future__ import annotations

from pathlib import Path

import pytest

from plp_builder.cache import index
from plp_builder.cache.serving import CacheRegistry, owner
from plp_builder.oci import layout
from plp_builder.oci.distribution import Reply, Request
from plp_builder.oci.model import Descriptor, Digest
from tests.support.cache import Cache


class Asked:
    """A registry with the cache of one image, and somebody who knows its name."""

    def __init__(self, directory: Path) -> None:
        cache = Cache(directory / "cache")
        cache.build("app", [b"one", b"two"])
        cache.build("other", [b"three"])
        self.layout = cache.layout
        self.entry, other = index.read(cache.layout).entries
        self.blobs = self.needed(self.entry)
        (self.foreign, *_) = self.needed(other)
        self.registry = CacheRegistry(cache.layout, self.blobs, frozenset())
        self.registry.address = "127.0.0.1:5000"
        self.name = self.registry.reference(self.entry.digest).split("/")[1].split("@")[0]

    def needed(self, entry: Descriptor) -> list[Descriptor]:
        return [node.descriptor for node in layout.reachable(self.layout, entry)]

    def get(self, path: str, method: str = "GET", **headers: str) -> Reply:
        return self.registry.answer(Request(method, path, headers))

    def blob(self, digest: Digest | str, kind: str = "blobs") -> Reply:
        return self.get(f"/v2/{self.name}/{kind}/{digest}")


@pytest.fixture
def asked(tmp_path: Path) -> Asked:
    return Asked(tmp_path)


def test_the_entry_is_a_manifest_of_its_own_type(asked: Asked) -> None:
    reply = asked.blob(asked.entry.digest, "manifests")
    assert reply.status == "200 OK"
    assert dict(reply.headers)["Content-Type"] == asked.entry.media_type
    assert not reply.stranger
    assert asked.registry.asked


def test_all_that_it_needs_are_blobs(asked: Asked) -> None:
    for blob in asked.blobs:
        reply = asked.blob(blob.digest)
        assert (reply.status, reply.length) == ("200 OK", blob.size)
        assert reply.blob
        with asked.registry.opened(reply.blob) as file:
            assert file >= 0


def test_the_name_is_another_one_each_time(asked: Asked, tmp_path: Path) -> None:
    assert len(asked.name) == 32
    assert Asked(tmp_path / "again").name != asked.name


def test_the_reference_names_the_digest(asked: Asked) -> None:
    reference = asked.registry.reference(asked.entry.digest)
    assert reference == f"127.0.0.1:5000/{asked.name}@{asked.entry.digest}"


@pytest.mark.parametrize("path", ["/", "/v2", "/v2/x/blobs/", "/v2//blobs/", "/v2/_catalog"])
def test_who_does_not_know_the_name_is_a_stranger(asked: Asked, path: str) -> None:
    reply = asked.get(path)
    assert reply == Reply("404 Not Found", stranger=True)
    assert not asked.registry.asked


def test_a_stranger_is_told_no_blob(asked: Asked) -> None:
    name = "0" * len(asked.name)
    assert asked.get(f"/v2/{name}/blobs/{asked.entry.digest}").blob is None
    assert asked.get(f"/v2/blobs/{asked.entry.digest}").blob is None


def test_that_it_is_a_registry_may_be_known(asked: Asked) -> None:
    assert asked.get("/v2/") == Reply("200 OK", stranger=True)


@pytest.mark.parametrize(
    "rest",
    [
        "",
        "tags/list",
        "manifests/app",
        "blobs/",
        "blobs/../../index.json",
        "blobs/sha256:../../../index.json",
        f"blobs/sha256:{'c' * 64}",
        f"uploads/sha256:{'c' * 64}",
    ],
)
def test_there_is_nothing_else(asked: Asked, rest: str) -> None:
    assert asked.get(f"/v2/{asked.name}/{rest}") == Reply("404 Not Found")


def test_blobs_of_other_entries_are_not_there(asked: Asked) -> None:
    assert layout.blob_status(asked.layout, asked.foreign)
    assert asked.blob(asked.foreign.digest).status.startswith("404")


def test_a_layer_is_no_manifest(asked: Asked) -> None:
    assert asked.blob(asked.blobs[-1].digest, "manifests").status.startswith("404")


@pytest.mark.parametrize("damage", ["missing", "short", "link", "directory"])
def test_a_blob_that_is_not_as_it_should_be_is_not_there(
    asked: Asked, damage: str, tmp_path: Path
) -> None:
    blob = asked.blobs[-1]
    path = layout.blob_path(asked.layout, blob.digest)
    content = path.read_bytes()
    path.unlink()
    if damage == "short":
        path.write_bytes(content[:-1])
    elif damage == "link":
        (tmp_path / "elsewhere").write_bytes(content)
        path.symlink_to(tmp_path / "elsewhere")
    elif damage == "directory":
        path.mkdir()
    assert asked.blob(blob.digest).status == "404 Not Found"


def test_a_link_is_not_followed_later_either(asked: Asked, tmp_path: Path) -> None:
    reply = asked.blob(asked.blobs[-1].digest)
    assert reply.blob
    path = layout.blob_path(asked.layout, asked.blobs[-1].digest)
    path.rename(tmp_path / "elsewhere")
    path.symlink_to(tmp_path / "elsewhere")
    with pytest.raises(OSError, match="symbolic links"), asked.registry.opened(reply.blob):
        pass


@pytest.mark.parametrize("method", ["PUT", "POST", "PATCH", "DELETE"])
def test_nothing_can_be_written(asked: Asked, method: str) -> None:
    path = f"/v2/{asked.name}/blobs/{asked.entry.digest}"
    assert asked.get(path, method).status == "405 Method Not Allowed"


TABLE = """\
  sl  local_address rem_address   st tx_queue rx_queue tr tm->when retrnsmt   uid  timeout inode
   0: 0100007F:1388 00000000:0000 0A 00000000:00000000 00:00000000 00000000     0        0 1 1 0
   1: 0100007F:1388 0100007F:9C40 01 00000000:00000000 00:00000000 00000000     0        0 2 1 0
   2: 0100007F:9C40 0100007F:1388 01 00000000:00000000 00:00000000 00000000  1000        0 3 1 0
   3: 0100007F:9C41 0100007F:1389 01 00000000:00000000 00:00000000 00000000  1001        0 4 1 0
"""


@pytest.mark.parametrize(
    ("client", "server", "found"),
    [(40000, 5000, 1000), (40001, 5001, 1001), (40001, 5000, None), (5000, 40000, 0)],
)
def test_the_owner_of_a_connection_is_known(client: int, server: int, found: int | None) -> None:
    assert owner(TABLE, ("127.0.0.1", client), ("127.0.0.1", server)) == found


def test_a_table_that_is_none_tells_nothing() -> None:
    assert owner("gibberish\n\n1 2\n", ("127.0.0.1", 1), ("127.0.0.1", 2)) is None
