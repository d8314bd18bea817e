"""Publications that cannot succeed: what is told, and that nothing is sent before."""

from __future__ import annotations

import json
import socket
import ssl
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import pytest

from tests.support import certificates
from tests.support.certificates import Certificate
from tests.support.publisher import environment, image, run, scripted_env
from tests.support.registries import GuardedRegistry, Kind, Registries
from tests.support.scripted_registry import ScriptedRegistry
from tests.support.skopeo import Skopeo


@pytest.fixture
def registry(guarded_registries: Registries) -> GuardedRegistry:
    """Debian's, with a password."""
    return guarded_registries[Kind("docker-registry", "htpasswd")]


@pytest.fixture
def archive(tmp_path: Path) -> Path:
    return image(tmp_path)


@pytest.mark.parametrize("kind", ["gone", "damaged", "empty"])
def test_a_bad_archive_is_told_before_anything_is_sent(
    kind: str, scripted: ScriptedRegistry, archive: Path, tmp_path: Path
) -> None:
    if kind == "gone":
        archive.unlink()
    else:
        data = archive.read_bytes()
        archive.write_bytes(b"" if kind == "empty" else data.replace(b"small", b"smaLl"))
    result_file = tmp_path / "result.json"
    more = scripted_env(PLP_RESULT_FILE=str(result_file))
    result = run(environment(archive, f"{scripted.address}/app", more), tmp_path)
    assert result.code == 3, result.stderr
    assert scripted.seen == []
    assert "ERROR archive-invalid:" in result.stderr
    assert str(archive) in result.stderr
    assert "PLP_ARTIFACT_PATH" in result.stderr
    assert json.loads(result_file.read_text())["error"]["exit_code"] == 3


def test_missing_variables_are_told_before_the_archive_is(tmp_path: Path) -> None:
    told = tmp_path / "result.json"
    more = {"PLP_COMMIT_SHA": None, "PLP_RESULT_FILE": str(told)}
    result = run(environment(tmp_path / "none.tar", "", more), tmp_path)
    assert result.code == 4, result.stderr
    assert json.loads(told.read_text())["error"]["name"] == "variable-missing"
    assert "PLP_IMAGE_REPOSITORY" in result.stderr
    assert "PLP_COMMIT_SHA" in result.stderr


def test_typing_errors_in_paths_do_not_wait_for_the_archive(tmp_path: Path) -> None:
    """The archive is not there either, which is told only after what is read faster."""
    more = {"PLP_REGISTRY_CA_PATH": str(tmp_path / "ca"), "DOCKER_CONFIG": str(tmp_path / "docker")}
    result = run(environment(tmp_path / "none.tar", "r.example/app", more), tmp_path)
    assert result.code == 2, result.stderr
    assert "DOCKER_CONFIG cannot be used" in result.stderr
    del more["DOCKER_CONFIG"]
    result = run(environment(tmp_path / "none.tar", "r.example/app", more), tmp_path)
    assert result.code == 1, result.stderr
    assert "Correct PLP_REGISTRY_CA_PATH" in result.stderr


def test_without_credentials_it_is_told_where_they_were_looked_for(
    registry: GuardedRegistry, archive: Path, tmp_path: Path
) -> None:
    (tmp_path / "config.json").write_text("{}")
    told = tmp_path / "result.json"
    more: dict[str, str | None] = {**registry.env}
    more |= dict.fromkeys(("PLP_REGISTRY_USERNAME", "PLP_REGISTRY_PASSWORD"))
    more |= {"PLP_RESULT_FILE": str(told), "DOCKER_CONFIG": str(tmp_path)}
    result = run(environment(archive, f"{registry.address}/team/none", more), tmp_path)
    assert result.code == 2, result.stderr
    error = json.loads(told.read_text())["error"]
    assert error["what"].endswith("the registry does not allow this without credentials")
    assert f"DOCKER_CONFIG={tmp_path} has no entry for {registry.address}" in error["why"]


def test_a_registry_that_is_not_there_is_told(archive: Path, tmp_path: Path) -> None:
    more = {"PLP_PUSH_RETRIES": "0", "PLP_REGISTRY_INSECURE": "true"}
    result = run(environment(archive, "127.0.0.1:9/app", more), tmp_path)
    assert result.code == 1, result.stderr
    assert "ERROR registry-not-reachable: could not look at the tags: there is no" in result.stderr
    assert "no connection to 127.0.0.1:9: connection refused" in result.stderr


@contextmanager
def speaking_tls(certificate: Certificate) -> Iterator[str]:
    """A server that shows its certificate and hangs up; gives its address."""
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    context.load_cert_chain(certificate.certificate, certificate.key)

    def serve() -> None:
        while True:
            try:
                connection, _ = listener.accept()
            except OSError:
                return
            try:
                context.wrap_socket(connection, server_side=True).close()
            except OSError:
                connection.close()

    with socket.create_server(("127.0.0.1", 0)) as listener:
        thread = threading.Thread(target=serve, daemon=True)
        thread.start()
        try:
            yield f"127.0.0.1:{listener.getsockname()[1]}"
        finally:
            listener.shutdown(socket.SHUT_RDWR)
            thread.join()


@pytest.mark.parametrize(
    ("made", "known", "reason", "hint"),
    [
        ({}, False, "is not trusted", "Give the certificate of the CA"),
        ({"days": -1}, True, "is not valid at this time", "Renew"),
        ({"names": "DNS:other.example"}, True, "is for another name", "Use a name"),
    ],
    ids=["unknown", "expired", "other-name"],
)
def test_what_is_wrong_with_a_certificate_is_told(
    made: dict[str, Any],
    known: bool,
    reason: str,
    hint: str,
    archive: Path,
    skopeo: Skopeo,
    tmp_path: Path,
) -> None:
    certificate = certificates.for_loopback(tmp_path, **made)
    more = {"PATH": skopeo.path}
    more |= {"PLP_REGISTRY_CA_PATH": str(certificate.authority)} if known else {}
    with speaking_tls(certificate) as address:
        result = run(environment(archive, f"{address}/app", more), tmp_path)
    assert result.code == 1, result.stderr
    assert "ERROR registry-not-reachable:" in result.stderr
    assert f"the registry's certificate {reason}" in result.stderr
    assert f"next: {hint}" in result.stderr
    assert "trying again" not in result.stderr


def test_a_missing_skopeo_is_told(archive: Path, tmp_path: Path) -> None:
    (tmp_path / "bin").mkdir()
    result = run(environment(archive, "r.example/app", {"PATH": str(tmp_path / "bin")}), tmp_path)
    assert result.code == 1, result.stderr
    assert "ERROR tool-not-found: skopeo was not found on PATH" in result.stderr
    assert "apt-get install skopeo" in result.stderr


def test_a_wrong_password_is_exit_code_2(
    registry: GuardedRegistry, archive: Path, skopeo: Skopeo, tmp_path: Path
) -> None:
    more = {**registry.env, "PLP_REGISTRY_PASSWORD": "wrong-password", "PATH": skopeo.path}
    result = run(environment(archive, f"{registry.address}/team/wrong", more), tmp_path)
    assert result.code == 2, result.stderr
    assert "ERROR authentication-failed:" in result.stderr
    assert "wrong-password" not in result.stderr
