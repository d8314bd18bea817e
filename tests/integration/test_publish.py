"""The publisher on real registries: from a build to its tags."""

from __future__ import annotations

import json
import os
from pathlib import Path

import pytest

from tests.support import layouts, machine
from tests.support.builder import MakeWorkspace, RunBuilder
from tests.support.engine import Engine
from tests.support.layouts import Files
from tests.support.publisher import (
    COMMIT,
    NAMES,
    TAGS,
    digest_of,
    environment,
    image,
    run,
    scripted_env,
    top,
    write,
)
from tests.support.registries import Clients, GuardedRegistry, Kind, Registries
from tests.support.scripted_registry import ScriptedRegistry
from tests.support.skopeo import Skopeo


@pytest.fixture
def registry(guarded_registries: Registries) -> GuardedRegistry:
    """Debian's, with a password."""
    return guarded_registries[Kind("docker-registry", "htpasswd")]


@pytest.fixture
def clients(registry: GuardedRegistry, tmp_path: Path) -> Clients:
    return registry.clients(tmp_path / "clients")


@pytest.fixture
def archive(tmp_path: Path) -> Path:
    return image(tmp_path)


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
