"""Builds where something around them is missing, full or broken."""

from __future__ import annotations

import os
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

from scripts.set_up.step import ROOT
from tests.support import image, machine
from tests.support.builder import MakeWorkspace, RunBuilder, StartBuilder, Workspace
from tests.support.processes import until

BROKEN = """
import sys
from plp_builder import settings
from plp_builder.__main__ import main

def broken(environ):
    raise LookupError("nobody thought of this")

settings.load = broken
sys.exit(main([]))
"""


def test_an_unexpected_error_is_told_like_any_other(workspace: MakeWorkspace) -> None:
    """One block at the end with the next step; the traceback stands above it."""
    done = subprocess.run(
        [sys.executable, "-c", BROKEN],
        cwd=ROOT,
        env={**os.environ, **workspace("root").env, "PATH": machine.tools("current").path},
        capture_output=True,
        text=True,
        timeout=60,
        check=False,
    )
    assert done.returncode == 1
    log, _, block = done.stderr.partition("ERROR internal-error:")
    assert "Traceback" in log
    assert "LookupError: nobody thought of this" in block
    assert "report it" in block
    assert "Traceback" not in block


@pytest.fixture
def full(workspace: MakeWorkspace) -> Iterator[Workspace]:
    """A workspace whose cache is on a file system of 300 kB."""
    place = workspace("unprivileged")
    options = f"size=300k,uid={place.owner.uid},mode=755"
    mount = ["mount", "-t", "tmpfs", "-o", options, "tmpfs", str(place.cache)]
    if subprocess.run(mount, capture_output=True, check=False).returncode:
        machine.missing("the right to mount a file system")
    yield place
    subprocess.run(["umount", "--lazy", place.cache], check=True)


def test_a_full_cache_costs_a_warning_and_not_the_archive(
    full: Workspace, run_builder: RunBuilder
) -> None:
    data = os.urandom(1_000_000)
    full.write({"Dockerfile": "FROM scratch\nCOPY data /\n", "data": data})
    result = run_builder(full.env)
    assert result.code == 0, result.output
    assert "BuildKit could not write its cache" in result.stderr
    assert image.read(full.archive).files["data"] == data
    assert [path.name for path in (full.cache / "buildkit").iterdir()] == [".lock"]
    assert list(full.build.iterdir()) == [full.archive]


@pytest.mark.parametrize(
    ("strategy", "said"),
    [
        # buildctl, which writes the export's index, fails: the build is solved once more.
        ("portable", "BuildKit could not write its cache"),
        # The export is with the image, which is there already.
        ("auto", "This build could not be kept in the cache"),
    ],
)
def test_a_cache_that_breaks_while_it_is_written_costs_no_archive(
    workspace: MakeWorkspace, start_builder: StartBuilder, strategy: str, said: str
) -> None:
    place = workspace()
    busybox = Path(machine.command("busybox")).read_bytes()
    run = '["/bin/busybox", "sh", "-c", "/bin/busybox sleep 1; echo done > /done"]'
    dockerfile = f"FROM scratch\nCOPY --chmod=755 busybox /bin/busybox\nRUN {run}\n"
    place.write({"Dockerfile": dockerfile, "busybox": busybox})
    started = start_builder({**place.env, "PLP_CACHE_STRATEGY": strategy})
    found = until(lambda: list((place.cache / "buildkit").glob(".staging-*/blobs")), 30)
    obstacle = found[0].with_name("index.json")
    obstacle.mkdir()
    place.owner.own(obstacle)
    result = started.wait()
    assert result.code == 0, result.output
    assert said in result.stderr
    assert image.read(place.archive).text("done") == "done\n"
    assert not list((place.cache / "buildkit").glob(".staging-*"))


def test_a_key_that_buildctl_cannot_be_told_is_refused_by_name(
    workspace: MakeWorkspace, run_builder: RunBuilder
) -> None:
    """A relative key's path has a comma only because the source's has."""
    place = workspace()
    source = place.source / "a, b"
    files = {"a, b/Dockerfile": "FROM scratch\n", "a, b/key": "-----BEGIN PRIVATE KEY-----\n"}
    place.write(files)
    result = run_builder({**place.env, "PLP_SOURCE_PATH": str(source), "PLP_SSH": "default=key"})
    assert result.code == 1
    assert "ERROR setting-invalid" in result.stderr
    assert "PLP_SSH: BuildKit cannot take the path" in result.stderr


