"""Real children, some of them badly behaved."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path

import pytest

from plp_builder import process, streams, users
from plp_builder.buildkit import leftovers
from plp_builder.errors import Interrupted, Terminated, TimedOut, ToolNotFound
from tests.support.stops import python

ENV = {"PATH": os.environ["PATH"]}
PATIENCE = 30.0


@pytest.fixture
def watch(stop: process.Stop) -> Iterator[process.Watch]:
    with process.Watch(stop) as watch:
        yield watch


def shell(script: str, *arguments: str | Path) -> process.Child:
    return process.start(
        ["sh", "-c", script, "sh", *map(str, arguments)],
        env=ENV,
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
    )


def wait_for(path: Path) -> None:
    """Until a child has written its marker: then its traps are set."""
    end = time.monotonic() + PATIENCE
    while not path.exists():
        assert time.monotonic() < end, f"{path} never came"
        time.sleep(0.005)


def test_output_is_delivered_and_the_end_is_seen(watch: process.Watch) -> None:
    child = shell("echo one; printf two; exit 3")
    found: list[bytes] = []
    lines = streams.Lines(found.append)
    watch.reads(child.stdout, lines)
    watch.exits(child, lambda: None)
    assert watch.until(lambda: lines.ended and child.poll() is not None, seconds=PATIENCE)
    assert (found, child.poll()) == ([b"one", b"two"], 3)
    child.close()


def test_a_flood_of_output_is_read_without_being_kept(watch: process.Watch) -> None:
    child = shell("head -c 50000000 /dev/zero | tr '\\0' x; echo; echo last")
    tail = streams.Tail(lines=2, width=10)
    lines = streams.Lines(tail, limit=1000)
    watch.reads(child.stdout, lines)
    assert watch.until(lambda: lines.ended, seconds=PATIENCE)
    assert tail.text() == ["x" * 10, "last"]
    assert watch.end(child, grace=PATIENCE) == 0
    child.close()


def test_a_child_that_obeys_ends_by_sigterm(watch: process.Watch, tmp_path: Path) -> None:
    child = shell('trap "exit 7" TERM; : > "$1"; while :; do sleep 0.05; done', tmp_path / "up")
    wait_for(tmp_path / "up")
    assert watch.end(child, grace=PATIENCE) == 7
    child.close()


def test_a_child_that_ignores_sigterm_is_killed(watch: process.Watch, tmp_path: Path) -> None:
    child = shell('trap "" TERM; : > "$1"; while :; do sleep 0.05; done', tmp_path / "up")
    wait_for(tmp_path / "up")
    assert watch.end(child, grace=0.2) == -signal.SIGKILL
    child.close()


def test_who_asks_twice_waits_for_no_grace(
    stop: process.Stop, watch: process.Watch, tmp_path: Path
) -> None:
    child = shell('trap "" TERM; : > "$1"; while :; do sleep 0.05; done', tmp_path / "up")
    wait_for(tmp_path / "up")
    for _ in range(2):
        os.kill(os.getpid(), signal.SIGTERM)
    assert stop.impatient
    assert watch.end(child, grace=100 * PATIENCE) == -signal.SIGKILL
    child.close()


@pytest.mark.parametrize(
    ("number", "failure", "code"),
    [(signal.SIGTERM, Terminated, 143), (signal.SIGINT, Interrupted, 130)],
)
def test_a_signal_wakes_a_waiting_watch(
    watch: process.Watch, number: int, failure: type[Terminated], code: int
) -> None:
    child = shell("sleep 0.2; kill -$1 $PPID; exec sleep 1000", str(number))
    with pytest.raises(failure) as caught:
        watch.until(lambda: False, seconds=PATIENCE)
    assert caught.value.exit_code == code
    watch.end(child, grace=0)
    child.close()


def test_the_deadline_wakes_a_waiting_watch(stop: process.Stop, watch: process.Watch) -> None:
    stop.limit(0.1)
    with pytest.raises(TimedOut, match="PLP_TIMEOUT"):
        watch.until(lambda: False, seconds=PATIENCE)


def test_cleaning_up_goes_on_after_a_stop(stop: process.Stop, watch: process.Watch) -> None:
    os.kill(os.getpid(), signal.SIGTERM)
    assert watch.until(lambda: False, seconds=0.1, stoppable=False) is False
    with pytest.raises(Terminated):
        stop.check()


def test_ticks_come_while_nothing_happens(watch: process.Watch) -> None:
    ticks: list[None] = []
    assert watch.until(
        lambda: len(ticks) == 3, tick=lambda: ticks.append(None), interval=0.01, seconds=PATIENCE
    )


def test_no_child_outlives_us(tmp_path: Path) -> None:
    """Killed by SIGKILL, we cannot clean up: the kernel does."""
    program = f"""
