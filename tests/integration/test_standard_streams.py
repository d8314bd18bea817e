"""Standard streams that are closed, full, or that nobody reads."""

from __future__ import annotations

import os
import subprocess
import sys
import time
from pathlib import Path

import pytest

from scripts.set_up.step import ROOT
from tests.support import builder, machine
from tests.support.builder import MakeWorkspace, Workspace

PATIENCE = 60.0


def command(place: Workspace, *arguments: str) -> tuple[list[str], dict[str, str]]:
    """The builder as the tests' own user, and its environment."""
    user = machine.user("root" if os.geteuid() == 0 else "unprivileged")
    home = place.root / "home"
    (home / "tmp").mkdir(parents=True)
    env = builder.environment(place.env, machine.tools("current"), user, home)
    return [sys.executable, "-m", "plp_builder", *arguments], env


def simple(workspace: MakeWorkspace) -> Workspace:
    user = "root" if os.geteuid() == 0 else "unprivileged"
    place = workspace(user)
    return place.write({"Dockerfile": "FROM scratch\nCOPY file /\n", "file": "x"})


@pytest.mark.parametrize("closed", ["<&-", ">&-", "2>&-", "<&- >&- 2>&-"])
def test_a_build_does_not_need_any_of_them(closed: str, workspace: MakeWorkspace) -> None:
    """And nothing but the archive gets into the archive."""
    place = simple(workspace)
    words, env = command(place)
    shell = ["sh", "-c", f'"$0" "$@" {closed}', *words]
    done = subprocess.run(shell, cwd=ROOT, env=env, timeout=PATIENCE, check=False)
    assert done.returncode == 0
    skopeo = [machine.command("skopeo"), "inspect", f"oci-archive:{place.archive}"]
    subprocess.run(skopeo, check=True, capture_output=True, timeout=PATIENCE)


def test_a_build_whose_reader_goes_away_succeeds(workspace: MakeWorkspace) -> None:
    place = simple(workspace)
    words, env = command(place)
    shell = ["sh", "-c", '{ "$0" "$@" 2>&1; echo $? >code; } | true', *words]
    env["PYTHONPATH"] = str(ROOT)
    subprocess.run(shell, cwd=place.root, env=env, timeout=PATIENCE, check=True)
    assert (place.root / "code").read_text() == "0\n"


def test_a_reader_that_has_seen_enough_of_the_help_hears_no_complaint(
    workspace: MakeWorkspace,
) -> None:
    words, env = command(simple(workspace), "--help")
    reading, writing = os.pipe()
    os.close(reading)
    try:
        done = subprocess.run(
            words, cwd=ROOT, env=env, stdout=writing, stderr=subprocess.PIPE, check=False
        )
    finally:
        os.close(writing)
    assert (done.returncode, done.stderr) == (1, b"")


def test_what_was_asked_for_and_could_not_be_written_is_a_failure(
    workspace: MakeWorkspace,
) -> None:
    words, env = command(simple(workspace), "--help")
    with Path("/dev/full").open("wb") as full:
        done = subprocess.run(
            words, cwd=ROOT, env=env, stdout=full, stderr=subprocess.PIPE, check=False
        )
    assert (done.returncode, done.stderr) == (1, b"")


def test_sigterm_does_not_wait_for_a_reader(workspace: MakeWorkspace) -> None:
    """The log collector has stalled: its pipe is full."""
    place = simple(workspace)
    busybox = Path(machine.command("busybox")).read_bytes()
    flood = 'RUN ["/bin/busybox", "sh", "-c", "/bin/busybox yes floods"]\n'
    dockerfile = f"FROM scratch\nCOPY --chmod=755 busybox /bin/busybox\n{flood}"
    place.write({"Dockerfile": dockerfile, "busybox": busybox})
    words, env = command(place)
    reader, writer = os.pipe()
    process = subprocess.Popen(words, cwd=ROOT, env=env, stderr=writer)
    os.close(writer)
    try:
        end = time.monotonic() + PATIENCE
        state = Path(f"/proc/{process.pid}/wchan")
        while "pipe_write" not in state.read_text():
            assert time.monotonic() < end, "the pipe never ran full"
            time.sleep(0.05)
        process.terminate()
        assert process.wait(PATIENCE) == 143
    finally:
        os.close(reader)
        process.kill()
        process.wait()
