"""The archive's own registry over real sockets: clients that are slow, rude, or strangers."""

from __future__ import annotations

import base64
import http.client
import os
import socket
import subprocess
import sys
import threading
import time
from collections.abc import Iterator
from contextlib import ExitStack, closing, contextmanager
from pathlib import Path

import pytest

from plp_builder.errors import ResourcesExhausted
from plp_builder.oci import artifact
from plp_builder.oci.artifact import Artifact
from plp_builder.oci.serving import HEAD_LIMIT, MAX_CONNECTIONS, TLS_HANDSHAKE
from publisher.source import Source
from tests.support import layouts, processes

PATIENCE = 20.0
LAYER = os.urandom(5 << 20)


@pytest.fixture
def path(tmp_path: Path) -> Path:
    path = tmp_path / "image.tar"
    path.write_bytes(layouts.tar_of(layouts.image_files(layers=[LAYER])))
    return path


class Served:
    """A source that runs, what it serves, and the header that opens it."""

    def __init__(self, source: Source, content: Artifact) -> None:
        self.source = source
        self.content = content
        self.port = int(source.address.rpartition(":")[2])
        both = f"{source.credentials.username}:{source.credentials.password}"
        self.key = f"Basic {base64.b64encode(both.encode()).decode()}"
        self.layer = f"/v2/archive/blobs/sha256:{layouts.sha256(LAYER)}"

    def connect(self) -> socket.socket:
        return socket.create_connection(("127.0.0.1", self.port), PATIENCE)

    @contextmanager
    def client(self) -> Iterator[http.client.HTTPConnection]:
        client = http.client.HTTPConnection("127.0.0.1", self.port, timeout=PATIENCE)
        with closing(client):
            yield client

    def get(self, path: str, method: str = "GET", **headers: str) -> tuple[int, bytes]:
        with self.client() as client:
            return self.ask(client, path, method, **headers)

    def ask(
        self, client: http.client.HTTPConnection, path: str, method: str = "GET", **headers: str
    ) -> tuple[int, bytes]:
        client.request(method, path, headers={"Authorization": self.key, **headers})
        with client.getresponse() as reply:
            return reply.status, reply.read()


@pytest.fixture
def served(path: Path) -> Iterator[Served]:
    with artifact.opened(path) as file:
        content = artifact.read(file, check=lambda: None)
        with Source(content, file) as source:
            yield Served(source, content)


def ended(connection: socket.socket) -> bool:
    """Whether the other side hangs up; what it says before is of no interest."""
    try:
        while connection.recv(1 << 16):
            pass
    except ConnectionResetError:
        pass
    return True


def test_every_blob_is_served_byte_by_byte(served: Served) -> None:
    for digest, blob in served.content.blobs.items():
        status, data = served.get(f"/v2/archive/blobs/{digest}")
        assert status == 200
        assert f"sha256:{layouts.sha256(data)}" == digest
        assert len(data) == blob.descriptor.size
    expected = sum(blob.descriptor.size for blob in served.content.blobs.values())
    assert processes.until(lambda: served.source.moved == expected)
    assert served.source.sent == expected - served.content.top.size


def test_part_of_a_blob_is_served(served: Served) -> None:
    found = served.get(served.layer, Range="bytes=1000000-1000009")
    assert found == (206, LAYER[1000000:1000010])
    assert served.get(served.layer, Range=f"bytes={len(LAYER) - 3}-") == (206, LAYER[-3:])


def test_one_connection_takes_many_requests(served: Served) -> None:
    with served.client() as client:
        for method in ("GET", "HEAD", "GET"):
            _, data = served.ask(client, served.layer, method)
            assert data == (b"" if method == "HEAD" else LAYER)
        assert served.ask(client, "/nothing") == (404, b"")


def test_a_stranger_gets_nothing(served: Served) -> None:
    assert served.get(served.layer, Authorization="Basic Zm9vOmJhcg==") == (401, b"")
    assert served.source.sent == 0


def test_only_this_machine_can_connect(served: Served) -> None:
    assert served.source.address.startswith("127.0.0.1:")


