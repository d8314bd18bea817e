"""Whole publications with credentials from every place, and without usable ones."""

from __future__ import annotations

import base64
import json
import os
import shutil
import subprocess
import sys
import tempfile
from pathlib import Path
from typing import Any, NamedTuple

import pytest

from scripts.set_up.step import ROOT
from tests.support import layouts, machine, processes, scripted_registry
from tests.support import skopeo as skopeos
from tests.support.scripted_registry import ScriptedRegistry
from tests.support.skopeo import Skopeo

PATIENCE = 60.0
SECRET = "canary-7f3a"


@pytest.fixture
def archive(tmp_path: Path) -> Path:
    path = tmp_path / "image.tar"
    path.write_bytes(layouts.tar_of(layouts.image_files()))
    return path


def variables(registry: ScriptedRegistry, archive: Path) -> dict[str, str]:
    return {
        "PLP_ARTIFACT_PATH": str(archive),
        "PLP_IMAGE_REPOSITORY": f"{registry.address}/team/app",
        "PLP_COMMIT_SHA": "0123456",
        "PLP_REGISTRY_INSECURE": "true",
        "PLP_PUSH_RETRIES": "0",
    }


class Result(NamedTuple):
    """How a publisher ended, and the name of its error."""

    code: int
    stderr: str
    error: str


def publish(env: dict[str, str], skopeo: Skopeo, directory: Path) -> Result:
    """Run a whole publisher to its end."""
    result = directory / "result.json"
    measured = {name: value for name, value in os.environ.items() if "COVERAGE" in name}
    done = subprocess.run(
        [sys.executable, "-m", "publisher"],
        cwd=ROOT,
        env={**measured, **env, "PATH": skopeo.path, "PLP_RESULT_FILE": str(result)},
        check=False,
        capture_output=True,
        text=True,
        timeout=PATIENCE,
    )
    error = json.loads(result.read_text()).get("error") or {}
    return Result(done.returncode, done.stderr, error.get("name", ""))


def auths(**entries: str) -> str:
    held = {
        key: {"auth": base64.b64encode(pair.encode()).decode()} for key, pair in entries.items()
    }
    return json.dumps({"auths": held})


@pytest.mark.parametrize(
    ("variable", "file", "content", "error", "said"),
    [
        ("DOCKER_CONFIG", "config.json", "{", "credentials-not-usable", "is no JSON"),
        ("REGISTRY_AUTH_FILE", "none", "", "credentials-not-usable", "cannot be read"),
        (
            "DOCKER_CONFIG", "config.json", '{"credsStore": "not-there"}',
            "credentials-not-usable", "docker-credential-not-there was not found",
        ),
        ("PLP_REGISTRY_CA_PATH", "ca.pem", "nonsense", "setting-invalid", "no certificate"),
    ],
)  # fmt: skip
def test_what_cannot_be_used_ends_the_run_before_anything_is_asked(
    variable: str, file: str, content: str, error: str, said: str, archive: Path, tmp_path: Path
) -> None:
    path = tmp_path / "given" / file
    path.parent.mkdir()
    if content:
        path.write_text(content)
    given = path.parent if variable == "DOCKER_CONFIG" else path
    with scripted_registry.running("basic", ("me", SECRET)) as registry:
        env = variables(registry, archive) | {variable: str(given)}
        result = publish(env, skopeos.find("system"), tmp_path)
        assert registry.seen == []
    assert result.code == (1 if error == "setting-invalid" else 2)
    assert result.error == error
    assert said in result.stderr
    assert variable in result.stderr


def test_a_named_file_without_the_registry_is_told_before_it_refuses(
    archive: Path, tmp_path: Path
) -> None:
    file = tmp_path / "auth.json"
    file.write_text(auths(**{"other.example": f"me:{SECRET}"}))
    with scripted_registry.running("basic", ("me", SECRET)) as registry:
        env = variables(registry, archive) | {"REGISTRY_AUTH_FILE": str(file)}
        result = publish(env, skopeos.find("system"), tmp_path)
        assert registry.tags("team/app") == {}
    assert (result.code, result.error) == (2, "authentication-failed")
    assert "no credentials for this registry" in result.stderr
    assert str(file) in result.stderr


def test_a_kubernetes_mount_is_a_docker_configuration(
    archive: Path, tmp_path: Path, skopeo: Skopeo
) -> None:
    with scripted_registry.running("token", ("me", SECRET)) as registry:
        mount = tmp_path / "mount"
        (mount / "..data").mkdir(parents=True)
        content = auths(**{f"https://{registry.address}/v1/": f"me:{SECRET}"})
        (mount / "..data" / ".dockerconfigjson").write_text(content)
        (mount / ".dockerconfigjson").symlink_to("..data/.dockerconfigjson")
        env = variables(registry, archive) | {"DOCKER_CONFIG": str(mount)}
        result = publish(env, skopeo, tmp_path)
        assert result.code == 0, result.stderr
        assert list(registry.tags("team/app")) == ["0123456"]


def test_neighbours_of_the_same_user_cannot_look_into_the_publisher(archive: Path) -> None:
    """A user without rights, all privileges barred; its environment holds the password.

    skopeo is another matter: execve(2) makes it open to its user again, as SECURITY.md says.
    """
    user = machine.user("unprivileged")
    public = Path(tempfile.mkdtemp(prefix="plp-p-", dir="/tmp"))
    try:
        public.chmod(0o755)
        shutil.copy(archive, public / "image.tar")
        with scripted_registry.running("basic", ("me", SECRET)) as registry:
            registry.fail("upload-start", scripted_registry.FAULTS["stall"], None)
            env = variables(registry, public / "image.tar") | {
                "PATH": machine.SYSTEM_PATH,
                "PLP_REGISTRY_USERNAME": "me",
                "PLP_REGISTRY_PASSWORD": SECRET,
            }
            run_as: dict[str, Any] = (
                {"user": user.uid, "group": user.gid, "extra_groups": []} if user.switch else {}
            )
            process = subprocess.Popen(
                [
                    *("setpriv", "--no-new-privs", "--bounding-set=-all", "--inh-caps=-all"),
                    *(machine.shared_python(), "-m", "publisher"),
                ],
                cwd=machine.shared_source(),
                env=env,
                stdin=subprocess.DEVNULL,
                stderr=subprocess.DEVNULL,
                **run_as,
            )
            try:
                assert processes.until(
                    lambda: "stall" in {s.answer for s in registry.seen}, PATIENCE
                )
                for name in ("environ", "mem", "fd", "maps"):
                    looked = subprocess.run(
                        [
                            "sh",
                            "-c",
                            f"ls /proc/{process.pid}/{name}/ || cat /proc/{process.pid}/{name}",
                        ],
                        check=False,
                        capture_output=True,
                        **run_as,
                    )
                    assert looked.returncode != 0, name
                    assert SECRET.encode() not in looked.stdout
            finally:
                process.terminate()
                assert process.wait(PATIENCE) == 143
    finally:
        shutil.rmtree(public)
