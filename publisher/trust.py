"""Which authorities vouch for the registry: the system's, and those of PLP_REGISTRY_CA_PATH.

skopeo is a Go program and takes *one* file (SSL_CERT_FILE), so both go into one. It lies in
memory only, as the credentials do: certificates are no secret, but a container may have no place
where a file could be written.
"""

from __future__ import annotations

import re
import stat
from collections.abc import Iterator, Mapping
from pathlib import Path

from plp_builder import log
from plp_builder.errors import SettingInvalid
from plp_builder.terminal import printable
from publisher import small_file
from publisher.memory_file import MemoryFile
from publisher.small_file import NotReadable, not_readable

VARIABLE = "PLP_REGISTRY_CA_PATH"
MAX_BYTES = 4 << 20
MAX_FILES = 1000
SYSTEM_FILES = (
    # Go's crypto/x509, root_linux.go: the first that can be read.
    "/etc/ssl/certs/ca-certificates.crt",
    "/etc/pki/tls/certs/ca-bundle.crt",
    "/etc/ssl/ca-bundle.pem",
    "/etc/pki/tls/cacert.pem",
    "/etc/pki/ca-trust/extracted/pem/tls-ca-bundle.pem",
    "/etc/ssl/cert.pem",
)

SUFFIXES = frozenset({".crt", ".pem", ".cert"})
_CERTIFICATE = re.compile(
    rb"-----BEGIN CERTIFICATE-----\s[A-Za-z0-9+/=\s]+-----END CERTIFICATE-----"
)
_KEY = re.compile(rb"-----BEGIN [A-Z ]*PRIVATE KEY-----")
_HINT = (
    "Give a file of certificates in PEM form (-----BEGIN CERTIFICATE-----), or a directory of "
    "*.crt, *.pem or *.cert files. `openssl x509 -inform der -in FILE -out ca.pem` converts."
)
_MISSING = f"Correct {VARIABLE}; in a container, the file has to be mounted, too."


class Bundle(MemoryFile):
    """Certificates for SSL_CERT_FILE."""

    def __init__(self, certificates: list[bytes]) -> None:
        super().__init__("certificates", b"\n".join((*certificates, b"")))


def bundle(ca_path: Path | None, environ: Mapping[str, str]) -> Bundle | None:
    """The system's certificates and those at ``ca_path``; None where the system's are enough.

    ``environ`` may name the system's by SSL_CERT_FILE. Only certificates are taken: a private key
    that lies beside them goes nowhere. Raises SettingInvalid, which names PLP_REGISTRY_CA_PATH.
    """
    if ca_path is None:
        return None
    return Bundle([*_system(environ), *own(ca_path)])


def own(ca_path: Path) -> list[bytes]:
    """The certificates of a file, or of a directory's files, each one parsed by way of trial."""
    found: list[bytes] = []
    for file in _files(ca_path):
        try:
            content = small_file.read(file, MAX_BYTES)
        except NotReadable as error:
            raise _unusable(file, error) from None
        if _KEY.search(content):
            log.warning("a private key is not used", file=str(file), variable=VARIABLE)
        certificates = _CERTIFICATE.findall(content)
        for number, certificate in enumerate(certificates, 1):
            _check(file, number, certificate)
        found += certificates
    if not found:
        raise SettingInvalid(f"{VARIABLE}: {_shown(ca_path)} holds no certificate", hint=_HINT)
    return found


def _files(path: Path) -> list[Path]:
    try:
        if not stat.S_ISDIR(path.stat().st_mode):
            return [path]
        files = sorted(
            file for file in path.iterdir() if file.suffix in SUFFIXES and not file.is_dir()
        )
    except OSError as error:
        raise _unusable(path, not_readable(error)) from None
    if len(files) > MAX_FILES:
        raise SettingInvalid(f"{VARIABLE}: {_shown(path)} holds more than {MAX_FILES} files")
    return files


def _check(file: Path, number: int, certificate: bytes) -> None:
    import ssl

    try:
        ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT).load_verify_locations(cadata=certificate.decode())
    except (ssl.SSLError, ValueError):
        raise SettingInvalid(
            f"{VARIABLE}: certificate {number} in {_shown(file)} cannot be parsed", hint=_HINT
        ) from None


def _system(environ: Mapping[str, str]) -> Iterator[bytes]:
    given = environ.get("SSL_CERT_FILE")
    for path in (given,) if given else SYSTEM_FILES:
        try:
            content = small_file.read(Path(path), MAX_BYTES)
        except NotReadable:
            continue
        yield from _CERTIFICATE.findall(content)
        return


def _unusable(path: Path, error: NotReadable) -> SettingInvalid:
    hint = _MISSING if error.missing else _HINT
    return SettingInvalid(f"{VARIABLE}: {_shown(path)} {error}", hint=hint)


def _shown(path: Path) -> str:
    return printable(str(path))
