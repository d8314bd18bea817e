"""The daemon's supervision: a real buildkitd, and ones that misbehave."""

from __future__ import annotations

import errno
import fcntl
import json
import os
import signal
import socket
import stat
import subprocess
import sys
import time
import tomllib
from collections.abc import Callable, Iterator
from contextlib import ExitStack
from pathlib import Path
from tempfile import TemporaryDirectory

import pytest

from plp_builder import outset, run
from plp_builder.buildkit import leftovers, runtime
from plp_builder.buildkit.daemonless import Daemon, sweep
from plp_builder.buildkit.opening import Opened, opened
from plp_builder.buildkit.options import Options
from plp_builder.buildkit.room import ROOT, Room
from plp_builder.buildkit.sandbox import Sandbox
from plp_builder.errors import (
    DaemonDied,
    DaemonFailure,
    DaemonNotReady,
    Failure,
    RootlessNotPermitted,
    SettingInvalid,
    Terminated,
)
from plp_builder.phases import Phases
from plp_builder.process import Stop, Watch
from scripts.set_up.step import ROOT as SET_UP_ROOT
from tests.support import machine

PATIENCE = 60.0

pytestmark = [
    pytest.mark.integration,
    pytest.mark.skipif(os.geteuid() != 0, reason="a plain daemon takes root"),
]

Start = Callable[..., Daemon]


@pytest.fixture
def fake(tmp_path: Path, stop: Stop) -> Iterator[Start]:
    """A daemon whose buildkitd is the given Python program."""
    with Watch(stop) as watch:
        lines: list[str] = []

        def make(program: str) -> Daemon:
            tool = tmp_path / "buildkitd"
            tool.write_text(f"#!{sys.executable}\n{program}")
            tool.chmod(0o755)
            environ = {"PATH": f"{tmp_path}{os.pathsep}{os.environ['PATH']}"}
            room = Room(runtime.create([Path("/tmp")], ROOT), None, Sandbox.ROOT)
            return Daemon(room, environ, watch, lines.append)

        yield make


READY = """
import os, socket
socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM).sendto(b"READY=1", os.environ["NOTIFY_SOCKET"])
"""
FOREVER = "import time\nwhile True: time.sleep(1)\n"


def gone(daemon: Daemon) -> None:
    """Nothing of a daemon is left: neither its directories nor a process that names them."""
    room = daemon.room
    assert not Path(room.runtime.client).exists()
    assert not Path(room.runtime.daemon).exists()
    marker = os.fsencode(room.runtime.daemon)
    for pid in leftovers.parents():
        try:
            assert marker not in Path(f"/proc/{pid}/cmdline").read_bytes()
            assert marker not in Path(f"/proc/{pid}/environ").read_bytes()
        except OSError:
            continue
    assert str(room.runtime.daemon) not in Path("/proc/self/mountinfo").read_text()


def test_ready_is_what_the_daemon_says(fake: Start) -> None:
    with fake(READY + FOREVER) as daemon:
        daemon.start(Options())
        daemon.ready(PATIENCE)
    gone(daemon)


def test_what_was_killed_twice_is_waited_for(fake: Start) -> None:
    """Its children are held by pidfds until they have ended; the second time none is to be seen."""
    before = pidfds()
    with fake(READY + FOREVER) as daemon:
        daemon.start(Options())
        daemon.ready(PATIENCE)
        daemon.kill()
        time.sleep(0.2)
        daemon.kill()
        assert pidfds() > before
    gone(daemon)
    assert pidfds() == before


def pidfds() -> int:
    """How many processes are held."""
    links = Path("/proc/self/fd").iterdir()
    return sum("pidfd" in str(link.readlink()) for link in links if link.is_symlink())


LISTENS = """
import os, socket, sys, time
listener = socket.socket(socket.AF_UNIX)
listener.bind(next(word for word in sys.argv if "--addr=" in word).partition("unix://")[2])
time.sleep(0.1)
listener.listen()
listener.accept()
"""