import os, sys
sys.path[:0] = {sys.path!r}
from pathlib import Path
from plp_builder import process
child = process.start(["sh", "-c", "echo; exec sleep 1000"], env=dict(os.environ), stdout=-1)
child.stdout.readline()
Path({str(tmp_path / "pid")!r}).write_text(str(child.pid))
os.kill(os.getpid(), 9)
"""
    subprocess.run([sys.executable, "-c", program], check=False, timeout=PATIENCE)
    pid = int((tmp_path / "pid").read_text())
    end = time.monotonic() + PATIENCE
    while pid in leftovers.parents():
        assert time.monotonic() < end
        time.sleep(0.01)


@pytest.mark.parametrize("stage", ["before", "at"])
def test_what_goes_wrong_in_a_forked_process_is_said_there(stage: str, tmp_path: Path) -> None:
    """Before it becomes a program, and when it is to become one."""
    setpriv = tmp_path / "setpriv"
    setpriv.write_text("no program")
    setpriv.chmod(0o755)

    def prepare() -> None:
        if stage == "before":
            raise OSError("it broke")

    env = {"PATH": os.defpath if stage == "before" else f"{tmp_path}:{os.defpath}"}
    with process.Watch(process.Stop()) as watch:
        child = process.fork(["sh"], prepare, env=env, stdin=0)
        said = child.stderr.read().decode()
        assert watch.end(child, grace=PATIENCE) == 127
        child.close()
    assert ("it broke" if stage == "before" else "Exec format error") in said


def test_the_end_of_a_forked_process_that_the_kernel_forgets_is_seen() -> None:
    """As for whoever was started with SIGCHLD ignored."""
    program = """
import signal
from plp_builder import process
signal.signal(signal.SIGCHLD, signal.SIG_IGN)
waits, lets = os.pipe()
child = process.fork(["sh", "-c", "read line"], None, env=dict(os.environ), stdin=waits)
os.close(waits)
os.close(lets)
child.stderr.read()
with process.Watch(process.Stop()) as watch:
    print(watch.end(child, grace=60))
"""
    assert python(program).stdout == b"0\n"  # whatever its code was


def test_a_process_that_is_held_starts_nothing_more(tmp_path: Path) -> None:
    started = tmp_path / "started"
    child = shell('while true; do echo x >>"$1"; sleep 0.01; done', started)
    wait_for(started)
    child.hold()
    state = Path(f"/proc/{child.pid}/stat").read_text().rpartition(")")[2].split()[0]
    assert state == "T"
    child.signal(signal.SIGKILL, group=True)
    with process.Watch(process.Stop()) as watch:
        watch.end(child, grace=0)
    child.hold(patience=PATIENCE)
    child.close()


def test_the_streams_are_named_as_subprocess_names_them() -> None:
    assert (process.PIPE, process.DEVNULL) == (subprocess.PIPE, subprocess.DEVNULL)


def test_a_program_that_is_missing_is_named() -> None:
    with pytest.raises(ToolNotFound, match="no-such-program was not found on PATH"):
        process.start(["no-such-program"], env=ENV)
    with pytest.raises(ToolNotFound, match="no-such-program was not found on PATH"):
        process.run(["no-such-program"], env=ENV, timeout=1)


def test_a_small_program_gets_its_input_and_only_the_given_environment() -> None:
    done = process.run(
        ["sh", "-c", "cat; env; exit 4"], env={**ENV, "A": "b"}, timeout=PATIENCE, input=b"in\n"
    )
    assert done.code == 4
    assert b"in\n" in done.stdout
    assert b"A=b" in done.stdout
    assert b"HOME" not in done.stdout


def test_a_small_program_that_hangs_is_ended_with_its_children() -> None:
    with pytest.raises(TimedOut, match="did not end within"):
        process.run(["sh", "-c", "sleep 1000 & sleep 1000"], env=ENV, timeout=0.2)


@pytest.mark.skipif(os.geteuid() != 0, reason="giving rights away takes root")
def test_another_user_gets_neither_groups_nor_capabilities(watch: process.Watch) -> None:
    child = process.start(
        ["sh", "-c", "id -u; id -G; grep CapEff /proc/self/status"],
        env=ENV,
        stdout=subprocess.PIPE,
        user=users.User("somebody", 54321, 54322, "/"),
    )
    assert child.stdout.read().split() == [b"54321", b"54322", b"CapEff:", b"0" * 16]
    watch.end(child, grace=PATIENCE)
    child.close()


def test_orphans_come_to_the_subreaper_and_are_ended(tmp_path: Path) -> None:
    """In a process of its own, because a subreaper stays one."""
    program = f"""
