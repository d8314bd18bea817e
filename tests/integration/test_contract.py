"""The main job with the variables of the original contract: messages, codes, defaults, archive."""

from __future__ import annotations

import json
import os
import stat
import subprocess
import time
from pathlib import Path
from typing import Any

import pytest

from tests.support import machine
from tests.support.builder import MakeWorkspace, RunBuilder, StartBuilder, Workspace
from tests.support.machine import Tools

URL = "https://robot:t0ken@git.example/team/app.git"
FIVE = {"GIT_REPOSITORY_URL": URL, "GIT_SHA": "0123456789abcdef0123456789abcdef01234567"}


def skopeo(*arguments: str | Path) -> Any:
    command = [machine.command("skopeo"), *map(str, arguments)]
    return json.loads(subprocess.run(command, check=True, capture_output=True, timeout=60).stdout)


def simple(workspace: Workspace) -> Workspace:
    return workspace.write({"Dockerfile": "FROM scratch\nCOPY file /file\n", "file": "content"})


@pytest.mark.parametrize("user", ["root", "unprivileged"])
def test_five_variables_make_an_archive(
    user: str, buildkit: Tools, workspace: MakeWorkspace, run_builder: RunBuilder
) -> None:
    place = simple(workspace(user))
    result = run_builder({**place.env, **FIVE}, user=user, tools=buildkit)
    assert result.code == 0, result.output
    assert result.left_processes == ()
    assert result.left_files == ()
    assert list(place.build.iterdir()) == [place.archive]
    status = place.archive.stat()
    assert stat.S_IMODE(status.st_mode) == 0o644
    assert status.st_uid == place.build.stat().st_uid
    manifest = skopeo("inspect", "--raw", f"oci-archive:{place.archive}")
    annotations = manifest["annotations"]
    assert annotations["org.opencontainers.image.source"] == "https://git.example/team/app.git"
    assert annotations["org.opencontainers.image.revision"] == FIVE["GIT_SHA"]
    created = annotations["org.opencontainers.image.created"]
    assert abs(time.time() - _seconds(created)) < 3600
    assert skopeo("inspect", f"docker-archive:{place.archive}")["Architecture"]
    assert "t0ken" not in result.output
    assert str(place.archive) in result.stderr
    assert (place.cache / "buildkit" / "index.json").is_file()


def _seconds(text: str) -> float:
    return time.mktime(time.strptime(text, "%Y-%m-%dT%H:%M:%SZ")) - time.timezone


def test_an_archive_of_any_owner_belongs_to_the_directorys_owner(
    workspace: MakeWorkspace, run_builder: RunBuilder
) -> None:
    if os.geteuid() != 0:
        pytest.skip("only root can give files away")
    place = simple(workspace("root"))
    os.chown(place.build, 4321, 4322)
    (place.source / "file").chmod(0o600)
    assert run_builder(place.env, user="root").code == 0
    assert (place.archive.stat().st_uid, place.archive.stat().st_gid) == (4321, 4322)


def test_the_first_lines_show_version_and_paths(
    workspace: MakeWorkspace, run_builder: RunBuilder
) -> None:
    place = simple(workspace())
    first = run_builder(place.env).stderr.splitlines()[0]
    assert "version=" in first
    for path in (place.source, place.build, place.cache):
        assert str(path) in first


def test_defaults_are_those_of_the_contract(run_builder: RunBuilder) -> None:
    """No variable at all: the paths of the image, which a plain machine does not have."""
    if Path("/source").exists():
        pytest.skip("this machine has a /source")
    result = run_builder({})
    assert result.code == 1
    assert "ERROR source-path-not-usable" in result.stderr
    for text in ("/source", "/build", "/tmp/cache"):
        assert text in result.stderr


def test_dockerfile_not_found(workspace: MakeWorkspace, run_builder: RunBuilder) -> None:
    place = workspace().write({"docker/Dockerfile": "FROM scratch"})
    result = run_builder(place.env)
    assert result.code == 1
    assert "ERROR dockerfile-not-found: Dockerfile not found" in result.stderr
    assert "PLP_DOCKERFILE=docker/Dockerfile" in result.stderr
    assert list(place.build.iterdir()) == []
    assert result.left_files == ()


def test_directory_is_not_writable(workspace: MakeWorkspace, run_builder: RunBuilder) -> None:
    place = simple(workspace("unprivileged"))
    place.build.chmod(0o555)
    result = run_builder(place.env, user="unprivileged")
    assert result.code == 1
    assert "ERROR build-path-not-writable" in result.stderr
    assert "directory is not writable" in result.stderr