def call(client: socket.socket, daemon: Daemon) -> None:
    """As buildctl does with ``--wait``: who is bound but does not listen yet refuses."""
    end = time.monotonic() + PATIENCE
    while client.connect_ex(str(daemon.room.runtime.socket)) == errno.ECONNREFUSED:
        assert time.monotonic() < end, "it never listens"
        time.sleep(0.01)


def test_it_can_be_called_before_it_is_ready(fake: Start) -> None:
    """This one is only ready once somebody has called."""
    with fake(LISTENS + READY + FOREVER) as daemon, socket.socket(socket.AF_UNIX) as client:
        daemon.start(Options())
        daemon.ready(PATIENCE, listening=lambda: call(client, daemon))
    gone(daemon)


def test_a_room_without_a_daemon_leaves_nothing(fake: Start) -> None:
    """As when a setting turns out to be of no use."""
    with fake("raise SystemExit('started all the same')") as daemon:
        pass
    assert daemon.log.text() == []
    gone(daemon)


def test_the_command_line_reaches_the_daemon_verbatim(fake: Start) -> None:
    flags = ("--a=$(id) `id` 'x' \"y\"", "--b=\n\n", "--c=ä\\n*", "")
    program = "import sys\nprint(sys.argv[-4:], file=sys.stderr)\n"
    with fake(program + READY + FOREVER) as daemon:
        daemon.start(Options(flags=flags))
        daemon.ready(PATIENCE)
        daemon._watch.until(lambda: bool(daemon.log.text()), seconds=PATIENCE)
        assert daemon.log.text() == [repr(list(flags))]


SHOW_ARGUMENTS = "import sys\nprint(sys.argv[1:], file=sys.stderr, flush=True)\n"


def test_a_daemon_that_was_rightly_foreseen_goes_on(fake: Start) -> None:
    with fake(SHOW_ARGUMENTS + READY + FOREVER) as daemon:
        daemon.expect(Options())
        daemon.start(Options())
        daemon.ready(PATIENCE)
        daemon._watch.until(lambda: bool(daemon.log.text()), seconds=PATIENCE)
        assert len(daemon.log.text()) == 1
    gone(daemon)


SHOW_CONFIGURATION = """
import sys
path = next(word for word in sys.argv if word.startswith("--config=")).partition("=")[2]
text = open(path).read()
print(path, repr(text), sys.argv[1:], file=sys.stderr, flush=True)
"""
LOCK = """
import fcntl, tomllib
lock = open(tomllib.loads(text).get("root", "/tmp") + "/buildkitd.lock", "w")
fcntl.flock(lock, fcntl.LOCK_EX)
"""


@pytest.fixture
def ahead(fake: Start) -> Start:
    """The same daemon in a room that it has been in since before anybody knew what to ask of it."""

    def make(program: str) -> Daemon:
        daemon = fake(program)
        daemon._opened = opened(daemon.room, daemon._environ, expecting_nothing=True)
        return daemon

    return make


def test_a_daemon_that_is_ahead_gets_the_rest_in_its_configuration(ahead: Start) -> None:
    with ahead(SHOW_CONFIGURATION + LOCK + READY + FOREVER) as daemon:
        assert not daemon._watch.until(lambda: bool(daemon.log.text()), seconds=0.3)
        daemon.start(Options())
        daemon.ready(PATIENCE)
        daemon._watch.until(lambda: bool(daemon.log.text()), seconds=PATIENCE)
        (told,) = daemon.log.text()
        assert told.startswith("/proc/self/fd/")
        assert f"root = {json.dumps(daemon.room.runtime.state)}" in told
        assert "--root" not in told
    gone(daemon)


def test_a_daemon_that_is_ahead_gives_way_to_one_with_other_options(ahead: Start) -> None:
    with ahead(SHOW_ARGUMENTS + READY + FOREVER) as daemon:
        daemon.start(Options(debug=True))
        daemon.ready(PATIENCE)
        daemon._watch.until(lambda: "--debug" in daemon.log.text()[-1], seconds=PATIENCE)
        assert "/proc/self/fd" not in daemon.log.text()[-1]
    gone(daemon)


