"""Which certificates reach skopeo: whole ones, and nothing but certificates."""

from __future__ import annotations

import base64
import io
import os
import ssl
from collections.abc import Iterator
from pathlib import Path

import pytest

from plp_builder import log
from plp_builder.errors import SettingInvalid
from publisher import trust

ONE = b"""\
-----BEGIN CERTIFICATE-----
MIIBgjCCASmgAwIBAgIUbRgQWv1iaXKApupupc7De8zIVpkwCgYIKoZIzj0EAwIw
FjEUMBIGA1UEAwwLVGVzdCBDQSBvbmUwIBcNMjYxMTIxMTExODA2WhgPMjEyNjEw
MjgxMTE4MDZaMBYxFDASBgNVBAMMC1Rlc3QgQ0Egb25lMFkwEwYHKoZIzj0CAQYI
KoZIzj0DAQcDQgAEELaKPD4HKAYnmo0sGv44Q4pko0h6fptM8ImK2Ac5Yi4O8kjJ
G/EoVtUboKonqYQlyW4AOwF82mjFmX+ojpIAn6NTMFEwHQYDVR0OBBYEFBJc64Uv
OYq+O2hC6f2y2kXy5RuAMB8GA1UdIwQYMBaAFBJc64UvOYq+O2hC6f2y2kXy5RuA
MA8GA1UdEwEB/wQFMAMBAf8wCgYIKoZIzj0EAwIDRwAwRAIgAIBJaCKr93o/PMWG
qF1gmDYbklOLkCHsLYkR5WmVK2YCIA7IM/Eu+nuZoizkydLrWP5BSS9P6nqGv8Eg
o+E8wfkI
-----END CERTIFICATE-----
"""
TWO = b"""\
-----BEGIN CERTIFICATE-----
MIIBhDCCASmgAwIBAgIUbwJz23p/hIqCAcfHqJHGoNkPPAYwCgYIKoZIzj0EAwIw
FjEUMBIGA1UEAwwLVGVzdCBDQSB0d28wIBcNMjYxMTIxMTExODA2WhgPMjEyNjEw
MjgxMTE4MDZaMBYxFDASBgNVBAMMC1Rlc3QgQ0EgdHdvMFkwEwYHKoZIzj0CAQYI
KoZIzj0DAQcDQgAEopplZBiMXoFGdRG2Vp1CPy35EnXF8yRvoNtU7ouQ0LKljBnJ
Lz/XVjVU9exf2T/ChAZzKwAzIAhbR1mmfJ/hcKNTMFEwHQYDVR0OBBYEFBQIqADc
KjMctpcBduCdVkAJUjkxMB8GA1UdIwQYMBaAFBQIqADcKjMctpcBduCdVkAJUjkx
MA8GA1UdEwEB/wQFMAMBAf8wCgYIKoZIzj0EAwIDSQAwRgIhANlSzHFUi1sKyRiv
ET3EfEpV7M3FilXD/4Z/jgsb3wbyAiEAsC2hFUXu1sARP0cG3oi1GuvaN8RYoKNE
BI00gxOYCdg=
-----END CERTIFICATE-----
"""
KEY = b"-----BEGIN PRIVATE KEY-----\ncanary-7f3a\n-----END PRIVATE KEY-----\n"


@pytest.fixture(autouse=True)
def logged() -> Iterator[io.StringIO]:
    stream = io.StringIO()
    log.configure("json", stream=stream)
    yield stream
    log.configure()


@pytest.fixture
def system(tmp_path: Path) -> dict[str, str]:
    """An environment whose system trusts the first authority."""
    path = tmp_path / "system.crt"
    path.write_bytes(b"# the system's\n" + ONE)
    return {"SSL_CERT_FILE": str(path)}


def subjects(bundle: trust.Bundle) -> list[str]:
    """What OpenSSL reads of the file that skopeo would get."""
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT)
    context.load_verify_locations(cafile=bundle.path)
    return sorted(name[0][0][1] for name in (ca["subject"] for ca in context.get_ca_certs()))


def test_without_a_path_the_systems_own_are_enough(system: dict[str, str]) -> None:
    assert trust.bundle(None, system) is None