def with_fakes(place: Workspace, **programs: str) -> str:
    """A PATH on which some programs only say something, and fail."""
    directory = place.root / "bin"
    directory.mkdir(mode=0o755)
    for name, says in programs.items():
        (directory / name).write_text(f"#!/bin/sh\necho '{says}' >&2\nexit 1\n")
        (directory / name).chmod(0o755)
    return f"{directory}:{machine.tools('current').path}"


@pytest.mark.parametrize(
    "says",
    ["unshare: unrecognized option --map-root-user", "unshare: unshare failed: Permission denied"],
)
def test_rootlesskit_makes_the_room_that_unshare_cannot_make(
    workspace: MakeWorkspace, run_builder: RunBuilder, says: str
) -> None:
    place = simple(workspace("unprivileged"))
    path = with_fakes(place, unshare=says)
    result = run_builder({**place.env, "PATH": path}, user="unprivileged")
    assert result.code == 0, result.stderr
    assert 'sandbox="process sandbox"' in result.stderr
    assert "without the process sandbox" not in result.stderr
    assert result.left_files == ()


def test_operation_not_permitted(
    workspace: MakeWorkspace, run_builder: RunBuilder, tmp_path: Path
) -> None:
    """Programs that are refused what an engine's default profile refuses."""
    place = simple(workspace("unprivileged"))
    path = with_fakes(
        place,
        unshare="unshare: unshare failed: Operation not permitted",
        rootlesskit="[rootlesskit:parent] error: failed to start the child: fork/exec "
        "/proc/self/exe: operation not permitted",
    )
    result = run_builder({**place.env, "PATH": path}, user="unprivileged")
    assert result.code == 1
    assert "ERROR rootless-not-permitted" in result.stderr
    assert "operation not permitted" in result.stderr
    assert "--security-opt seccomp=unconfined" in result.stderr
    assert result.left_files == ()


def test_a_failed_build_leaves_the_old_archive(
    workspace: MakeWorkspace, run_builder: RunBuilder
) -> None:
    place = simple(workspace())
    assert run_builder(place.env).code == 0
    before = place.archive.read_bytes()
    place.write({"Dockerfile": "FROM scratch\nCOPY missing /\n"})
    result = run_builder(place.env)
    assert result.code == 1
    assert "ERROR build-failed" in result.stderr
    assert place.archive.read_bytes() == before
    assert list(place.build.iterdir()) == [place.archive]


def test_a_machine_reads_one_json_object_a_line(
    workspace: MakeWorkspace, run_builder: RunBuilder
) -> None:
    place = simple(workspace())
    result = run_builder({**place.env, "PLP_LOG_FORMAT": "json"})
    events = [json.loads(line) for line in result.stderr.splitlines()]
    assert events[0]["source"] == str(place.source)
    assert events[-1]["event"] == "build succeeded"
    assert events[-1]["digest"] in place.archive.read_bytes().decode("latin-1")
    place.write({"Dockerfile": "FROM scratch\nNONSENSE\n"})
    result = run_builder({**place.env, "PLP_LOG_FORMAT": "json"})
    last = json.loads(result.stderr.splitlines()[-1])
    assert (last["event"], last["error"], last["exit_code"]) == ("build failed", "build-failed", 1)


def test_nothing_is_written_with_outputs_none(
    workspace: MakeWorkspace, run_builder: RunBuilder
) -> None:
    place = simple(workspace())
    result = run_builder({**place.env, "PLP_OUTPUTS": "none"})
    assert result.code == 0, result.output
    assert list(place.build.iterdir()) == []


def test_a_read_only_source_is_as_it_was(workspace: MakeWorkspace, run_builder: RunBuilder) -> None:
    place = simple(workspace("unprivileged"))
    for path in (*place.source.iterdir(), place.source):
        path.chmod(0o555)
    before = {path.name: path.stat() for path in place.source.iterdir()}
    assert run_builder(place.env, user="unprivileged").code == 0
    after = {path.name: path.stat() for path in place.source.iterdir()}
    assert {name: (s.st_mtime_ns, s.st_ctime_ns) for name, s in before.items()} == {
        name: (s.st_mtime_ns, s.st_ctime_ns) for name, s in after.items()
    }


def test_several_names_and_one_image(workspace: MakeWorkspace, run_builder: RunBuilder) -> None:
    place = simple(workspace())
    names = "registry.example/team/app:1.2,registry.example/team/app:latest"
    assert run_builder({**place.env, "PLP_IMAGE": names}).code == 0
    assert skopeo("inspect", f"oci-archive:{place.archive}")
    tags = subprocess.run(
        ["tar", "-xOf", place.archive, "manifest.json"], check=True, capture_output=True
    ).stdout
    assert json.loads(tags)[0]["RepoTags"] == names.split(",")