import os, sys, time
sys.path[:0] = {sys.path!r}
from plp_builder import process
from plp_builder.buildkit import leftovers
leftovers.adopt_orphans()
child = process.start(["sh", "-c", "(setsid sleep 1000 & setsid sleep 1000 &) & : > $0",
                       {str(tmp_path / "up")!r}], env=dict(os.environ))
while child.poll() is None or not os.path.exists({str(tmp_path / "up")!r}):
    time.sleep(0.01)
while len(leftovers.descendants(os.getpid(), leftovers.parents())) < 2:
    time.sleep(0.01)
print(leftovers.end_all())
print(len(leftovers.descendants(os.getpid(), leftovers.parents())))
"""
    done = subprocess.run(
        [sys.executable, "-c", program], capture_output=True, timeout=PATIENCE, check=True
    )
    ended, left = map(int, done.stdout.split())
    assert ended >= 2  # the shells between may still be there, too
    assert left == 0


def anonymous(content: bytes) -> int:
    number = os.memfd_create("test", os.MFD_CLOEXEC)
    os.write(number, content)
    return number


def test_a_started_program_has_the_descriptors_it_was_given_and_no_others(
    watch: process.Watch,
) -> None:
    given, kept = anonymous(b"given"), anonymous(b"kept")
    try:
        child = process.start(
            [
                "sh",
                "-c",
                'cat "/proc/self/fd/$1"; cat "/proc/self/fd/$2"',
                "sh",
                *map(str, (given, kept)),
            ],
            env=ENV,
            stdout=subprocess.PIPE,
            pass_fds=[given],
        )
        found: list[bytes] = []
        watch.reads(child.stdout, found.append)
        assert watch.until(lambda: found[-1:] == [b""], seconds=PATIENCE)
        assert watch.end(child, grace=PATIENCE) == 1
        assert b"".join(found) == b"given"
        child.close()
    finally:
        os.close(given)
        os.close(kept)


def test_a_small_program_has_the_descriptors_it_was_given() -> None:
    given = anonymous(b"given")
    try:
        argv = ["cat", f"/proc/self/fd/{given}"]
        done = process.run(argv, env=ENV, timeout=PATIENCE, pass_fds=[given])
        assert (done.code, done.stdout) == (0, b"given")
        assert process.run(argv, env=ENV, timeout=PATIENCE).code == 1
    finally:
        os.close(given)


@pytest.mark.parametrize("start", ["start", "fork", "run"])
def test_a_lack_of_descriptors_is_told_as_such(start: str) -> None:
    program = f"""
import resource
from plp_builder import errors, process
resource.setrlimit(resource.RLIMIT_NOFILE, (6, 6))
taken = [os.open("/dev/null", os.O_RDONLY) for _ in range(3)]
try:
    if {start!r} == "run":
        process.run(["true"], env=dict(os.environ), timeout=60)
    elif {start!r} == "fork":
        process.fork(["true"], None, env=dict(os.environ), stdin=0)
    else:
        process.start(["true"], env=dict(os.environ), stdout=-1)
except errors.ResourcesExhausted as error:
    print(error.what)
"""
    assert python(program).stdout == b"the system gives us no more open files\n"
