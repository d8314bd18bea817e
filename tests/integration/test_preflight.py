"""What the checks say where it counts: other users' files, real mounts, real refusals."""

from __future__ import annotations

import os
import socket
import subprocess
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path

import pytest

from tests.support import machine
from tests.support.builder import MakeWorkspace, Result, RunBuilder, Workspace
from tests.support.machine import Tools

FROM = "FROM scratch\nCOPY Dockerfile /\n"
AS_ROOT = pytest.mark.skipif(os.geteuid() != 0, reason="needs root to make what another user owns")


def refused(result: Result, name: str, *texts: str) -> None:
    assert result.code == 1, result.output
    assert f"ERROR {name}:" in result.output
    for text in texts:
        assert text in result.output
    assert "Traceback" not in result.output
    assert result.left_processes == ()
    assert result.left_files == ()
    assert not result.archive.exists()


@contextmanager
def tmpfs(path: Path, options: str) -> Iterator[None]:
    """A file system of its own at ``path``; remounted with ``options`` once it is there."""
    subprocess.run(["mount", "-t", "tmpfs", "-o", options, "tmpfs", path], check=True)
    try:
        yield
    finally:
        subprocess.run(["umount", "--lazy", path], check=True)


@pytest.fixture
def place(workspace: MakeWorkspace) -> Workspace:
    return workspace("unprivileged").write({"Dockerfile": FROM})


@AS_ROOT
@pytest.mark.parametrize(
    ("name", "error", "text"),
    [
        ("source", "source-path-not-usable", "permission denied"),
        ("source/Dockerfile", "dockerfile-not-usable", "permission denied"),
        ("build", "build-path-not-writable", "directory is not writable"),
    ],
)
def test_what_belongs_to_root(
    place: Workspace, run_builder: RunBuilder, name: str, error: str, text: str
) -> None:
    path = place.root / name
    os.chown(path, 0, 0)
    path.chmod(0o700 if path.is_dir() else 0o600)
    refused(run_builder(place.env), error, text, "uid")


@AS_ROOT
def test_a_closed_cache_costs_a_warning(place: Workspace, run_builder: RunBuilder) -> None:
    os.chown(place.cache, 0, 0)
    place.cache.chmod(0o500)
    result = run_builder(place.env)
    assert result.code == 0, result.output
    assert "keeps no cache" in result.output


@AS_ROOT
@pytest.mark.parametrize("user", ["root", "unprivileged"])
def test_a_read_only_source_is_enough(
    workspace: MakeWorkspace, run_builder: RunBuilder, user: str
) -> None:
    place = workspace(user)
    with tmpfs(place.source, "mode=0755"):
        place.write({"Dockerfile": FROM})
        subprocess.run(["mount", "-o", "remount,ro", place.source], check=True)
        assert run_builder(place.env, user=user).code == 0


@AS_ROOT
@pytest.mark.parametrize("user", ["root", "unprivileged"])
def test_a_read_only_build_path(
    workspace: MakeWorkspace, run_builder: RunBuilder, user: str
) -> None:
    place = workspace(user).write({"Dockerfile": FROM})
    with tmpfs(place.build, "ro,mode=0777"):
        result = run_builder(place.env, user=user)
        refused(result, "build-path-not-writable", "directory is not writable", ":ro")


@AS_ROOT
def test_a_full_build_path(place: Workspace, run_builder: RunBuilder) -> None:
    with tmpfs(place.build, "size=4k,mode=0777"):
        (place.build / "filler").write_bytes(bytes(4096))
        result = run_builder(place.env)
        refused(result, "build-path-not-writable", "no space left on device")


@pytest.mark.parametrize("kind", ["fifo", "socket", "directory", "loop", "outside", "nothing"])
def test_what_is_no_dockerfile(place: Workspace, run_builder: RunBuilder, kind: str) -> None:
    path = place.source / "Dockerfile"
    path.unlink()
    with socket.socket(socket.AF_UNIX) as listener:
        if kind == "fifo":
            os.mkfifo(path)
        elif kind == "socket":
            listener.bind(str(path))
        elif kind == "directory":
            path.mkdir()
        elif kind == "loop":
            path.symlink_to("Dockerfile")
        elif kind == "outside":
            (place.root / "Dockerfile").write_text(FROM)
            path.symlink_to("../Dockerfile")
        result = run_builder(place.env, timeout=30)
    if kind == "nothing":
        refused(result, "dockerfile-not-found", "Dockerfile not found")
    else:
        refused(result, "dockerfile-not-usable")


@AS_ROOT
def test_the_environment_is_refused_in_words(place: Workspace, tools: Mapping[str, Tools]) -> None:
    """no-new-privileges, for real: newuidmap could not set ids."""
    user = machine.user("unprivileged")
    python, source = machine.shared_python(), machine.shared_source()
    ids = (f"--reuid={user.uid}", f"--regid={user.gid}", "--clear-groups")
    done = subprocess.run(
        ["setpriv", *ids, "--no-new-privs", python, "-m", "plp_builder"],
        check=False,
        cwd=source,
        env={**place.env, "PATH": tools["current"].path, "HOME": str(place.root)},
        capture_output=True,
        text=True,
        timeout=60,
    )
    assert done.returncode == 1
    assert "ERROR rootless-not-permitted:" in done.stderr
    assert "operation not permitted" in done.stderr
    assert "no-new-privileges" in done.stderr


