"""Programs that never wait for the disk, on the real kernel."""

from __future__ import annotations

import os
import re
import signal
import subprocess
import sys
from pathlib import Path

import pytest

from plp_builder.buildkit import nosync
from plp_builder.buildkit.room import Room, preparation, wrapper
from plp_builder.buildkit.runtime import Runtime
from plp_builder.buildkit.sandbox import Sandbox
from plp_builder.process import Stop, Watch, fork
from plp_builder.users import User
from scripts.set_up.step import ROOT
from tests.support import machine
from tests.support.builder import MakeWorkspace, RunBuilder, StartBuilder

SLEEPS = 'RUN ["/busybox", "sh", "-c", "echo asleep; /busybox sleep 99"]\n'
UNSHARE_REFUSED = "#!/bin/sh\necho 'unshare: unshare failed: Operation not permitted' >&2\nexit 1\n"
SCRIPT = [sys.executable, "-I", "-S", nosync.__file__]
ASKS = "import os; os.fsync(os.pipe()[0]); os.sync(); os.write(2, b'answered')"
"""fsync(2) of a pipe is EINVAL, if the kernel is asked."""


def filters(pid: int) -> int:
    """How many seccomp filters a process has (proc_pid_status(5), Linux 5.9)."""
    (line,) = re.findall(r"Seccomp_filters:\t(\d+)", Path(f"/proc/{pid}/status").read_text())
    return int(line)


def run(*words: str) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        [*SCRIPT, *words], capture_output=True, text=True, timeout=60, check=False
    )


def test_the_question_fails_without_the_filter() -> None:
    done = subprocess.run([sys.executable, "-c", ASKS], capture_output=True, check=False)
    assert b"Invalid argument" in done.stderr


@pytest.mark.skipif(os.geteuid() != 0, reason="a filter takes root or a user namespace")
def test_syncing_succeeds_at_once() -> None:
    done = run(sys.executable, "-c", ASKS)
    assert done.stderr == "answered"


@pytest.mark.skipif(os.geteuid() != 0, reason="a filter takes root or a user namespace")
def test_the_daemon_of_root_preparations(tmp_path: Path) -> None:
    """As the wrapper is started: the filter comes before another user's identity."""
    owner = User("nobody", 65534, 65534, "/")
    for user in (None, owner):
        room = Room(Runtime(str(tmp_path), str(tmp_path)), user, Sandbox.ROOT)
        child = fork(
            ["/usr/bin/python3", "-c", ASKS],
            preparation(room),
            env=dict(os.environ),
            stdin=0,
            user=user,
        )
        assert child.stderr.read() == b"answered"
        with Watch(Stop()) as watch:
            assert watch.end(child, grace=60) == 0
        child.close()


def test_a_room_of_another_user_takes_care_itself(tmp_path: Path) -> None:
    room = Room(Runtime(str(tmp_path), str(tmp_path)), None, Sandbox.PROCESS, by_root=False)
    assert preparation(room) is None
    assert nosync.__file__ in wrapper(room)
    assert nosync.__file__ not in wrapper(room._replace(by_root=True))


def test_where_the_filter_is_refused_the_program_runs_all_the_same() -> None:
    drop = [] if os.geteuid() else ["setpriv", "--bounding-set=-all", "--inh-caps=-all"]
    user = ["--reuid=65534", "--clear-groups"] if os.geteuid() == 0 else []
    shared = Path("/usr/bin/python3")
    if not shared.exists():
        pytest.skip("needs a Python that every user can run")
    script = Path(nosync.__file__).read_text()
    words = [*drop, *user, str(shared), "-I", "-S", "-c", script, "echo", "ran"]
    done = subprocess.run(words, capture_output=True, text=True, timeout=60, check=False)
    assert done.stdout == "ran\n", done.stderr


TELLS = """
import os
from plp_builder.buildkit import nosync
print(nosync.install("vax"), nosync.install(os.uname().machine))
"""


@pytest.mark.skipif(os.geteuid() != 0, reason="a filter takes root or a user namespace")
def test_it_tells_whether_it_worked() -> None:
    done = subprocess.run(
        [sys.executable, "-c", TELLS], capture_output=True, cwd=ROOT, check=False, text=True
    )
    assert done.stdout.split() == ["False", "True"], done.stderr


def refusing_unshare(root: Path) -> Path:
    """A directory for PATH in which unshare is refused, as where AppArmor restricts it."""
    fake = root / "bin" / "unshare"
    fake.parent.mkdir(mode=0o755)
    fake.write_text(UNSHARE_REFUSED)
    fake.chmod(0o755)
    return fake.parent


def test_only_rootlesskit_can_remove_what_subordinate_ids_own(
    workspace: MakeWorkspace, run_builder: RunBuilder
) -> None:
    place = workspace("unprivileged")
    place.write({"Dockerfile": "FROM scratch\nCOPY --chown=5:5 directory /\n"})
    place.write({"directory/below/file": "text"})
    path = f"{refusing_unshare(place.root)}:{machine.tools('current').path}"
    env = {**place.env, "PATH": path, "PLP_CACHE_STRATEGY": "off"}
    done = run_builder(env, user="unprivileged")
    assert done.code == 0, done.output
    assert done.left_files == ()


@pytest.mark.parametrize("user", ["root", "unprivileged"])
@pytest.mark.parametrize("by", ["unshare", "rootlesskit"])
def test_whoever_starts_a_daemon_and_however_it_never_syncs(
    user: str, by: str, workspace: MakeWorkspace, start_builder: StartBuilder
) -> None:
    place = workspace(user)
    place.write({"Dockerfile": "FROM scratch\nCOPY busybox /\n" + SLEEPS})
    place.write({"busybox": Path(machine.command("busybox")).read_bytes()})
    (place.source / "busybox").chmod(0o755)
    path = machine.tools("current").path
    if by == "rootlesskit":
        path = f"{refusing_unshare(place.root)}:{path}"
    run = start_builder({**place.env, "PATH": path}, user=user)
    run.wait_for("asleep")
    found = {Path(process.command.split()[0]).name: process.pid for process in run.tree()}
    assert ("rootlesskit" in found) == (by == "rootlesskit"), found
    assert filters(found["buildkitd"]) == filters(os.getpid()) + 1
    run.send(signal.SIGTERM)
    assert run.wait().left_processes == ()
