"""A registry on loopback that fails exactly where and how often a test says.

Without faults it answers like distribution v3 (test_scripted_registry.py holds it to that);
every request is recorded, those that met a fault among them.
"""

from __future__ import annotations

import base64
import secrets
import socket
import struct
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any, NamedTuple

from tests.support import http_body
from tests.support.registry_store import Reply, Request, Store, error, parse

WRONG = "sha256:" + "0" * 64


@dataclass(frozen=True, slots=True)
class Fault:
    """What goes wrong. ``reply`` is an answer instead of the right one; else by ``kind``:

    ``reset``: RST before anything is done. ``lost``: done, then RST instead of the answer.
    ``stall``: no answer until the registry ends. ``truncated``: done, but the answer ends
    before its announced length (of an answer without body: in its header).
    ``wrong-digest``: a digest in the answer that is not the content's. ``wrong-content``:
    other bytes arrive, here or there, than those that were sent.
    """

    kind: str
    reply: Reply | None = None


def _refusal(status: int, code: str, **headers: str) -> Fault:
    return Fault(str(status), error(status, code, **headers))


def busy(seconds: int) -> Fault:
    """Too many requests: come back in so many seconds."""
    return _refusal(429, "TOOMANYREQUESTS", **{"Retry-After": str(seconds)})


FAULTS = {
    "429": _refusal(429, "TOOMANYREQUESTS"),
    "429-retry-after": busy(1),
    "500": _refusal(500, "UNKNOWN"),
    "503": Fault("503", Reply(503, {"Content-Type": "text/html"}, b"<h1>Unavailable</h1>")),
    "408": Fault("408", Reply(408, {"Content-Type": "text/plain"}, b"Request Timeout")),
    "408-json": _refusal(408, "UNKNOWN"),
    "401": _refusal(401, "UNAUTHORIZED"),
    "403": _refusal(403, "DENIED"),
    "404": _refusal(404, "NAME_UNKNOWN"),
    "reset": Fault("reset"),
    "lost": Fault("lost"),
    "stall": Fault("stall"),
    "truncated": Fault("truncated"),
    "wrong-digest": Fault("wrong-digest"),
    "wrong-content": Fault("wrong-content"),
}


@dataclass(slots=True)
class _Rule:
    endpoint: str
    fault: Fault
    times: int | None
    skip: int
    where: str


class Seen(NamedTuple):
    """A request as it came; ``answer`` is a status or a fault's kind, ``when`` monotonic."""

    endpoint: str
    method: str
    target: str
    authorized: bool
    answer: str
    when: float


class ScriptedRegistry:
    """The registry's state; ``guard`` is "", "basic" or "token" (see :func:`running`)."""

    def __init__(self, address: str, guard: str, credentials: tuple[str, str]) -> None:
        self.address = address
        self.store = Store()
        self.seen: list[Seen] = []
        self.guard = guard
        self.lock = threading.Lock()
        self.released = threading.Event()
        self._rules: list[_Rule] = []
        both = base64.b64encode(":".join(credentials).encode()).decode()
        self._basic = f"Basic {both}"
        self._tokens: set[str] = set()

    def fail(
        self, endpoint: str, fault: Fault, times: int | None = 1, *, skip: int = 0, where: str = ""
    ) -> None:
        """Let the next ``times`` requests (None: all) for ``endpoint`` fail, after ``skip`` ones.

        ``where`` must be in the request's target. Endpoint "*" is any.
        """
        self._rules.append(_Rule(endpoint, fault, times, skip, where))

    def forgive(self) -> None:
        """No more faults."""
        self._rules.clear()

    def tags(self, repository: str) -> dict[str, str]:
        """The digest that each tag points to."""
        found = self.store.repositories.get(repository)
        return dict(found.tags) if found else {}

    def fault_for(self, endpoint: str, target: str) -> Fault | None:
        """The fault that this request meets; counts it."""
        for rule in self._rules:
            fits = rule.endpoint in {endpoint, "*"} and rule.where in target
            if not fits or rule.times == 0:
                continue
            if rule.skip:
                rule.skip -= 1
                continue
            if rule.times is not None:
                rule.times -= 1
            return rule.fault
        return None

    def refusal(self, authorization: str) -> Reply | None:
        """The 401 for who must not come in, with the challenge."""
        if not self.guard or (self.guard == "basic" and authorization == self._basic):
            return None
        if self.guard == "token" and authorization.removeprefix("Bearer ") in self._tokens:
            return None
        return self.challenged(error(401, "UNAUTHORIZED", "authentication required"))

    def challenged(self, reply: Reply) -> Reply:
        """The reply with the header that says how to come in."""
        port = self.address.rpartition(":")[2]
        challenge = 'Basic realm="tests"'
        if self.guard == "token":
            challenge = f'Bearer realm="http://localhost:{port}/token",service="tests"'
        return with_headers(reply, **({"WWW-Authenticate": challenge} if self.guard else {}))

    def token(self, authorization: str) -> Reply:
        """The answer of the token endpoint: a word that opens everything."""
        if authorization != self._basic:
            return error(401, "UNAUTHORIZED", "authentication required")
        word = secrets.token_hex(8)
        self._tokens.add(word)
        body = f'{{"token": "{word}", "expires_in": 300}}'.encode()
        return Reply(200, {"Content-Type": "application/json"}, body)


