"""The registries that tests of the publisher stand on: they let in whom they should."""

from __future__ import annotations

import json
import uuid
from pathlib import Path

import pytest

from tests.support import layouts
from tests.support.registries import KINDS, GuardedRegistry, Kind, Registries
from tests.support.skopeo import Skopeo


def archive(path: Path) -> tuple[Path, str]:
    """A small archive with two layers, and its manifest's digest."""
    files = layouts.image_files(layers=[uuid.uuid4().bytes, b"layer two"])
    path.write_bytes(layouts.tar_of(files))
    (entry,) = json.loads(files["index.json"])["manifests"]
    return path, entry["digest"]


def push(
    skopeo: Skopeo, registry: GuardedRegistry, source: Path, name: str, *, password: str = ""
) -> tuple[int, str]:
    options = ["--preserve-digests"]
    if registry.credentials:
        username, right = registry.credentials
        options.append(f"--dest-creds={username}:{password or right}")
    if registry.authority is None:
        options.append("--dest-tls-verify=false")
    trust = {"SSL_CERT_FILE": str(registry.authority)} if registry.authority else {}
    target = f"docker://{registry.address}/{name}"
    done = skopeo.run("copy", *options, f"oci-archive:{source}", target, env=trust)
    return done.returncode, done.stderr


@pytest.mark.parametrize("kind", KINDS, ids="-".join)
def test_what_is_pushed_is_read_back_by_others(
    kind: Kind, guarded_registries: Registries, skopeo: Skopeo, tmp_path: Path
) -> None:
    registry = guarded_registries[kind]
    source, digest = archive(tmp_path / "image.tar")
    name = f"team/{uuid.uuid4().hex}"
    assert push(skopeo, registry, source, f"{name}:1.0") == (0, "")
    asked = registry.requests()
    assert any(line.startswith(f"PUT /v2/{name}/manifests/") for line in asked), asked
    clients = registry.clients(tmp_path / "home")
    assert clients.digest(f"{name}:1.0") == digest
    assert clients.digests(name) == {"1.0": digest}
    assert clients.tags(f"{name}x") == set()


@pytest.mark.parametrize("kind", [kind for kind in KINDS if kind.guard != "open"], ids="-".join)
def test_a_wrong_password_gets_nowhere(
    kind: Kind, guarded_registries: Registries, skopeo: Skopeo, tmp_path: Path
) -> None:
    registry = guarded_registries[kind]
    source, _ = archive(tmp_path / "image.tar")
    name = f"team/{uuid.uuid4().hex}"
    code, said = push(skopeo, registry, source, f"{name}:1.0", password="wrong")
    assert code == 1
    assert "unauthorized" in said or "authentication required" in said, said
    assert registry.clients(tmp_path / "home").tags(name) == set()
