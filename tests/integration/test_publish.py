"""The publisher on real registries: from a build to a tag, and every way in which a run ends."""

from __future__ import annotations

import json
import os
import shutil
import signal
import socket
import ssl
import subprocess
import tarfile
import tempfile
import threading
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest

from tests.support import certificates, layouts, machine, processes, publisher, scripted_registry
from tests.support.builder import MakeWorkspace, RunBuilder
from tests.support.certificates import Certificate
from tests.support.engine import Engine
from tests.support.layouts import Files
from tests.support.machine import User
from tests.support.publisher import COMMIT, end, environment, run, started, wait_for
from tests.support.registries import Clients, GuardedRegistry, Kind, Registries
from tests.support.scripted_registry import FAULTS, ScriptedRegistry
from tests.support.skopeo import Skopeo

ENDS_WITHIN = 10.0
TAGS = {"PLP_TAG": "v1.2.3", "PLP_BRANCH": "main", "PLP_IS_DEFAULT_BRANCH": "true"}
NAMES = {"1.2.3", "1.2", "1", "main", "main-0123456", "latest"}
MIB = 1 << 20


@pytest.fixture
def registry(guarded_registries: Registries) -> GuardedRegistry:
    """Debian's, with a password."""
    return guarded_registries[Kind("docker-registry", "htpasswd")]


@pytest.fixture
def clients(registry: GuardedRegistry, tmp_path: Path) -> Clients:
    return registry.clients(tmp_path / "clients")


@pytest.fixture
def scripted() -> Iterator[ScriptedRegistry]:
    with scripted_registry.running("basic") as running:
        yield running


def write(path: Path, files: Files) -> Path:
    path.write_bytes(layouts.tar_of(files))
    return path


@pytest.fixture
def archive(tmp_path: Path) -> Path:
    """One image with two layers, new in every test."""
    return write(tmp_path / "image.tar", layouts.image_files(layers=[os.urandom(9999), b"small"]))


@pytest.fixture
def large(tmp_path: Path) -> Path:
    """Large enough that it can be stopped in the middle."""
    return write(tmp_path / "large.tar", layouts.image_files(layers=[os.urandom(8 * MIB)]))


def index_files() -> Files:
    """Two platforms, each with an attestation, as BuildKit makes them."""
    files: Files = {}
    entries = []
    for architecture in ("amd64", "arm64"):
        platform = {"os": "linux", "architecture": architecture}
        image = layouts.add_image(
            files, [os.urandom(5000).hex().encode()], architecture=architecture, platform=platform
        )
        statement = layouts.add_blob(
            files, os.urandom(50).hex().encode(), "application/vnd.in-toto+json"
        )
        rootfs = {"type": "layers", "diff_ids": [statement["digest"]]}
        config = {"architecture": "unknown", "os": "unknown", "rootfs": rootfs}
        manifest = {
            "schemaVersion": 2,
            "mediaType": layouts.MANIFEST,
            "config": layouts.add_json(files, config, layouts.CONFIG),
            "layers": [statement],
        }
        attestation = layouts.add_json(
            files,
            manifest,
            layouts.MANIFEST,
            annotations={
                "vnd.docker.reference.type": "attestation-manifest",
                "vnd.docker.reference.digest": image["digest"],
            },
            platform={"os": "unknown", "architecture": "unknown"},
        )
        entries += [image, attestation]
    index = {"schemaVersion": 2, "mediaType": layouts.INDEX, "manifests": entries}
    return layouts.finish(files, layouts.add_json(files, index, layouts.INDEX))


def top(files: Files) -> str:
    digest: str = json.loads(files["index.json"])["manifests"][0]["digest"]
    return digest


def digest_of(archive: Path) -> str:
    command = ["tar", "-xOf", str(archive), "index.json"]
    index = subprocess.run(command, check=True, capture_output=True).stdout
    return top({"index.json": index})


def scripted_env(**more: str | None) -> dict[str, str | None]:
    return {
        "PLP_REGISTRY_INSECURE": "true",
        "PLP_REGISTRY_USERNAME": "publisher",
        "PLP_REGISTRY_PASSWORD": "a-password",
        **TAGS,
        **more,
    }


