"""Credentials with what really takes and gives them: skopeo, registries, helper programs."""

from __future__ import annotations

import base64
import json
import os
import shutil
import signal
import stat
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any, NamedTuple

import pytest

from plp_builder import process
from plp_builder.errors import CredentialsNotUsable, Terminated, TimedOut
from publisher import credential_helper, trust
from publisher.credentials import AuthFile, Credentials
from publisher.docker_config import Entry
from scripts.set_up.step import ROOT
from tests.support import (
    certificates,
    layouts,
    machine,
    processes,
    scripted_registry,
)
from tests.support import skopeo as skopeos
from tests.support.registries import PROGRAMS, GuardedRegistry, Kind, Registries
from tests.support.scripted_registry import ScriptedRegistry
from tests.support.skopeo import Skopeo

PATIENCE = 60.0
SECRET = "canary-7f3a"
ANSWER = '{"ServerURL":"r.example","Username":"me","Secret":"canary-7f3a"}'


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


@pytest.fixture
def stop() -> Iterator[process.Stop]:
    numbers = (signal.SIGTERM, signal.SIGINT, signal.SIGHUP)
    before = {number: signal.getsignal(number) for number in numbers}
    stop = process.Stop("the publication")
    stop.listen()
    yield stop
    for number, handler in before.items():
        signal.signal(number, handler)


class Helpers:
    """A directory first on PATH for programs written in shell."""

    def __init__(self, directory: Path) -> None:
        self.directory = directory
        self.env = {"PATH": f"{directory}:{os.environ['PATH']}"}

    def write(self, script: str, name: str = "test") -> None:
        path = self.directory / f"docker-credential-{name}"
        path.write_text(f"#!/bin/sh\n{script}\n")
        path.chmod(0o755)

    def ask(
        self, stop: process.Stop, *, timeout: float = PATIENCE, server: str = "r.example"
    ) -> Entry | None:
        run = credential_helper.runner(self.env, stop, timeout)
        return credential_helper.ask("test", server, run)


@pytest.fixture
def helpers(tmp_path: Path) -> Helpers:
    directory = tmp_path / "helpers"
    directory.mkdir()
    return Helpers(directory)


def test_a_helper_gets_the_server_and_its_answer_is_used(
    helpers: Helpers, stop: process.Stop, tmp_path: Path
) -> None:
    helpers.write(f"""test "$*" = get || exit 9; cat > "{tmp_path}/in"; echo '{ANSWER}'""")
    assert helpers.ask(stop, server="https://index.docker.io/v1/") == Entry("me", SECRET)
    assert (tmp_path / "in").read_text() == "https://index.docker.io/v1/"


def test_a_helper_sees_the_clouds_variables_and_none_of_ours(
    helpers: Helpers, stop: process.Stop, tmp_path: Path
) -> None:
    helpers.env |= {"AWS_PROFILE": "ci", "PLP_REGISTRY_PASSWORD": SECRET, "PLP_DEBUG": "1"}
    helpers.write(f"""env > "{tmp_path}/env"; ls -l /proc/self/fd > "{tmp_path}/fd"
        echo '{ANSWER}'""")
    assert helpers.ask(stop) == Entry("me", SECRET)
    seen = (tmp_path / "env").read_text()
    assert "AWS_PROFILE=ci" in seen
    assert "PLP_" not in seen
    assert SECRET not in seen


def test_a_helper_without_credentials(helpers: Helpers, stop: process.Stop) -> None:
    helpers.write("echo credentials not found in native keychain; exit 1")
    assert helpers.ask(stop) is None


def test_what_a_failing_helper_says_is_not_shown(helpers: Helpers, stop: process.Stop) -> None:
    helpers.write("echo the vault is sealed; echo more >&2; exit 4")
    with pytest.raises(CredentialsNotUsable, match=r"docker-credential-test .*exit code 4") as told:
        helpers.ask(stop)
    shown = " ".join((*told.value.why, told.value.hint))
    assert "sealed" not in shown
    assert "more" not in shown
    assert "docker-credential-test get" in shown


def test_a_helper_that_is_not_there(helpers: Helpers, stop: process.Stop) -> None:
    with pytest.raises(CredentialsNotUsable, match="docker-credential-test was not found"):
        helpers.ask(stop)
    helpers.write("true")
    path = helpers.directory / "docker-credential-test"
    path.chmod(stat.S_IRUSR | stat.S_IWUSR)
    with pytest.raises(CredentialsNotUsable, match="docker-credential-test was not found"):
        helpers.ask(stop)
    path.write_bytes(b"\x7fELFnonsense")
    path.chmod(0o755)
    with pytest.raises(CredentialsNotUsable, match="docker-credential-test has failed"):
        helpers.ask(stop)


def test_a_helper_that_never_answers_is_ended(
    helpers: Helpers, stop: process.Stop, tmp_path: Path
) -> None:
    helpers.write(
        f'echo waiting >&2; trap "" TERM; echo $$ > "{tmp_path}/pid"; sleep 1000; sleep 9'
    )
    with pytest.raises(CredentialsNotUsable, match="did not answer within 1 s") as told:
        helpers.ask(stop, timeout=1.0)
    assert "waiting" not in str(told.value.why)
    pid = int((tmp_path / "pid").read_text())
    assert not Path(f"/proc/{pid}").exists()


def test_a_helper_that_talks_without_end_is_not_kept(helpers: Helpers, stop: process.Stop) -> None:
    helpers.write("head -c 30000000 /dev/zero | tr '\\0' x; head -c 30000000 /dev/zero >&2")
    with pytest.raises(CredentialsNotUsable) as told:
        helpers.ask(stop)
    assert told.value.why == ("it is too long",)


def test_what_a_helper_leaves_running_holds_nobody_up(
    helpers: Helpers, stop: process.Stop, tmp_path: Path
) -> None:
    """Such as an agent that keeps the pipes open."""
    helpers.write(f"""sleep 1000 & echo $! > "{tmp_path}/pid"; echo '{ANSWER}'""")
    began = time.monotonic()
    try:
        assert helpers.ask(stop) == Entry("me", SECRET)
        assert time.monotonic() - began < PATIENCE
    finally:
        os.kill(int((tmp_path / "pid").read_text()), signal.SIGKILL)


def test_a_stop_ends_a_helper(helpers: Helpers, stop: process.Stop, tmp_path: Path) -> None:
    helpers.write(f'echo $$ > "{tmp_path}/pid"; kill -TERM $PPID; sleep 1000')
    with pytest.raises(Terminated, match="the publication was asked to end"):
        helpers.ask(stop)
    assert not Path(f"/proc/{(tmp_path / 'pid').read_text().strip()}").exists()


def test_the_deadline_of_the_run_ends_a_helper(helpers: Helpers, stop: process.Stop) -> None:
    helpers.write("sleep 1000")
    stop.limit(0.5)
    with pytest.raises(TimedOut, match="PLP_TIMEOUT"):
        helpers.ask(stop)


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