def doctor(run: RunBuilder, env: Mapping[str, str | None], user: str) -> Result:
    return run(env, user=user, arguments=("doctor",), timeout=60)


@pytest.mark.parametrize("user", ["root", "unprivileged"])
def test_the_doctor_finds_all_well(
    workspace: MakeWorkspace, run_builder: RunBuilder, user: str
) -> None:
    place = workspace(user).write({"Dockerfile": FROM})
    place.cache.rmdir()
    result = doctor(run_builder, place.env, user)
    assert result.code == 0, result.output
    assert not place.cache.exists()
    lines = {
        line[9:].split("  ")[0]: line.split()[0] for line in result.stdout.splitlines() if line
    }
    assert lines["source path"] == lines["Dockerfile"] == lines["build path"] == "ok"
    assert lines["rootlesskit"] == "ok"
    assert "failed" not in lines.values()
    assert list(place.build.iterdir()) == []
    assert result.left_processes == ()
    assert result.left_files == ()


def test_the_doctor_names_everything_at_once(place: Workspace, run_builder: RunBuilder) -> None:
    (place.source / "Dockerfile").rename(place.source / "Containerfile")
    place.build.rmdir()
    env = {
        **place.env,
        "PLP_CACHE_PATH": "cache",
        "PLP_SORCE": "x",
        "PLP_SECRETS": "id=a,src=/none/a",
    }
    result = doctor(run_builder, env, "unprivileged")
    assert result.code == 1
    for text in (
        "Dockerfile not found",
        "set PLP_DOCKERFILE=Containerfile",
        "PLP_BUILD_PATH",
        "PLP_CACHE_PATH cache is not an absolute path",
        "PLP_SOURCE_PATH?",
        "secret a",
    ):
        assert text in result.stdout


def test_the_doctor_names_settings_that_cannot_be_used(
    place: Workspace, run_builder: RunBuilder
) -> None:
    """They hide nothing of what else can be checked."""
    place.build.rmdir()
    env = {**place.env, "PLP_PULL": "maybe", "PLP_SSH": "a b="}
    result = doctor(run_builder, env, "unprivileged")
    assert result.code == 1
    assert "PLP_PULL" in result.stdout
    assert f" {place.source}/Dockerfile\n" in result.stdout
    assert "failed   build path" in result.stdout
    assert "space at build path" not in result.stdout


def test_the_doctor_without_any_tool(place: Workspace, run_builder: RunBuilder) -> None:
    env = {**place.env, "PATH": "/usr/bin:/bin"}
    result = doctor(run_builder, env, "unprivileged")
    assert result.code == 1
    for tool in ("buildkitd", "buildctl", "rootlesskit"):
        assert f"{tool} was not found on PATH" in result.stdout


@AS_ROOT
@pytest.mark.parametrize(
    ("prefix", "line", "code"),
    [
        (("unshare", "--mount", "sh", "-c", 'mount -t tmpfs x /proc/bus; exec "$@"', "sh"),
         "warning  sandbox trial", 0),
        (("setpriv", "--bounding-set=-sys_admin"), "failed   rootlesskit", 1),
        (("setpriv", "--no-new-privs"), "warning  daemon user", 0),
    ],
)  # fmt: skip
def test_the_doctor_tries_what_only_the_kernel_knows(
    place: Workspace, tools: Mapping[str, Tools], prefix: tuple[str, ...], line: str, code: int
) -> None:
    """A masked /proc, a newuidmap without its capability, no-new-privileges."""
    done = subprocess.run(
        [*prefix, machine.shared_python(), "-m", "plp_builder", "doctor"],
        check=False,
        cwd=machine.shared_source(),
        env={**place.env, "PATH": tools["current"].path, "HOME": str(place.root)},
        capture_output=True,
        text=True,
        timeout=60,
    )
    assert done.returncode == code, done.stdout + done.stderr
    assert line in done.stdout


@AS_ROOT
@pytest.mark.parametrize("kind", ["directory", "below", "link", "volume"])
def test_a_cache_that_another_user_made_in_tmp(
    workspace: MakeWorkspace, run_builder: RunBuilder, kind: str
) -> None:
    """Only a volume that somebody mounted there is used, whoever owns it."""
    place = workspace("root").write({"Dockerfile": FROM})
    stranger = machine.user("unprivileged")
    shared = place.root / "shared"
    shared.mkdir()
    shared.chmod(0o1777)
    cache = shared / "cache"
    if kind == "link":
        target = place.root / "theirs"
        target.mkdir()
        cache.symlink_to(target)
        os.lchown(cache, stranger.uid, stranger.uid)
    else:
        cache.mkdir()
        os.chown(cache, stranger.uid, stranger.uid)
    env = {**place.env, "PLP_CACHE_PATH": f"{cache}/x" if kind == "below" else str(cache)}
    if kind == "volume":
        with tmpfs(cache, f"mode=0755,uid={stranger.uid}"):
            result = run_builder(env, user="root")
            assert (cache / "buildkit").is_dir()
    else:
        result = run_builder(env, user="root")
        assert list(cache.iterdir()) == []
    assert result.code == 0, result.output
    assert (f"belongs to uid {stranger.uid}" in result.output) is (kind != "volume")
