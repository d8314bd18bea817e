"""A verified archive as a read-only registry on 127.0.0.1, for skopeo to copy from.

The endpoints are those with which the distribution specification pulls: ``/v2/``, manifests and
blobs by digest. Bytes go from the archive's descriptor straight into the socket, so no second
copy is made anywhere, and how many have gone is the progress of the push.

Every local user can connect to a loopback port: nothing is said without a random password, and
connections that do not show it are short, few, and the first to go.
"""

from __future__ import annotations

import base64
import os
import secrets
import select
import socket
import struct
import threading
import time
from collections.abc import Callable
from contextlib import ExitStack
from typing import TYPE_CHECKING, BinaryIO, NamedTuple, Self

from plp_builder.errors import ResourcesExhausted, exhausted
from plp_builder.oci.model import Digest
from plp_builder.oci.walk import is_document
from publisher.credentials import Credentials

if TYPE_CHECKING:
    from types import TracebackType

    from plp_builder.oci.artifact import Artifact, Blob

NAME = "archive"
HEAD_LIMIT = 16 << 10
MAX_CONNECTIONS = 64
FIRST_WORDS = 10
"""Seconds that a connection has for its first request."""
IDLE = 120
PAUSE = 0.05
MAX_RANGE = 50
CHUNK = 1 << 20
TLS_HANDSHAKE = 0x16
"""First byte of a ClientHello (RFC 8446, 5.1): skopeo tries TLS before plain HTTP."""


class Request(NamedTuple):
    """What a request asks for; names of headers are in lower case."""

    method: str
    path: str
    headers: dict[str, str]


class Reply(NamedTuple):
    """A status line, headers, and which bytes of which blob follow (none to a HEAD)."""

    status: str
    headers: tuple[tuple[str, str], ...] = ()
    blob: Blob | None = None
    first: int = 0
    length: int = 0


def parse(head: bytes) -> Request | None:
    """A request's head, without the empty line at its end; None if it is none."""
    try:
        line, *fields = head.decode("ascii").split("\r\n")
        method, path, version = line.split(" ")
    except ValueError:
        return None
    if version != "HTTP/1.1":
        return None
    headers: dict[str, str] = {}
    for field in fields:
        name, colon, value = field.partition(":")
        if not colon:
            return None
        before = headers.get(name.lower())  # RFC 9110, 5.3: a repeated header is a list
        headers[name.lower()] = f"{before}, {value.strip()}" if before else value.strip()
    return Request(method, path, headers)


def answer(request: Request, artifact: Artifact, authorization: str) -> Reply:
    """What the registry says to ``request``; ``authorization`` is the header that opens it."""
    given = request.headers.get("authorization", "")
    if not secrets.compare_digest(given.encode(), authorization.encode()):
        return Reply("401 Unauthorized", (("WWW-Authenticate", f'Basic realm="{NAME}"'),))
    if request.method not in {"GET", "HEAD"} or request.headers.get("content-length", "0") != "0":
        return Reply("405 Method Not Allowed")
    if request.path == "/v2/":
        return Reply("200 OK")
    found = _find(request.path, artifact)
    if found is None:
        return Reply("404 Not Found")
    blob, media_type = found
    size = blob.descriptor.size
    headers = (
        ("Content-Type", media_type),
        ("Docker-Content-Digest", str(blob.descriptor.digest)),
        ("Accept-Ranges", "bytes"),
    )
    first, length = _range(request.headers.get("range", ""), size)
    if length < 0:
        return Reply("416 Range Not Satisfiable", (("Content-Range", f"bytes */{size}"),))
    if (first, length) == (0, size):
        return Reply("200 OK", headers, blob, 0, size)
    content_range = ("Content-Range", f"bytes {first}-{first + length - 1}/{size}")
    return Reply("206 Partial Content", (*headers, content_range), blob, first, length)