def test_the_contracts_example(
    workspace: MakeWorkspace,
    run_builder: RunBuilder,
    registry: GuardedRegistry,
    clients: Clients,
    tmp_path: Path,
) -> None:
    """Repository, commit, user and password, and nothing else."""
    place = workspace("root").write({"Dockerfile": "FROM scratch\nCOPY file /file\n", "file": "hi"})
    built = run_builder(place.env, user="root")
    assert built.code == 0, built.output
    env = environment(place.archive, f"{registry.address}/team/app", registry.env)
    result = run(env, tmp_path)
    assert result.code == 0, result.stderr
    digest = digest_of(place.archive)
    assert clients.digests("team/app") == {COMMIT: digest, COMMIT[:7]: digest}
    files = clients.crane("export", f"{registry.address}/team/app:{COMMIT[:7]}", "-")
    assert "hi" in files
    assert f"docker pull {registry.address}/team/app@{digest}" in result.stderr
    assert registry.env["PLP_REGISTRY_PASSWORD"] not in result.stderr


def test_docker_pulls_and_runs_what_was_published(
    workspace: MakeWorkspace,
    run_builder: RunBuilder,
    docker_engine: Engine,
    registry: GuardedRegistry,
    clients: Clients,
    tmp_path: Path,
) -> None:
    busybox = Path(machine.command("busybox")).read_bytes()
    dockerfile = 'FROM scratch\nCOPY busybox /busybox\nENTRYPOINT ["/busybox", "echo", "I run"]\n'
    place = workspace("root").write({"Dockerfile": dockerfile, "busybox": busybox})
    (place.source / "busybox").chmod(0o755)
    built = run_builder(place.env, user="root")
    assert built.code == 0, built.output
    name = f"{registry.address}/team/runs"
    result = run(environment(place.archive, name, registry.env), tmp_path)
    assert result.code == 0, result.stderr
    image = f"{name}@{digest_of(place.archive)}"
    assert f"docker pull {image}" in result.stderr
    clients.environment()  # writes what docker login would
    docker_engine.docker("--config", str(clients.home), "pull", image)
    try:
        said = docker_engine.docker("run", "--rm", "--network=none", image).stdout
        assert said == "I run\n"
    finally:
        docker_engine.docker("image", "rm", "--force", image, check=False)


def test_all_tags_arrive_and_a_second_run_changes_nothing(
    registry: GuardedRegistry, clients: Clients, archive: Path, skopeo: Skopeo, tmp_path: Path
) -> None:
    repository = f"team/all-{skopeo.name}"
    more = {**registry.env, **TAGS, "PATH": skopeo.path}
    env = environment(archive, f"{registry.address}/{repository}", more)
    result = run(env, tmp_path)
    assert result.code == 0, result.stderr
    assert clients.digests(repository) == dict.fromkeys(NAMES, digest_of(archive))
    registry.requests()
    again = run(env, tmp_path)
    assert again.code == 0, again.stderr
    assert again.stderr.count(" unchanged") >= len(NAMES)
    written = [line for line in registry.requests() if not line.startswith(("GET", "HEAD"))]
    assert written == []


def test_an_index_with_attestations_arrives_byte_by_byte(
    registry: GuardedRegistry, clients: Clients, skopeo: Skopeo, tmp_path: Path
) -> None:
    files = index_files()
    archive = write(tmp_path / "index.tar", files)
    repository = f"team/index-{skopeo.name}"
    env = environment(
        archive, f"{registry.address}/{repository}", {**registry.env, "PATH": skopeo.path, **TAGS}
    )
    result = run(env, tmp_path)
    assert result.code == 0, result.stderr
    assert clients.digests(repository) == dict.fromkeys(NAMES, top(files))
    name = f"{registry.address}/{repository}"
    index = json.loads(clients.crane("manifest", f"{name}:latest"))
    manifests = {top(files), *(entry["digest"] for entry in index["manifests"])}
    assert len(manifests) == 5
    for data in (data for path, data in files.items() if path.startswith("blobs/")):
        digest = f"sha256:{layouts.sha256(data)}"
        there = clients.crane("manifest" if digest in manifests else "blob", f"{name}@{digest}")
        assert there == data.decode()


def test_a_dry_run_sends_nothing(scripted: ScriptedRegistry, archive: Path, tmp_path: Path) -> None:
    env = environment(archive, f"{scripted.address}/app", scripted_env(PLP_DRY_RUN="true"))
    result = run(env, tmp_path)
    assert result.code == 0, result.stderr
    assert scripted.seen == []
    assert "dry run" in result.stderr
    for name in NAMES:
        assert f"{name} " in result.stderr


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