def with_headers(reply: Reply, **headers: str) -> Reply:
    """The reply with further headers."""
    return reply._replace(headers={**reply.headers, **headers})


def _otherwise(data: bytes) -> bytes:
    """Other bytes of the same length; of a JSON document, one that is still JSON."""
    if data.endswith(b"}") and b":" in data:
        return data.replace(b":", b" :", 1) if b" " not in data else data.replace(b" ", b"\t", 1)
    return bytes([data[0] ^ 1]) + data[1:] if data else data


class _Handler(BaseHTTPRequestHandler):
    registry: ScriptedRegistry
    protocol_version = "HTTP/1.1"
    server_version, sys_version = "scripted", ""
    disable_nagle_algorithm = True
    _headers_buffer: list[bytes]

    def log_message(self, format: str, *args: Any) -> None:
        pass

    def __getattr__(self, name: str) -> Callable[[], None]:
        if name.startswith("do_"):
            return self._serve
        raise AttributeError(name)

    def handle_one_request(self) -> None:
        try:
            super().handle_one_request()
        except OSError:  # the client has gone, or was made to go
            self.close_connection = True

    def _serve(self) -> None:
        registry = self.registry
        authorization = self.headers.get("Authorization", "")
        token = self.path.partition("?")[0] == "/token"
        request = self._request()
        endpoint = "token" if token else request.endpoint if request else "none"
        with registry.lock:
            fault = registry.fault_for(endpoint, self.path)
        if fault and fault.kind in {"stall", "reset"}:
            self._note(endpoint, fault.kind)
            if fault.kind == "stall":
                registry.released.wait()
            return self._reset()
        body = http_body.read(self.headers, self.rfile)
        with registry.lock:
            if fault and fault.reply:
                again = fault.reply.status == 401
                reply = registry.challenged(fault.reply) if again else fault.reply
            elif token:
                reply = registry.token(authorization)
            elif request is None:
                reply = Reply(404, {"Content-Type": "text/plain"}, b"404 page not found\n")
            elif refusal := registry.refusal(authorization):
                reply = refusal
            else:
                reply = self._answer(request._replace(body=body), fault)
            self._note(endpoint, fault.kind if fault else str(reply.status))
        if fault and fault.kind == "lost":
            return self._reset()
        return self._send(reply, truncated=fault is not None and fault.kind == "truncated")

    def _note(self, endpoint: str, answer: str) -> None:
        authorized = "Authorization" in self.headers
        seen = Seen(endpoint, self.command, self.path, authorized, answer, time.monotonic())
        self.registry.seen.append(seen)

    def _request(self) -> Request | None:
        host = f"http://{self.registry.address}"
        return parse(self.command, self.path, dict(self.headers.items()), b"", host)

    def _answer(self, request: Request, fault: Fault | None) -> Reply:
        store = self.registry.store
        kind = fault.kind if fault else ""
        if kind == "wrong-content":
            if request.endpoint == "upload-finish" and request.what in store.uploads:
                store.uploads[request.what] = _otherwise(store.uploads[request.what])
            request = request._replace(body=_otherwise(request.body))
        reply = store.answer(request)
        if kind == "wrong-digest" and reply.status < 300:
            return with_headers(reply, **{"Docker-Content-Digest": WRONG})
        if kind == "wrong-content" and reply.status < 300 and self.command == "GET":
            return reply._replace(body=_otherwise(reply.body))
        return reply

    def _reset(self) -> None:
        self.connection.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
        self.close_connection = True

    def _send(self, reply: Reply, *, truncated: bool) -> None:
        self.send_response(reply.status)
        headers = {"Docker-Distribution-Api-Version": "registry/2.0", **reply.headers}
        for name, value in headers.items():
            self.send_header(name, value)
        if reply.status != 204:
            self.send_header("Content-Length", str(len(reply.body) + 100 * truncated))
        if truncated and (self.command == "HEAD" or not reply.body):
            self.wfile.write(b"".join(self._headers_buffer)[:-20])
            self.close_connection = True
            return
        self.end_headers()
        if self.command != "HEAD":
            self.wfile.write(reply.body[: len(reply.body) // 2] if truncated else reply.body)
        self.close_connection = self.close_connection or truncated


class _Server(ThreadingHTTPServer):
    daemon_threads = True
    request_queue_size = 64

    def shutdown_request(self, request: Any) -> None:
        linger = request.getsockopt(socket.SOL_SOCKET, socket.SO_LINGER, 8)
        if struct.unpack("ii", linger)[0]:  # an orderly end would be no reset
            self.close_request(request)
        else:
            super().shutdown_request(request)


@contextmanager
def running(
    guard: str = "", credentials: tuple[str, str] = ("publisher", "a-password")
) -> Iterator[ScriptedRegistry]:
    """An empty registry on a free loopback port; with ``guard`` only for ``credentials``."""
    handler = type("Handler", (_Handler,), {})
    server = _Server(("127.0.0.1", 0), handler)
    address = f"127.0.0.1:{server.server_address[1]}"
    registry = ScriptedRegistry(address, guard, credentials)
    handler.registry = registry  # type: ignore[attr-defined]
    thread = threading.Thread(target=server.serve_forever, args=(0.05,), daemon=True)
    thread.start()
    try:
        yield registry
    finally:
        registry.released.set()
        server.shutdown()
        server.server_close()
        thread.join()