@pytest.mark.parametrize(
    "said",
    [
        bytes([TLS_HANDSHAKE, 3, 1, 2, 0, 1]),
        b"\r\n\r\n",
        b"GET / HTTP/1.0\r\n\r\n",
        b"GET /v2/ HTTP/1.1\r\n" + b"X: y\r\n" * HEAD_LIMIT,
        os.urandom(5000).replace(b"\r\n\r\n", b"") + b"\r\n\r\n",
    ],
    ids=["tls", "empty", "old", "endless", "noise"],
)
def test_who_speaks_something_else_is_hung_up_on(served: Served, said: bytes) -> None:
    with served.connect() as connection:
        try:
            connection.sendall(said)
        except ConnectionError:
            pass
        assert ended(connection)
    assert served.get("/v2/") == (200, b"")


def test_strangers_cannot_keep_others_out(served: Served) -> None:
    with served.client() as friend, ExitStack() as stack:
        assert served.ask(friend, "/v2/") == (200, b"")
        for _ in range(2 * MAX_CONNECTIONS):
            stack.enter_context(served.connect())
        assert served.get(served.layer) == (200, LAYER)
        assert served.ask(friend, served.layer) == (200, LAYER)


def test_a_file_that_became_shorter_ends_the_reply(served: Served, path: Path) -> None:
    os.truncate(path, 2 << 20)
    with pytest.raises(http.client.IncompleteRead):
        served.get(served.layer)
    assert processes.until(lambda: served.source.short)


def test_the_end_does_not_wait_for_a_client_that_does_not_read(path: Path) -> None:
    with artifact.opened(path) as file:
        content = artifact.read(file, check=lambda: None)
        with Source(content, file) as source:
            served = Served(source, content)
            connection = served.connect()
            connection.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, 4096)
            request = f"GET {served.layer} HTTP/1.1\r\nAuthorization: {served.key}\r\n\r\n"
            connection.sendall(request.encode())
            silent = served.connect()
            assert connection.recv(10).startswith(b"HTTP/1.1")
            began = time.monotonic()
        assert time.monotonic() - began < PATIENCE
        with pytest.raises(ConnectionRefusedError):
            served.connect()
        connection.close()
        silent.close()


def test_who_gets_no_thread_does_not_wait_and_the_next_one_is_served(
    served: Served, monkeypatch: pytest.MonkeyPatch
) -> None:
    def cannot(_: threading.Thread) -> None:
        raise RuntimeError("can't start new thread")

    with monkeypatch.context() as patch:
        patch.setattr(threading.Thread, "start", cannot)
        with served.connect() as client:
            assert client.recv(1) == b""
    assert served.source.lack
    assert "threads" in served.source.lack.what
    assert served.get(served.layer) == (200, LAYER)


def test_where_not_even_the_first_thread_starts_it_is_told(
    path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def cannot(_: threading.Thread) -> None:
        raise RuntimeError("can't start new thread")

    with artifact.opened(path) as file:
        content = artifact.read(file, check=lambda: None)
        monkeypatch.setattr(threading.Thread, "start", cannot)
        with pytest.raises(ResourcesExhausted, match="no more threads"), Source(content, file):
            pass


WITHOUT_DESCRIPTORS = """
import os, resource, socket, sys
sys.path[:0] = {path!r}
from pathlib import Path
from plp_builder.oci import artifact
from publisher.source import Source
file = artifact.opened(Path({archive!r}))
with Source(artifact.read(file, check=lambda: None), file) as source:
    port = int(source.address.rpartition(":")[2])
    resource.setrlimit(resource.RLIMIT_NOFILE, (64, 64))
    client = socket.socket()
    client.settimeout(30)
    taken = []
    try:
        while True:
            taken.append(os.open("/dev/null", os.O_RDONLY))
    except OSError:
        pass
    client.connect(("127.0.0.1", port))
    print(client.recv(1), source.lack and source.lack.what)
    for each in taken:
        os.close(each)
    with socket.create_connection(("127.0.0.1", port), 30) as client:
        client.sendall(b"GET /v2/ HTTP/1.1\\r\\n\\r\\n")
        print(client.recv(12))
"""


def test_who_gets_no_descriptor_does_not_wait_and_the_next_one_is_served(path: Path) -> None:
    """In a process of its own, whose limit is its own."""
    program = WITHOUT_DESCRIPTORS.format(path=sys.path, archive=str(path))
    done = subprocess.run(
        [sys.executable, "-c", program], capture_output=True, timeout=120, check=False, text=True
    )
    assert done.stderr == ""
    assert done.stdout.splitlines() == [
        "b'' the system gives us no more open files",
        "b'HTTP/1.1 401'",
    ]