def test_secrets_stay_where_they_are_needed(
    workspace: MakeWorkspace, start_builder: StartBuilder
) -> None:
    """Not in any argument list, log, cache or archive, and only in the environment of two."""
    place = workspace()
    busybox = Path(machine.command("busybox")).read_bytes()
    run = '["/bin/busybox", "sh", "-c", "/bin/busybox cat /run/secrets/* && /bin/busybox sleep 1"]'
    mounts = "--mount=type=secret,id=one --mount=type=secret,id=two"
    dockerfile = f"FROM scratch\nCOPY --chmod=755 busybox /bin/busybox\nRUN {mounts} {run}\n"
    place.write({"Dockerfile": dockerfile, "busybox": busybox})
    secret = place.root / "secret"
    secret.write_text("canary-in-a-file")
    place.owner.own(secret)
    env = {
        **place.env,
        "CANARY": "canary-in-a-variable",
        "PLP_SECRETS": f"id=one,env=CANARY\nid=two,src={secret}",
    }
    run_ = start_builder(env)
    holders = set()
    while run_.process.poll() is None:
        for process in run_.tree():
            assert "canary-in" not in process.command
            try:
                held = b"canary-in" in Path(f"/proc/{process.pid}/environ").read_bytes()
            except OSError:
                continue
            if held:
                holders.add(process.command.split()[0].rpartition("/")[2])
        time.sleep(0.02)
    result = run_.wait()
    assert result.code == 0, result.output
    assert "canary-in" not in result.output
    assert holders <= {"python", "python3", "buildctl", "setpriv"}
    found = subprocess.run(
        ["grep", "-rl", "canary-in", place.build, place.cache], capture_output=True, check=False
    )
    assert found.stdout == b""


@pytest.mark.parametrize(
    ("setting", "name"),
    [
        ({"PLP_SECRETS": "id=x,env=NOT_SET"}, "ERROR setting-invalid"),
        ({"PLP_SECRETS": "id=x,src=/no/such/file"}, "ERROR secret-not-usable"),
        ({"PLP_SSH": "default=/no/such/key"}, "ERROR ssh-not-usable"),
        ({"PLP_BUILD_CONTEXTS": "other=/no/such/directory"}, "ERROR build-context-not-usable"),
        ({"PLP_BUILDKITD_CONFIG": "/no/such/file"}, "ERROR setting-invalid"),
        ({"PLP_PROVENANCE": "max"}, "ERROR setting-not-implemented"),
        ({"PLP_TIMEOUT": "soon"}, "ERROR setting-invalid"),
    ],
)
def test_what_cannot_be_used_is_refused_before_the_daemon_starts(
    setting: dict[str, str], name: str, workspace: MakeWorkspace, run_builder: RunBuilder
) -> None:
    place = simple(workspace("unprivileged"))
    started = place.root / "started"
    fake = place.root / "bin" / "buildkitd"
    fake.parent.mkdir(mode=0o755)
    fake.write_text(f"#!/bin/sh\n: > {started}\nexit 1\n")
    fake.chmod(0o755)
    env = {**place.env, "PATH": f"{fake.parent}:{machine.tools('current').path}"}
    result = run_builder({**env, **setting}, user="unprivileged")
    assert result.code == 1
    assert name in result.stderr
    assert result.left_files == ()
    assert not started.exists()
    assert "ERROR daemon-died" in run_builder(env, user="unprivileged").stderr
    assert started.exists()


def test_a_misspelt_name_is_told_beside_a_value_that_cannot_be_used(
    workspace: MakeWorkspace, run_builder: RunBuilder
) -> None:
    place = simple(workspace())
    result = run_builder({**place.env, "PLP_TIMEOUT": "soon", "PLP_TARGTE": "x"})
    assert result.code == 1
    assert "ERROR setting-invalid" in result.stderr
    assert "PLP_TARGTE is unknown; did you mean PLP_TARGET?" in result.stderr


def test_an_offline_build_names_the_image_that_is_not_at_hand(
    workspace: MakeWorkspace, run_builder: RunBuilder
) -> None:
    place = workspace().write({"Dockerfile": "FROM registry.example/base:1\nRUN true\n"})
    result = run_builder({**place.env, "PLP_OFFLINE": "true"})
    assert result.code == 1
    assert "ERROR base-image-not-available" in result.stderr
    assert "registry.example/base:1" in result.stderr


def test_commands_beside_the_build(run_builder: RunBuilder) -> None:
    usage = run_builder({}, arguments=("--help",))
    assert usage.code == 0
    assert "PLP_SOURCE_PATH" in usage.stdout
    version = run_builder({}, arguments=("--version",))
    assert version.stdout.splitlines()[1:] == ["BuildKit 0.32.2", "RootlessKit 3.0.1"]
    assert run_builder({}, arguments=("no-such-command",)).code == 1