def test_a_daemon_that_is_ahead_for_nothing_leaves_nothing(ahead: Start) -> None:
    with ahead(SHOW_CONFIGURATION) as daemon:
        pass
    assert daemon.log.text() == []
    gone(daemon)


def test_a_daemon_that_is_not_where_it_was_told_to_be_gives_way(ahead: Start) -> None:
    """Its configuration was out of reach, which it takes for an empty one."""
    with ahead(SHOW_ARGUMENTS + READY + FOREVER) as daemon:
        lock = Path(daemon.room.runtime.state, "buildkitd.lock")
        lock.touch()  # as another one has left it
        daemon.start(Options())
        daemon.ready(PATIENCE)
        daemon._watch.until(lambda: "--root=" in daemon.log.text()[-1], seconds=PATIENCE)
    gone(daemon)


def test_a_forked_room_has_nothing_of_ours_open(ahead: Start, tmp_path: Path) -> None:
    """Such as a file that whoever called us left open."""
    names = "import os, sys\nprint(os.listdir('/proc/self/fd'), file=sys.stderr, flush=True)\n"
    ours = os.open(tmp_path, os.O_RDONLY)
    os.set_inheritable(ours, True)
    kept = fcntl.fcntl(ours, fcntl.F_DUPFD, 42)
    try:
        with ahead(names + SHOW_CONFIGURATION + LOCK + READY + FOREVER) as daemon:
            daemon.start(Options())
            daemon.ready(PATIENCE)
            first = daemon.log.text()[0]
    finally:
        os.close(ours)
        os.close(kept)
    assert "'42'" not in first
    assert len(first.split(",")) == 5  # the three streams, the configuration, and the listing


def test_a_configuration_that_cannot_be_read_ahead_is_read_from_a_file(ahead: Start) -> None:
    refuses = "import sys\nif 'fd/' in str(sys.argv): sys.exit('failed to load config: no')\n"
    with ahead(refuses + SHOW_CONFIGURATION + READY + FOREVER) as daemon:
        daemon.start(Options())
        daemon.ready(PATIENCE)
        daemon._watch.until(lambda: "--root=" in daemon.log.text()[-1], seconds=PATIENCE)
    gone(daemon)


def test_a_room_that_cannot_be_opened_says_why(fake: Start, tmp_path: Path) -> None:
    (tmp_path / "unshare").write_text("#!/nowhere\n")
    (tmp_path / "unshare").chmod(0o755)
    with fake(FOREVER) as daemon:
        daemon.start(Options())
        with pytest.raises(DaemonFailure) as caught:
            daemon.ready(PATIENCE)
    assert "unshare" in str(caught.value.why)
    gone(daemon)


def test_a_daemon_that_was_wrongly_foreseen_gives_way(fake: Start) -> None:
    with fake(SHOW_ARGUMENTS + READY + FOREVER) as daemon:
        daemon.expect(Options())
        daemon.ready(PATIENCE)
        daemon.start(Options(debug=True))
        assert not daemon._ready
        daemon.ready(PATIENCE)
        daemon._watch.until(lambda: "--debug" in daemon.log.text()[-1], seconds=PATIENCE)
        marker = os.fsencode(daemon.room.runtime.socket)
        assert sum(marker in line for line in map(command_line, leftovers.parents())) == 1
    gone(daemon)


@pytest.mark.parametrize("wanted", [True, False])
def test_only_a_daemon_that_was_wanted_is_given_time(
    wanted: bool, fake: Start, tmp_path: Path
) -> None:
    """As when there is no Dockerfile: nothing is lost with a daemon that was only expected."""
    asked = tmp_path / "asked"
    program = (
        f"import signal\nsignal.signal(signal.SIGTERM, lambda *_: open({str(asked)!r}, 'w'))\n"
    )

    def use(daemon: Daemon) -> None:
        with daemon:
            daemon.expect(Options())
            if wanted:
                daemon.start(Options())
            daemon.ready(PATIENCE)
            raise SettingInvalid("a setting cannot be used")

    daemon = fake(program + READY + FOREVER)
    with pytest.raises(SettingInvalid):
        use(daemon)
    assert asked.exists() == wanted
    gone(daemon)