def test_names_that_an_archive_cannot_hold_are_told(
    workspace: MakeWorkspace, run_builder: RunBuilder
) -> None:
    place = workspace().write({"Dockerfile": "FROM scratch\nCOPY Dockerfile /\n"})
    names = {"PLP_IMAGE": "example.com/app:1,example.com/app:2", "PLP_ARCHIVE_FORMAT": "oci"}
    result = run_builder({**place.env, **names})
    assert result.code == 0, result.output
    assert "only the first name is inside the archive" in result.stderr


def test_a_build_without_tools_names_what_is_missing(
    workspace: MakeWorkspace, run_builder: RunBuilder
) -> None:
    """But a mistake in the settings, which is nearer to the user, comes first."""
    place = workspace().write({"Dockerfile": "FROM scratch\nCOPY Dockerfile /\n"})
    env = {**place.env, "PATH": "/usr/bin:/bin"}
    result = run_builder(env)
    assert result.code == 1
    assert "ERROR tool-not-found:" in result.stderr
    assert "buildkitd" in result.stderr
    assert result.left_files == ()
    assert "ERROR setting-invalid:" in run_builder({**env, "PLP_PULL": "maybe"}).stderr


def test_versions_where_there_are_no_tools(run_builder: RunBuilder) -> None:
    said = run_builder({"PATH": "/nowhere"}, arguments=("--version",))
    assert said.code == 0
    assert said.stdout.splitlines()[1:] == ["BuildKit not found", "RootlessKit not found"]


def fake_rootlesskit(place: Workspace, script: str) -> dict[str, str]:
    """The workspace's variables with a rootlesskit that is this shell script."""
    program = place.root / "bin" / "rootlesskit"
    program.parent.mkdir(mode=0o755)
    program.write_text(f"#!/bin/sh\n{script}\n")
    program.chmod(0o755)
    return {**place.env, "PATH": f"{program.parent}:{machine.tools('current').path}"}


@pytest.mark.parametrize(
    ("script", "code", "lines"),
    [
        ("exit 3", 1, ("failed   rootlesskit", "exit code 3")),
        (
            'case "$*" in *mount-proc*) echo "no procfs for you" >&2; exit 1;; esac',
            0,
            ("ok       rootlesskit", "warning  sandbox trial", "no procfs for you"),
        ),
    ],
)
def test_the_doctor_tells_what_rootlesskit_says(
    script: str,
    code: int,
    lines: tuple[str, ...],
    workspace: MakeWorkspace,
    run_builder: RunBuilder,
) -> None:
    place = workspace().write({"Dockerfile": "FROM scratch\n"})
    result = run_builder(fake_rootlesskit(place, script), arguments=("doctor",))
    assert result.code == code, result.output
    assert all(line in result.stdout for line in lines), result.stdout


def test_the_doctor_asks_only_for_what_is_used(
    workspace: MakeWorkspace, run_builder: RunBuilder
) -> None:
    """No Dockerfile is looked for in a source that is not there; no cache where it is off."""
    place = workspace()
    place.source.rmdir()
    secret = place.root / "secret"
    secret.write_text("s")
    place.owner.own(secret)
    env = {
        **place.env,
        "PLP_CACHE_STRATEGY": "off",
        "PLP_SECRETS": f"id=one,src={secret}",
        "TMPDIR": "/no/such/directory",
    }
    result = run_builder(env, arguments=("doctor",))
    assert result.code == 1
    found = {line[9:].split("  ")[0]: line.split()[0] for line in result.stdout.splitlines()[:-2]}
    assert found["source path"] == "failed"
    assert found["secrets and contexts"] == "ok"
    assert found["rootlesskit"] == "ok"
    assert not {"Dockerfile", "cache path"} & found.keys()