def _find(path: str, artifact: Artifact) -> tuple[Blob, str] | None:
    kind, _, name = path.removeprefix(f"/v2/{NAME}/").partition("/")
    try:
        blob = artifact.blobs.get(Digest(name))
    except ValueError:
        return None
    if blob and kind == "blobs":
        return blob, "application/octet-stream"
    if blob and kind == "manifests" and is_document(blob.descriptor):
        return blob, blob.descriptor.media_type
    return None


def _range(text: str, size: int) -> tuple[int, int]:
    """First byte and length of a Range header; all of it where there is none that is simple.

    RFC 9110, 14.2: a server may ignore the header. A negative length is one out of bounds.
    """
    begin, dash, end = text.removeprefix("bytes=").partition("-")
    if not text.startswith("bytes=") or not dash or not begin.isdigit():
        return 0, size
    if (end and not end.isdigit()) or len(text) > MAX_RANGE:
        return 0, size
    first, last = int(begin), min(int(end) if end else size - 1, size - 1)
    return (first, last - first + 1) if first <= last else (0, -1)


class Source:
    """Serves ``artifact`` from ``file`` from ``with`` on to the end of the block.

    ``file`` needs a descriptor; its position is not used. ``sent`` counts the bytes of layers and
    configurations that went out, ``moved`` also those of manifests, which are read anew for each
    tag; ``short`` is true once the file had less than was verified, and ``lack`` is why a client
    had to be turned away.
    """

    def __init__(self, artifact: Artifact, file: BinaryIO) -> None:
        self.sent = 0
        self.moved = 0
        self.short = False
        self.lack: ResourcesExhausted | None = None
        self.credentials = Credentials("archive", secrets.token_urlsafe(32), origin="the archive")
        pair = f"{self.credentials.username}:{self.credentials.password}"
        self._authorization = f"Basic {base64.b64encode(pair.encode()).decode()}"
        self._artifact = artifact
        self._descriptor = file.fileno()
        self._lock = threading.Lock()
        self._open: dict[socket.socket, bool] = {}  # True once it has shown the password
        self._threads: list[threading.Thread] = []
        self._ended = False
        self._spare = -1

    def __enter__(self) -> Self:
        with ExitStack() as stack:
            try:
                listener = socket.create_server(("127.0.0.1", 0), backlog=MAX_CONNECTIONS)
                self._listener = stack.enter_context(listener)
                self._listener.setblocking(False)
                self.address = f"127.0.0.1:{self._listener.getsockname()[1]}"
                self._spare = _spare()
                self._start(self._accept)
            except (OSError, RuntimeError) as error:
                raise (exhausted(error) or error) from error
            stack.pop_all()
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        with self._lock:
            self._ended = True
            connections = list(self._open)
        for each in (self._listener, *connections):
            _hang_up(each)
        for thread in self._threads:
            thread.join()
        self._listener.close()
        if self._spare >= 0:
            os.close(self._spare)

    def reference(self, digest: Digest) -> str:
        """The image's name for skopeo."""
        return f"docker://{self.address}/{NAME}@{digest}"

    def _start(self, target: Callable[..., None], *arguments: socket.socket) -> None:
        thread = threading.Thread(target=target, args=arguments, daemon=True)
        thread.start()
        self._threads = [*(each for each in self._threads if each.is_alive()), thread]

    def _accept(self) -> None:
        clients = select.poll()
        clients.register(self._listener, select.POLLIN)
        while True:
            clients.poll()
            try:
                connection, _ = self._listener.accept()
            except OSError as error:
                if self._ended:
                    return
                if lack := exhausted(error):
                    self._turn_away(lack)
                time.sleep(PAUSE)  # else a client that went away again
            else:
                self._take(connection)

    def _take(self, connection: socket.socket) -> None:
        with self._lock:
            if self._ended:
                connection.close()
                return
            if len(self._open) >= MAX_CONNECTIONS:
                _hang_up(self._stranger() or connection)
            self._open[connection] = False
        try:
            self._start(self._serve, connection)
        except RuntimeError as error:
            self.lack = exhausted(error)
            with self._lock:
                del self._open[connection]
                if stranger := self._stranger():
                    _hang_up(stranger)
            connection.close()

    def _stranger(self) -> socket.socket | None:
        """The oldest connection that has not shown the password."""
        return next((each for each, known in self._open.items() if not known), None)

    def _turn_away(self, lack: ResourcesExhausted) -> None:
        """There is no descriptor for who wants to come in: a stranger has to go, or else he.

        Left at the door, skopeo would wait for as long as we let it.
        """
        with self._lock:
            if stranger := self._stranger():
                _hang_up(stranger)
                return
        self.lack = lack
        os.close(self._spare)
        self._spare = -1
        try:
            self._listener.accept()[0].close()
        except OSError:
            pass  # gone by himself, or somebody else has taken the descriptor
        while not self._ended:
            try:
                self._spare = _spare()
                return
            except OSError:
                time.sleep(PAUSE)

    def _serve(self, connection: socket.socket) -> None:
        try:
            self._converse(connection)
        except OSError:
            pass  # the client went away, said nothing for too long, or the end has come
        finally:
            with self._lock:
                del self._open[connection]
            connection.close()

    def _converse(self, connection: socket.socket) -> None:
        connection.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        _patience(connection, FIRST_WORDS)
        rest = b""
        while True:
            head, rest = _head(connection, rest)
            request = parse(head) if head else None
            if request is None:
                return
            reply = answer(request, self._artifact, self._authorization)
            if reply.status.startswith("401"):
                self._say(connection, request, reply)
                continue
            with self._lock:
                self._open[connection] = True
            _patience(connection, IDLE)
            if not self._say(connection, request, reply):
                return

    def _say(self, connection: socket.socket, request: Request, reply: Reply) -> bool:
        """Send the reply; False when the archive had less than it promised."""
        length = reply.length if reply.blob else 0
        headers = (*reply.headers, ("Content-Length", str(length)))
        head = "".join(f"{name}: {value}\r\n" for name, value in headers)
        connection.sendall(f"HTTP/1.1 {reply.status}\r\n{head}\r\n".encode("ascii"))
        if request.method == "HEAD" or reply.blob is None:
            return True
        blob = reply.blob
        if blob.data is not None:
            connection.sendall(memoryview(blob.data)[reply.first : reply.first + reply.length])
            self._count(blob, reply.length)
            return True
        begin = blob.offset + reply.first
        end = begin + reply.length
        while begin < end:
            count = os.sendfile(
                connection.fileno(), self._descriptor, begin, min(CHUNK, end - begin)
            )
            if not count:
                self.short = True
                return False
            begin += count
            self._count(blob, count)
        return True

    def _count(self, blob: Blob, size: int) -> None:
        with self._lock:
            self.moved += size
            if not is_document(blob.descriptor):
                self.sent += size


def _head(connection: socket.socket, rest: bytes) -> tuple[bytes, bytes]:
    """The next request's head and what came behind it; an empty one at the end or if too long."""
    while b"\r\n\r\n" not in rest:
        chunk = connection.recv(HEAD_LIMIT)
        rest += chunk
        if not chunk or rest[0] == TLS_HANDSHAKE or len(rest) > HEAD_LIMIT:
            return b"", b""
    head, _, rest = rest.partition(b"\r\n\r\n")
    return head, rest


def _patience(connection: socket.socket, seconds: int) -> None:
    """Limit how long a read waits. Not a Python time-out: sendfile(2) needs a blocking socket."""
    connection.setsockopt(socket.SOL_SOCKET, socket.SO_RCVTIMEO, struct.pack("@ll", seconds, 0))


def _spare() -> int:
    """A descriptor that can be given up for a connection."""
    return os.open(os.devnull, os.O_RDONLY | os.O_CLOEXEC)


def _hang_up(connection: socket.socket) -> None:
    """Wake up whoever waits for this socket, and end it."""
    try:
        connection.shutdown(socket.SHUT_RDWR)
    except OSError:
        pass