def command_line(pid: int) -> bytes:
    try:
        return Path(f"/proc/{pid}/cmdline").read_bytes()
    except OSError:
        return b""


def test_the_runtime_directories_are_private(fake: Start) -> None:
    with fake(READY + FOREVER) as daemon:
        for path in (daemon.room.runtime.client, daemon.room.runtime.daemon):
            assert stat.S_IMODE(Path(path).stat().st_mode) == 0o700


def test_a_daemon_that_is_never_ready_is_given_up(fake: Start) -> None:
    program = "import sys\nprint('still thinking', file=sys.stderr)\n"
    with fake(program + FOREVER) as daemon:
        daemon.start(Options())
        with pytest.raises(DaemonNotReady, match="PLP_START_TIMEOUT") as caught:
            daemon.ready(1.0)
    assert tuple(caught.value.why) == ("still thinking",)
    gone(daemon)


def test_a_daemon_that_dies_at_once_is_noticed_at_once(fake: Start) -> None:
    program = "import sys\nsys.exit('buildkitd: something broke')\n"
    began = time.monotonic()
    with fake(program) as daemon:
        daemon.start(Options())
        with pytest.raises(DaemonDied, match="ended with code 1 before it was ready") as caught:
            daemon.ready(10 * PATIENCE)
    assert caught.value.why == ("buildkitd: something broke",)
    assert time.monotonic() - began < PATIENCE
    gone(daemon)


def test_a_daemon_that_dies_in_the_middle_is_noticed(fake: Start) -> None:
    with fake(READY + "import time\ntime.sleep(0.3)\nraise SystemExit(3)") as daemon:
        daemon.start(Options())
        daemon.ready(PATIENCE)
        with pytest.raises(DaemonDied, match="while it was needed"):
            daemon._watch.until(lambda: False, seconds=PATIENCE)
    gone(daemon)


def test_a_daemon_that_is_not_permitted_says_what_to_add(fake: Start) -> None:
    program = "import sys\nsys.exit('error: fork/exec: operation not permitted')\n"
    with fake(program) as daemon:
        daemon.start(Options())
        with pytest.raises(RootlessNotPermitted, match="operation not permitted"):
            daemon.ready(PATIENCE)
    gone(daemon)


def test_a_daemon_that_ignores_sigterm_is_killed(fake: Start) -> None:
    program = "import signal\nsignal.signal(signal.SIGTERM, signal.SIG_IGN)\n"
    with fake(program + READY + FOREVER) as daemon:
        daemon.start(Options())
        daemon.ready(PATIENCE)
    gone(daemon)


def test_what_a_daemon_leaves_running_ends_with_it(fake: Start) -> None:
    program = (
        "import subprocess\nsubprocess.Popen(['sleep', '1000'], start_new_session=True)\n"
        "subprocess.Popen(['setsid', 'sleep', '1000'])\n"
    )
    with fake(program + READY + FOREVER) as daemon:
        daemon.start(Options())
        daemon.ready(PATIENCE)
    gone(daemon)


def test_a_flood_of_log_lines_keeps_only_the_last(fake: Start) -> None:
    program = "import sys\nfor n in range(300000): print('line', n, file=sys.stderr)\n"
    with fake(program + READY + FOREVER) as daemon:
        daemon.start(Options())
        daemon.ready(PATIENCE)
        daemon._watch.until(lambda: "line 299999" in daemon.log.text(), seconds=PATIENCE)
        assert len(daemon.log.text()) == 400
    gone(daemon)


def test_a_signal_while_the_daemon_starts_leaves_nothing(fake: Start) -> None:
    with fake(FOREVER) as daemon:
        daemon.start(Options())
        os.kill(os.getpid(), signal.SIGTERM)
        with pytest.raises(Terminated):
            daemon.ready(PATIENCE)
    gone(daemon)


