"""A read-only registry on 127.0.0.1: connections, and blobs that are sent by sendfile(2).

What there is to pull, and who may, is said by a subclass of `Server`.

Every local user can connect to a loopback port. Connections that have not shown that they may ask
are strangers: short, few, and the first to go.
"""

from __future__ import annotations

import os
import select
import socket
import struct
import threading
import time
from collections.abc import Callable
from contextlib import AbstractContextManager, ExitStack
from typing import TYPE_CHECKING, Self

from plp_builder.errors import ResourcesExhausted, exhausted
from plp_builder.oci.distribution import Reply, Request, parse

if TYPE_CHECKING:
    from types import TracebackType

    from plp_builder.oci.artifact import Blob

HEAD_LIMIT = 16 << 10
MAX_CONNECTIONS = 64
FIRST_WORDS = 10
"""Seconds that a connection has for its first request."""
IDLE = 120
PAUSE = 0.05
CHUNK = 1 << 20
TLS_HANDSHAKE = 0x16
"""First byte of a ClientHello (RFC 8446, 5.1): skopeo tries TLS before plain HTTP."""


class Server:
    """Listens on ``address`` from ``with`` on to the end of the block.

    ``short`` is true once a blob had less than its descriptor says, and ``lack`` is why a client
    had to be turned away.
    """

    def __init__(self) -> None:
        self.address = ""
        self.short = False
        self.lack: ResourcesExhausted | None = None
        self._lock = threading.Lock()
        self._open: dict[socket.socket, bool] = {}  # True once it is no stranger any more
        self._threads: list[threading.Thread] = []
        self._ended = False
        self._spare = -1

    def answer(self, request: Request) -> Reply:
        """What the registry says to ``request``; called by several threads."""
        raise NotImplementedError

    def opened(self, blob: Blob) -> AbstractContextManager[int]:
        """A descriptor with the bytes of ``blob``, as long as they are sent. May raise OSError."""
        raise NotImplementedError

    def admits(self, address: tuple[str, int]) -> bool:  # noqa: ARG002
        """Whether the client at ``address`` may say anything at all."""
        return True

    def count(self, blob: Blob, size: int) -> None:
        """``size`` more bytes of ``blob`` have gone; called by one thread at a time."""

    def __enter__(self) -> Self:
        """Raises ResourcesExhausted, or OSError where there is no loopback."""
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
                connection, address = self._listener.accept()
            except OSError as error:
                if self._ended:
                    return
                if lack := exhausted(error):
                    self._turn_away(lack)
                time.sleep(PAUSE)  # else a client that went away again
            else:
                if self.admits(address):
                    self._take(connection)
                else:
                    connection.close()

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
        """The oldest connection of a stranger."""
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
            said = self.answer(request)
            if said.stranger:
                self._say(connection, request, said)
                continue
            with self._lock:
                self._open[connection] = True
            _patience(connection, IDLE)
            if not self._say(connection, request, said):
                return

    def _say(self, connection: socket.socket, request: Request, said: Reply) -> bool:
        """Send the reply; False when a blob had less than it promised."""
        blob = said.blob
        headers = (*said.headers, ("Content-Length", str(said.length if blob else 0)))
        lines = "".join(f"{name}: {value}\r\n" for name, value in headers)
        head = f"HTTP/1.1 {said.status}\r\n{lines}\r\n".encode("ascii")
        if request.method == "HEAD" or blob is None:
            connection.sendall(head)
            return True
        if blob.data is not None:
            connection.sendall(head)
            connection.sendall(memoryview(blob.data)[said.first : said.first + said.length])
            self._count(blob, said.length)
            return True
        with self.opened(blob) as file:
            connection.sendall(head)
            begin = blob.offset + said.first
            end = begin + said.length
            while begin < end:
                count = os.sendfile(connection.fileno(), file, begin, min(CHUNK, end - begin))
                if not count:
                    self.short = True
                    return False
                begin += count
                self._count(blob, count)
        return True

    def _count(self, blob: Blob, size: int) -> None:
        with self._lock:
            self.count(blob, size)


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