def test_own_certificates_come_to_those_of_the_system(
    tmp_path: Path, system: dict[str, str]
) -> None:
    (tmp_path / "ca.pem").write_bytes(b"subject=CN = Test CA two\n" + TWO)
    bundle = trust.bundle(tmp_path / "ca.pem", system)
    assert bundle is not None
    with bundle:
        assert subjects(bundle) == ["Test CA one", "Test CA two"]
        assert bundle.path == f"/proc/self/fd/{bundle.fd}"
        assert not os.get_inheritable(bundle.fd)


@pytest.mark.parametrize("missing", ["/nonexistent/ca.crt", "/dev/zero", "/proc/self"])
def test_a_system_without_certificates_is_fine(tmp_path: Path, missing: str) -> None:
    (tmp_path / "ca.pem").write_bytes(TWO)
    bundle = trust.bundle(tmp_path / "ca.pem", {"SSL_CERT_FILE": missing})
    assert bundle is not None
    with bundle:
        assert subjects(bundle) == ["Test CA two"]


def test_a_directory_gives_the_files_that_are_named_like_certificates(tmp_path: Path) -> None:
    (tmp_path / "..data").mkdir()
    (tmp_path / "..data" / "ca.crt").write_bytes(ONE)
    (tmp_path / "ca.crt").symlink_to("..data/ca.crt")
    (tmp_path / "b.cert").write_bytes(TWO)
    (tmp_path / "tls.key").write_bytes(KEY)
    (tmp_path / "notes.txt").write_bytes(TWO)
    (tmp_path / "folder.pem").mkdir()
    assert trust.own(tmp_path) == [TWO.strip(), ONE.strip()]


def test_a_private_key_goes_nowhere(tmp_path: Path, logged: io.StringIO) -> None:
    path = tmp_path / "both.pem"
    path.write_bytes(KEY + ONE + KEY.replace(b"PRIVATE", b"RSA PRIVATE"))
    bundle = trust.bundle(path, {"SSL_CERT_FILE": str(path)})
    assert bundle is not None
    with bundle:
        assert b"canary" not in Path(bundle.path).read_bytes()
        assert b"PRIVATE" not in Path(bundle.path).read_bytes()
    assert "a private key is not used" in logged.getvalue()
    assert "canary" not in logged.getvalue()


@pytest.mark.parametrize(
    ("content", "said"),
    [
        (b"", "holds no certificate"),
        (KEY, "holds no certificate"),
        (base64.b64decode("".join(ONE.decode().splitlines()[1:-1])), "holds no certificate"),
        (ONE.replace(b"-----END", b"----END"), "holds no certificate"),
        (b"-----BEGIN CERTIFICATE-----\nAAAA\n-----END CERTIFICATE-----\n", "certificate 1 in"),
        (ONE + ONE.replace(b"MII", b"AII"), "certificate 2 in"),
        (ONE + TWO[:200] + b"\n-----END CERTIFICATE-----\n", "certificate 2 in"),
        (b"\n" * (trust.MAX_BYTES + 1), "larger than 4 MiB"),
    ],
)
def test_what_holds_no_certificate_is_refused(content: bytes, said: str, tmp_path: Path) -> None:
    path = tmp_path / "ca.pem"
    path.write_bytes(content)
    with pytest.raises(SettingInvalid) as caught:
        trust.bundle(path, {})
    assert caught.value.what.startswith("PLP_REGISTRY_CA_PATH: ")
    assert said in caught.value.what
    assert str(path) in caught.value.what
    assert "canary" not in caught.value.what


def test_a_path_that_is_not_there_is_not_told_what_certificates_look_like(tmp_path: Path) -> None:
    with pytest.raises(SettingInvalid) as caught:
        trust.bundle(tmp_path / "none", {})
    assert caught.value.hint.startswith("Correct PLP_REGISTRY_CA_PATH")
    assert "PEM" not in caught.value.hint


def test_paths_that_are_no_files(tmp_path: Path) -> None:
    os.mkfifo(tmp_path / "fifo")
    (tmp_path / "empty").mkdir()
    for path, said in (
        (tmp_path / "none", "cannot be read: No such file"),
        (tmp_path / "fifo", "no regular file"),
        (Path("/dev/zero"), "no regular file"),
        (tmp_path / "empty", "holds no certificate"),
    ):
        with pytest.raises(SettingInvalid, match=f"PLP_REGISTRY_CA_PATH: .*{said}"):
            trust.bundle(path, {})
