"""A small token service: what an authorization server of a registry does.

https://distribution.github.io/distribution/spec/auth/token/ and, for refresh tokens, …/oauth/:
Basic credentials (GET) or a form (POST) in, a signed token (RS256, x5c) for a scope out.
"""

from __future__ import annotations

import base64
import hmac
import json
import secrets
import subprocess
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any
from urllib.parse import parse_qs, urlsplit

from tests.support import certificates, http_body, machine
from tests.support.certificates import Certificate

SERVICE = "registry.test"
ISSUER = "tokens.test"


@dataclass(slots=True)
class TokenService:
    """Where it listens, what it signs with, whom it knows, and what it was asked."""

    address: str
    certificate: Certificate
    username: str
    password: str
    identity_token: str = field(default_factory=lambda: secrets.token_hex(16))
    lifetime: int = 300
    requests: list[str] = field(default_factory=list)

    @property
    def realm(self) -> str:
        """What the registry's challenge has to name; crane refuses loopback by its number."""
        port = self.address.rpartition(":")[2]
        return f"http://localhost:{port}/token"

    def registry_settings(self) -> str:
        """The ``auth`` section of a registry's configuration."""
        settings = {
            "realm": self.realm,
            "service": SERVICE,
            "issuer": ISSUER,
            "rootcertbundle": str(self.certificate.certificate),
        }
        return f"auth: {json.dumps({'token': settings})}\n"

    def knows(self, username: str, password: str) -> bool:
        """Whether these are the credentials."""
        same_name = hmac.compare_digest(username.encode(), self.username.encode())
        return same_name and hmac.compare_digest(password.encode(), self.password.encode())

    def token(self, scopes: list[str]) -> str:
        """A signed token that allows what ``scopes`` ask for."""
        now = int(time.time())
        access = []
        for scope in scopes:
            kind, _, rest = scope.partition(":")
            name, _, actions = rest.rpartition(":")
            access.append({"type": kind, "name": name, "actions": actions.split(",")})
        claims = {
            "iss": ISSUER,
            "sub": self.username,
            "aud": SERVICE,
            "exp": now + self.lifetime,
            "nbf": now - 10,
            "iat": now,
            "jti": secrets.token_hex(8),
            "access": access,
        }
        pem = self.certificate.certificate.read_text()
        der = "".join(line for line in pem.splitlines() if not line.startswith("-"))
        header = {"typ": "JWT", "alg": "RS256", "x5c": [der]}
        signed = b".".join(_encoded(json.dumps(part).encode()) for part in (header, claims))
        return (signed + b"." + _encoded(_signature(signed, self.certificate.key))).decode()


def _encoded(data: bytes) -> bytes:
    return base64.urlsafe_b64encode(data).rstrip(b"=")


def _signature(data: bytes, key: Path) -> bytes:
    command = [machine.command("openssl"), "dgst", "-sha256", "-sign", str(key)]
    return subprocess.run(command, input=data, check=True, capture_output=True).stdout


class _Handler(BaseHTTPRequestHandler):
    service: TokenService
    protocol_version = "HTTP/1.1"

    def log_message(self, format: str, *args: Any) -> None:
        pass

    def do_GET(self) -> None:
        asked = parse_qs(urlsplit(self.path).query)
        self.service.requests.append(f"GET {self.path}")
        kind, _, given = self.headers.get("Authorization", "").partition(" ")
        username, _, password = "", "", ""
        if kind.lower() == "basic":
            username, _, password = base64.b64decode(given).decode().partition(":")
        scopes = [word for scope in asked.get("scope", ()) for word in scope.split()]
        self._answer(scopes if self.service.knows(username, password) else None)

    def do_POST(self) -> None:
        body = http_body.read(self.headers, self.rfile).decode()
        form = {name: values[0] for name, values in parse_qs(body).items()}
        self.service.requests.append(f"POST {self.path} {form.get('grant_type', '')}")
        allowed = hmac.compare_digest(
            form.get("refresh_token", ""), self.service.identity_token
        ) or self.service.knows(form.get("username", ""), form.get("password", ""))
        self._answer(form.get("scope", "").split() if allowed else None)

    def _answer(self, scopes: list[str] | None) -> None:
        if scopes is None:
            code = 401
            document: dict[str, Any] = {
                "errors": [{"code": "UNAUTHORIZED", "message": "who is this?"}]
            }
        else:
            token = self.service.token(scopes)
            code = 200
            document = {"token": token, "access_token": token, "expires_in": self.service.lifetime}
        data = json.dumps(document).encode()
        self.send_response(code)
        self.send_header("Content-Type", "application/json")
        self.send_header("Content-Length", str(len(data)))
        self.end_headers()
        self.wfile.write(data)


@contextmanager
def running(directory: Path, username: str, password: str) -> Iterator[TokenService]:
    """A service on a free loopback port for one user; its key lies in ``directory``."""
    directory.mkdir(parents=True, exist_ok=True)
    handler = type("Handler", (_Handler,), {})
    server = ThreadingHTTPServer(("127.0.0.1", 0), handler)
    server.daemon_threads = True
    address = f"127.0.0.1:{server.server_address[1]}"
    certificate = certificates.self_signed(directory, "tokens")
    handler.service = TokenService(address, certificate, username, password)  # type: ignore[attr-defined]
    thread = threading.Thread(target=server.serve_forever, daemon=True)
    thread.start()
    try:
        yield handler.service  # type: ignore[attr-defined]
    finally:
        server.shutdown()
        server.server_close()
        thread.join()
