"""What ends a program: signals and deadlines, whenever they come."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
from collections.abc import Iterator
from contextlib import suppress

import pytest

from plp_builder import process
from plp_builder.errors import Terminated, TimedOut
from tests.support.stops import python

ENV = {"PATH": os.environ["PATH"]}
PATIENCE = 30.0


def test_what_is_stopped_and_what_to_do_next_are_the_callers_words(
    stop: process.Stop,
) -> None:
    stop.limit(0)
    with pytest.raises(TimedOut, match="the build did not end"):
        stop.check()
    other = process.Stop("the publication", stopped_hint="Again.", timeout_hint="Longer.")
    other.limit(0)
    with pytest.raises(TimedOut, match="the publication did not end within PLP_TIMEOUT") as late:
        other.check()
    assert late.value.hint == "Longer."
    other.received.append(signal.SIGTERM)
    with pytest.raises(Terminated, match=r"the publication was asked to end \(SIGTERM\)") as asked:
        other.check()
    assert asked.value.hint == "Again."


def test_the_first_process_collects_what_it_adopts_and_not_what_it_started() -> None:
    script = """
import os, sys, time
from pathlib import Path
from plp_builder import process
stop = process.Stop()
stop.listen()
env = {"PATH": os.environ["PATH"]}
with process.Watch(stop) as watch:
    child = process.start(["sh", "-c", "exit 7"], env=env)
    # Ten processes whose parent ends before they do.
    orphans = "for i in 1 2 3 4 5 6 7 8 9 10; do (sleep 0.1 & echo $!); done"
    told = process.run(["sh", "-c", orphans + " >&2"], env=env, timeout=10).stderr
    pids = told.decode().split()
    gone = lambda: not any(Path("/proc", pid).exists() for pid in pids)
    collected = watch.until(gone, seconds=10)
    print(os.getpid(), len(pids), collected, child.poll())
"""
    made = ["unshare", "--map-root-user", "--mount", "--pid", "--fork", "--mount-proc"]
    done = subprocess.run(
        [*made, sys.executable, "-c", script], check=False, capture_output=True, text=True
    )
    assert done.stdout == "1 10 True 7\n", done.stderr


def test_the_deadline_ends_a_write_that_nobody_reads(full_pipe: int) -> None:
    program = """
from plp_builder import errors, process, terminal
stop = process.Stop()
stop.listen()
stop.limit(0.3)
try:
    terminal.Writer(sys.stderr).lines(["a line"])
    while True:
        stop.check()
except errors.TimedOut:
    os._exit(7)
"""
    assert python(program, stderr=full_pipe).returncode == 7


@pytest.fixture
def full_pipe() -> Iterator[int]:
    """The end to write to of a pipe that takes no more, and waits."""
    reading, writing = os.pipe()
    os.set_blocking(writing, False)
    with suppress(BlockingIOError):
        while True:
            os.write(writing, b"x" * 4096)
    os.set_blocking(writing, True)
    yield writing
    os.close(reading)
    os.close(writing)


def test_a_limit_that_is_taken_away_interrupts_nothing() -> None:
    program = """
from plp_builder import process
stop = process.Stop()
stop.listen()
stop.limit(0.1)
stop.limit(None)
time.sleep(0.3)
print(os.get_blocking(2))
"""
    assert python(program, stderr=subprocess.PIPE).stdout == b"True\n"


@pytest.mark.parametrize(("ignored", "left"), [(True, "0"), (False, "1")])
def test_who_ignores_the_end_of_the_session_goes_on(ignored: bool, left: str) -> None:
    """As after nohup(1)."""
    program = f"""
from plp_builder import early, process
if {ignored}:
    signal.signal(signal.SIGHUP, signal.SIG_IGN)
early.end_by_signals()
stop = process.Stop()
stop.listen()
os.kill(os.getpid(), signal.SIGHUP)
print(len(stop.received))
"""
    assert python(program).stdout.decode().strip() == left


@pytest.mark.parametrize(
    ("number", "code"), [(signal.SIGTERM, 143), (signal.SIGINT, 130), (signal.SIGHUP, 143)]
)
def test_a_signal_before_anybody_listens_ends_without_a_word(number: int, code: int) -> None:
    program = f"""
from plp_builder import early
early.end_by_signals()
os.kill(os.getpid(), {number})
time.sleep(1000)
"""
    done = python(program, stderr=subprocess.STDOUT)
    assert (done.returncode, done.stdout) == (code, b"")


@pytest.mark.parametrize("program", ["plp_builder", "publisher"])
@pytest.mark.parametrize(("number", "code"), [(signal.SIGTERM, 143), (signal.SIGINT, 130)])
def test_programs_can_be_ended_while_they_still_import(
    program: str, number: int, code: int
) -> None:
    """The signal comes when they look for one of the modules that they import first of all."""
    script = f"""
import os, runpy, sys, time
class Finder:
    def find_spec(name, path=None, target=None):
        if name == "plp_builder.streams":
            os.kill(os.getpid(), {number})
            time.sleep(1000)
sys.meta_path.insert(0, Finder)
runpy.run_module({program!r}, run_name="__main__")
"""
    path = os.pathsep.join(filter(None, sys.path))
    done = subprocess.run(
        [sys.executable, "-c", script],
        env={**ENV, "PYTHONPATH": path, "PYTHONDONTWRITEBYTECODE": "1"},
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        timeout=PATIENCE,
        check=False,
    )
    assert (done.returncode, done.stdout) == (code, b"")