def test_a_verification_can_be_stopped(
    scripted: ScriptedRegistry, archive: Path, tmp_path: Path
) -> None:
    """The archive has a blob of nothing but zeros, which takes seconds to read."""
    with tarfile.open(archive) as tar:
        last = tar.getmembers()[-1]
    huge = tarfile.TarInfo(f"blobs/sha256/{'0' * 64}")
    huge.size = 4 << 30
    with archive.open("r+b") as file:
        at = file.seek(-(-(last.offset_data + last.size) // 512) * 512)
        file.write(huge.tobuf(tarfile.USTAR_FORMAT))
        file.truncate(at + 512 + huge.size + 1024)
    log = tmp_path / "log"
    with started(environment(archive, f"{scripted.address}/app", scripted_env()), log) as process:
        wait_for(lambda: b"plp-container-image-publisher" in log.read_bytes(), process)
        code, seconds = end(process, signal.SIGTERM)
    assert code == 143, log.read_text()
    assert seconds < ENDS_WITHIN
    assert scripted.seen == []


def test_a_wrong_password_is_exit_code_2(
    registry: GuardedRegistry, archive: Path, skopeo: Skopeo, tmp_path: Path
) -> None:
    more = {**registry.env, "PLP_REGISTRY_PASSWORD": "wrong-password", "PATH": skopeo.path}
    result = run(environment(archive, f"{registry.address}/team/wrong", more), tmp_path)
    assert result.code == 2, result.stderr
    assert "ERROR authentication-failed:" in result.stderr
    assert "wrong-password" not in result.stderr


def test_a_tag_that_should_stay_is_changed_with_a_warning(
    scripted: ScriptedRegistry, archive: Path, tmp_path: Path
) -> None:
    env = environment(archive, f"{scripted.address}/app", scripted_env())
    assert run(env, tmp_path).code == 0
    before = scripted.tags("app")["1.2.3"]
    write(archive, layouts.image_files(layers=[os.urandom(99)]))
    result = run(env, tmp_path)
    assert result.code == 0, result.stderr
    assert "a tag that should stay is changed" in result.stderr
    assert f"previous={before}" in result.stderr
    assert set(scripted.tags("app").values()) == {digest_of(archive)}


def test_a_second_run_completes_what_a_first_one_left(
    scripted: ScriptedRegistry, archive: Path, tmp_path: Path
) -> None:
    scripted.fail("manifest-put", FAULTS["403"], 1, where="manifests/main-")
    env = environment(archive, f"{scripted.address}/app", scripted_env())
    first = run(env, tmp_path)
    assert first.code == 2, first.stderr
    assert set(scripted.tags("app")) == {"1.2.3"}
    scripted.seen.clear()
    second = run(env, tmp_path)
    assert second.code == 0, second.stderr
    assert scripted.tags("app") == dict.fromkeys(NAMES, digest_of(archive))
    assert not [seen for seen in scripted.seen if seen.method in {"POST", "PATCH"}]


def test_passing_faults_are_waited_for_and_told(
    scripted: ScriptedRegistry, archive: Path, skopeo: Skopeo, tmp_path: Path
) -> None:
    scripted.fail("upload-data", FAULTS["503"])
    scripted.fail("manifest-put", FAULTS["reset"], 1, where="manifests/latest")
    env = environment(archive, f"{scripted.address}/app", scripted_env(PATH=skopeo.path))
    result = run(env, tmp_path)
    assert result.code == 0, result.stderr
    assert result.stderr.count("trying again") == 2
    assert scripted.tags("app") == dict.fromkeys(NAMES, digest_of(archive))


def test_an_upload_that_stalls_is_begun_again(
    scripted: ScriptedRegistry, large: Path, tmp_path: Path
) -> None:
    scripted.fail("upload-data", FAULTS["stall"])
    more = scripted_env(PLP_STALL_TIMEOUT="1")
    result = run(environment(large, f"{scripted.address}/app", more), tmp_path)
    assert result.code == 0, result.stderr
    assert "nothing moves" in result.stderr
    assert scripted.tags("app") == dict.fromkeys(NAMES, digest_of(large))


def test_the_time_limit_ends_a_push(
    scripted: ScriptedRegistry, large: Path, tmp_path: Path
) -> None:
    scripted.fail("upload-data", FAULTS["stall"], None)
    more = scripted_env(PLP_TIMEOUT="2")
    result = run(environment(large, f"{scripted.address}/app", more), tmp_path)
    assert result.code == 1
    assert "ERROR timed-out: the publication did not end within PLP_TIMEOUT (2 s)" in result.stderr
    assert scripted.tags("app") == {}


def test_an_archive_that_changes_while_it_is_pushed_is_told(
    scripted: ScriptedRegistry, large: Path, tmp_path: Path
) -> None:
    scripted.fail("upload-start", FAULTS["stall"], 1)
    env = environment(large, f"{scripted.address}/app", scripted_env(PLP_STALL_TIMEOUT="3"))
    log = tmp_path / "log"
    with started(env, log) as process:
        wait_for(lambda: any(seen.answer == "stall" for seen in scripted.seen), process)
        with large.open("r+b") as file:
            file.seek(3 * MIB)
            file.write(b"other bytes")
        assert process.wait(publisher.PATIENCE) == 3, log.read_text()
    assert "changed while it was pushed" in log.read_text()
    assert scripted.tags("app") == {}


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGINT, signal.SIGKILL])
def test_a_stopped_run_leaves_nothing_and_the_next_one_completes_it(
    number: signal.Signals, scripted: ScriptedRegistry, large: Path, tmp_path: Path
) -> None:
    scripted.fail("upload-data", FAULTS["stall"], 1)
    for name in ("home", "tmp", "run", "cwd"):
        (tmp_path / name).mkdir()
    places = {
        "HOME": str(tmp_path / "home"),
        "TMPDIR": str(tmp_path / "tmp"),
        "XDG_RUNTIME_DIR": str(tmp_path / "run"),
    }
    env = environment(large, f"{scripted.address}/app", {**scripted_env(), **places})
    log = tmp_path / "log"
    with started(env, log) as process:
        wait_for(lambda: any(seen.answer == "stall" for seen in scripted.seen), process)
        below = processes.below([process.pid])
        assert any("skopeo" in each.command for each in below.values())
        code, seconds = end(process, number)
        wait_gone(set(below))
    expected = {signal.SIGTERM: 143, signal.SIGINT: 130, signal.SIGKILL: -9}[number]
    assert code == expected, log.read_text()
    assert seconds < ENDS_WITHIN
    for name in places.values():
        assert list(Path(name).rglob("*")) == []
    assert scripted.tags("app") == {}
    result = run(env, tmp_path)
    assert result.code == 0, result.stderr
    assert scripted.tags("app") == dict.fromkeys(NAMES, digest_of(large))


