"""Credentials and trusted authorities with what takes them: skopeo and registries."""

from __future__ import annotations

import os
from pathlib import Path

import pytest

from plp_builder import process
from publisher import trust
from publisher.credentials import AuthFile, Credentials
from tests.support import certificates, layouts
from tests.support.registries import PROGRAMS, GuardedRegistry, Kind, Registries
from tests.support.skopeo import Skopeo

PATIENCE = 60.0
SECRET = "canary-7f3a"


@pytest.fixture
def layout(tmp_path: Path) -> Path:
    """An OCI layout with one small image."""
    directory = tmp_path / "layout"
    for name, data in layouts.image_files().items():
        (directory / name).parent.mkdir(parents=True, exist_ok=True)
        (directory / name).write_bytes(data)
    return directory


def push(
    skopeo: Skopeo,
    layout: Path,
    registry: GuardedRegistry,
    given: Credentials,
    bundle: trust.Bundle | None = None,
) -> process.Completed:
    """Push with an authfile that exists in memory only."""
    entries = {"127.0.0.1:1": Credentials("archive", "x"), registry.address: given}
    env = {"PATH": skopeo.path, "HOME": "/proc/none"}
    with AuthFile(entries) as authfile:
        # fmt: off
        arguments = [
            "skopeo", "--insecure-policy", "copy", "--authfile", authfile.path,
            f"--dest-tls-verify={'true' if registry.authority else 'false'}",
            f"oci:{layout}", f"docker://{registry.address}/credentials/app:{skopeo.name}",
        ]
        # fmt: on
        descriptors = [authfile.fd]
        if bundle is not None:
            env["SSL_CERT_FILE"] = bundle.path
            descriptors.append(bundle.fd)
        return process.run(arguments, env=env, timeout=PATIENCE, pass_fds=descriptors)


def arrived(registry: GuardedRegistry, home: Path, tag: str) -> bool:
    return tag in registry.clients(home).tags("credentials/app")


@pytest.mark.parametrize("program", PROGRAMS)
def test_skopeo_reads_the_authfile_from_memory(
    program: str, skopeo: Skopeo, layout: Path, tmp_path: Path, guarded_registries: Registries
) -> None:
    registry = guarded_registries[Kind(program, "htpasswd")]
    assert registry.credentials is not None
    done = push(skopeo, layout, registry, Credentials(*registry.credentials))
    assert (done.code, done.stderr) == (0, b"")
    assert arrived(registry, tmp_path / "home", skopeo.name)


def test_other_credentials_are_refused(
    skopeo: Skopeo, layout: Path, guarded_registries: Registries
) -> None:
    """Nothing of the machine's own stands in for them, and no word of them is repeated."""
    registry = guarded_registries[Kind("registry", "htpasswd")]
    done = push(skopeo, layout, registry, Credentials("publisher", SECRET))
    assert done.code != 0
    assert b"auth" in done.stderr
    assert SECRET.encode() not in done.stderr


@pytest.mark.parametrize("program", PROGRAMS)
def test_an_identity_token_is_traded_for_an_access_token(
    program: str, skopeo: Skopeo, layout: Path, tmp_path: Path, guarded_registries: Registries
) -> None:
    registry = guarded_registries[Kind(program, "token")]
    assert registry.tokens is not None
    registry.tokens.requests.clear()
    given = Credentials("", "", registry.tokens.identity_token)
    done = push(skopeo, layout, registry, given)
    assert (done.code, done.stderr) == (0, b"")
    assert any("refresh_token" in line for line in registry.tokens.requests)
    assert arrived(registry, tmp_path / "home", skopeo.name)
    wrong = push(skopeo, layout, registry, Credentials("", "", SECRET))
    assert wrong.code != 0
    assert SECRET.encode() not in wrong.stderr


def test_skopeo_trusts_the_authorities_it_is_given(
    skopeo: Skopeo, layout: Path, tmp_path: Path, guarded_registries: Registries
) -> None:
    registry = guarded_registries[Kind("registry", "tls")]
    assert registry.credentials is not None
    given = Credentials(*registry.credentials)
    directory = tmp_path / "authorities"
    directory.mkdir()
    certificates.self_signed(directory, "another")
    other = trust.bundle(directory, os.environ)
    assert registry.authority is not None
    (directory / "own.pem").write_bytes(registry.authority.read_bytes())
    both = trust.bundle(directory, os.environ)
    assert other is not None
    assert both is not None
    with other, both:
        for bundle in (None, other):
            refused = push(skopeo, layout, registry, given, bundle)
            assert refused.code != 0
            assert b"x509" in refused.stderr
        done = push(skopeo, layout, registry, given, both)
    assert (done.code, done.stderr) == (0, b"")
    assert arrived(registry, tmp_path / "home", skopeo.name)
