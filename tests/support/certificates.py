"""An authority of one's own and what it signs, made by openssl."""

from __future__ import annotations

import subprocess
from pathlib import Path
from typing import NamedTuple

from tests.support import machine

LOOPBACK = "IP:127.0.0.1,DNS:localhost"
_SERVER = """\
basicConstraints=critical,CA:FALSE
extendedKeyUsage=serverAuth
subjectAltName={names}
"""


class Certificate(NamedTuple):
    """Paths of PEM files: the authority's certificate, one signed by it, and that one's key."""

    authority: Path
    certificate: Path
    key: Path


def _openssl(*arguments: str | Path) -> None:
    command = [machine.command("openssl"), *map(str, arguments)]
    done = subprocess.run(command, check=False, capture_output=True, text=True)
    assert done.returncode == 0, f"{command}: {done.stderr}"


def self_signed(directory: Path, name: str, *, kind: str = "rsa:2048") -> Certificate:
    """A certificate that is its own authority; good for signing tokens as well."""
    key, certificate = directory / f"{name}.key", directory / f"{name}.crt"
    # fmt: off
    _openssl(
        "req", "-x509", "-newkey", kind, "-noenc", "-keyout", key, "-out", certificate,
        "-days", "3650", "-subj", f"/CN={name}",
    )
    # fmt: on
    return Certificate(certificate, certificate, key)


def for_loopback(directory: Path, *, names: str = LOOPBACK, days: int = 3650) -> Certificate:
    """A server's certificate for 127.0.0.1 and localhost by an authority that nobody knows.

    Or for other ``names`` (openssl's subjectAltName), or expired: with less than no ``days``.
    """
    authority = self_signed(directory, "authority")
    key, request = directory / "server.key", directory / "server.csr"
    _openssl(
        *("req", "-newkey", "rsa:2048", "-noenc", "-keyout", key, "-out", request),
        *("-subj", "/CN=registry for tests"),
    )
    extensions, certificate = directory / "server.ext", directory / "server.crt"
    extensions.write_text(_SERVER.format(names=names))
    _openssl(
        *("x509", "-req", "-in", request, "-CA", authority.certificate),
        *("-CAkey", authority.key, "-CAcreateserial", "-days", str(days)),
        *("-extfile", extensions, "-out", certificate),
    )
    return Certificate(authority.certificate, certificate, key)