def wait_gone(pids: set[int]) -> None:
    assert processes.until(lambda: not processes.below(pids))


@pytest.fixture
def ordinary(archive: Path, unprivileged_user: User) -> Iterator[Ordinary]:
    """The archive where another user can read it, and nothing that this user can write to."""
    place = Path(tempfile.mkdtemp(prefix="plp-publish-", dir="/var/tmp"))
    place.chmod(0o755)
    shutil.copy(archive, place / "image.tar")
    (place / "image.tar").chmod(0o444)
    yield Ordinary(unprivileged_user, place / "image.tar")
    shutil.rmtree(place)


@dataclass(frozen=True, slots=True)
class Ordinary:
    """Starts programs as an ordinary user."""

    user: User
    archive: Path

    def start(self, *command: str | Path, env: Mapping[str, str]) -> subprocess.Popen[str]:
        switch = self.user.switch
        return subprocess.Popen(
            command,
            cwd="/",
            env={name: value for name, value in env.items() if "COVERAGE" not in name},
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            text=True,
            user=self.user.uid if switch else None,
            group=self.user.gid if switch else None,
            extra_groups=[] if switch else None,
        )

    def publish(self, repository: str, more: Mapping[str, str | None]) -> subprocess.Popen[str]:
        nowhere = dict.fromkeys(("HOME", "TMPDIR", "XDG_RUNTIME_DIR"), "/nonexistent")
        source = {"PYTHONPATH": str(machine.shared_source())}
        env = environment(self.archive, repository, {**more, **nowhere, **source})
        return self.start(machine.shared_python(), "-m", "publisher", env=env)


def test_an_ordinary_user_publishes_without_a_place_to_write(
    registry: GuardedRegistry, clients: Clients, ordinary: Ordinary
) -> None:
    """As in a container: no home, no temporary directory, another user than the archive's."""
    with ordinary.publish(f"{registry.address}/team/ordinary", registry.env) as process:
        output, _ = process.communicate(timeout=publisher.PATIENCE)
    assert process.returncode == 0, output
    assert set(clients.digests("team/ordinary").values()) == {digest_of(ordinary.archive)}


@pytest.mark.parametrize("name", ["environ", "mem", "maps", "fd/0"])
def test_other_processes_of_the_same_user_cannot_look_inside(
    name: str, scripted: ScriptedRegistry, ordinary: Ordinary
) -> None:
    """The password is in the environment and in memory; a step beside us may be hostile."""
    scripted.fail("ping", FAULTS["stall"], None)
    with ordinary.publish(f"{scripted.address}/app", scripted_env()) as process:
        try:
            assert processes.until(lambda: scripted.seen)
            env = {"PATH": machine.SYSTEM_PATH, "LC_ALL": "C"}
            path = f"/proc/{process.pid}/{name}"
            with ordinary.start("head", "-c1", path, env=env) as other:
                output, _ = other.communicate(timeout=publisher.PATIENCE)
            assert "Permission denied" in output
        finally:
            process.kill()