def test_what_a_killed_run_left_is_removed_by_the_next(tmp_path: Path) -> None:
    living = runtime.create([tmp_path], ROOT)
    killed = runtime.create([tmp_path], ROOT)
    (Path(killed.state) / "file").write_text("left")
    os.close(killed.lock)
    found = list(runtime.abandoned([tmp_path]))
    assert [each.client for each in found] == [killed.client]
    for each in runtime.abandoned([tmp_path]):
        assert runtime.remove(each, {"PATH": os.environ["PATH"]}) == ()
    assert sorted(tmp_path.iterdir()) == sorted([Path(living.client), Path(living.daemon)])
    os.close(living.lock)


@pytest.mark.parametrize("problem", [Failure("it broke"), OSError(errno.EMFILE, "it broke")])
def test_a_room_that_could_not_be_opened_leaves_nothing(
    problem: Exception, monkeypatch: pytest.MonkeyPatch
) -> None:
    def fail(*_: object, **__: object) -> None:
        raise problem

    monkeypatch.setattr(outset, "opened", fail)
    with TemporaryDirectory(dir="/tmp") as base:
        environ = {"PATH": machine.tools("current").path, "TMPDIR": base}
        if isinstance(problem, Failure):
            assert outset.begin(environ).room is problem
        else:
            with pytest.raises(type(problem)):
                outset.begin(environ)
        assert not list(Path(base).iterdir())


def test_a_room_that_nobody_takes_over_leaves_nothing(stop: Stop) -> None:
    with TemporaryDirectory(dir="/tmp") as base:
        begun = outset.begin({"PATH": machine.tools("current").path, "TMPDIR": base})
        assert isinstance(begun.room, Opened)
        stack = ExitStack()
        os.close(stop.fileno())  # so that nothing can be watched
        with pytest.raises((OSError, ValueError)):
            run.opened(begun, stop, Phases(0.0), stack)
        assert not list(Path(base).iterdir())
        assert os.waitpid(begun.room.child.pid, 0)[0] == begun.room.child.pid


NOBODY_HAS_SUBORDINATE_IDS = (
    'mount --bind /dev/null /etc/subuid; mount --bind /dev/null /etc/subgid; exec "$@"'
)
BEGINS_AND_DIES = """
import os, signal
from plp_builder import outset
print(outset.begin(dict(os.environ)).room.is_ahead, flush=True)
os.kill(os.getpid(), signal.SIGKILL)
"""


def test_a_daemon_whose_builder_died_at_once_makes_no_state_anywhere(tmp_path: Path) -> None:
    """Also in the moment before the kernel is asked to end it with the builder."""
    without_end = '#!/bin/sh\nwhile [ "$1" != -- ]; do shift; done\nshift; exec "$@"\n'
    (tmp_path / "setpriv").write_text(without_end)
    shown = tmp_path / "shown"
    program = SHOW_CONFIGURATION.replace("sys.stderr", f"open({str(shown)!r}, 'w')")
    (tmp_path / "buildkitd").write_text(f"#!{sys.executable}\n{program}")
    for name in ("setpriv", "buildkitd"):
        (tmp_path / name).chmod(0o755)
    path = f"{tmp_path}:{machine.tools('current').path}"
    nobody = ["unshare", "--mount", "sh", "-euc", NOBODY_HAS_SUBORDINATE_IDS, "sh"]
    done = subprocess.run(
        [*nobody, sys.executable, "-c", BEGINS_AND_DIES],
        env={"PATH": path, "PYTHONPATH": str(SET_UP_ROOT)},
        capture_output=True,
        check=False,
    )
    assert done.stdout == b"True\n", done.stderr
    end = time.monotonic() + PATIENCE
    while not shown.exists() or not shown.read_text():
        assert time.monotonic() < end
        time.sleep(0.01)
    told = shown.read_text().split("'")[1]
    with pytest.raises(tomllib.TOMLDecodeError):
        tomllib.loads(told)
    sweep({})
