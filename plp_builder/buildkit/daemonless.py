"""Starts, watches and stops a rootless buildkitd of the builder's own.

Readiness comes by sd_notify(3): buildkitd sends ``READY=1`` to ``$NOTIFY_SOCKET`` just before
it serves. That is why this is not upstream's buildctl-daemonless.sh, which polls for about two
seconds, does not see that the daemon died, and leaves processes behind on SIGTERM.
"""

from __future__ import annotations

import fcntl
import os
import select
import shlex
import signal
import socket
import time
from pathlib import Path
from typing import TYPE_CHECKING

from plp_builder.buildkit import Endpoint, leftovers, trial
from plp_builder.buildkit.command import BEGINNING, can_wait, command, configuration
from plp_builder.buildkit.deaths import explain
from plp_builder.buildkit.opening import opened
from plp_builder.buildkit.options import Options
from plp_builder.buildkit.room import ROOT, environment
from plp_builder.buildkit.runtime import abandoned, candidates, remove
from plp_builder.buildkit.sandbox import NO_PROCESS_SANDBOX, Sandbox
from plp_builder.errors import DaemonNotReady, RootlessNotPermitted, StateNotCarried
from plp_builder.process import KILL_WAIT
from plp_builder.streams import Lines, Tail

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping
    from typing import Self

    from plp_builder.buildkit.opening import Opened
    from plp_builder.buildkit.room import Room
    from plp_builder.process import Child, Watch

DAEMON_GRACE = 2.0
"""Seconds between SIGTERM and SIGKILL when a run is stopped: mid-build the daemon would wait
for the build, whose result nobody wants any more."""

IDLE_GRACE = 0.0
"""The same at the end of a build: the daemon is idle, and its state is thrown away or, where it is
kept, complete: its databases are written by the end of the solve, and survive SIGKILL."""

LAST_WORDS = 0.1
"""Seconds in which a daemon that died is noticed, and its last lines arrive."""

_LOCK = "buildkitd.lock"
"""What a daemon locks first of all in its root (BuildKit's cmd/buildkitd/main.go)."""

_LISTENS_WITHIN = 0.004
"""Seconds between two looks whether the daemon listens, which nothing tells; a tenth of what it
takes from then on until it serves."""


class _DiedUntriedError(Exception):
    """A daemon has ended before it was known whether its directory is to blame."""


class _DiedAheadError(Exception):
    """A daemon that was ahead could not read its configuration: another one can."""


class Daemon:
    """A daemon of our own: a context manager that makes its room and leaves nothing of it.

    Inside, :meth:`start` it and wait until it is :meth:`ready`. Its death is raised by whatever
    waits on the watch (see :func:`explain`). ``say`` gets each line of its log. The room may be
    ``opened`` already.
    """

    def __init__(
        self,
        room: Room,
        environ: Mapping[str, str],
        watch: Watch,
        say: Callable[[str], None],
        opened: Opened | None = None,
    ) -> None:
        self.room = room
        self.endpoint = Endpoint(f"unix://{room.runtime.socket}")
        self.log = Tail()
        self.weakened: tuple[str, ...] = ()
        self._environ = environ
        self._options = Options()
        self._watch = watch
        self._say = say
        self._opened = opened
        self._child: Child | None = None
        self._ahead = self._is_in_place = False
        self._inner: list[int] = []
        self._orders = self._config = -1
        self._started = False
        self._expected: Options | None = None
        self._notify: socket.socket | None = None
        self._ready = self._killed = False
        self._suspects: set[int] = set()
        self._trial_first = False
        self._tried = True
        self._refused = ""

    def __enter__(self) -> Self:
        try:
            self._open()
        except BaseException:
            self.stop(0)
            self._remove()
            raise
        return self

    def __exit__(self, kind: type[BaseException] | None, *_: object) -> None:
        try:
            self.stop(DAEMON_GRACE if kind and self._started else IDLE_GRACE)
        finally:
            self._remove()

    def start(self, options: Options) -> None:
        """Start the daemon in its room, without waiting for it, or let the expected one go on."""
        self._started = True
        if self._expected is None:
            self._begin(options)
        elif self._expected != options:
            self.restart(options)

    def restart(self, options: Options) -> None:
        """Start another daemon in place of the one that runs or has died."""
        self.log = Tail()
        self._move(self.room)
        self._begin(options)

    def expect(self, options: Options) -> None:
        """Start the daemon in the expectation that :meth:`start` will ask for the same."""
        self._expected = options
        self._begin(options)

    def _begin(self, options: Options) -> None:
        self._options = options
        if self.room.sandbox is Sandbox.PROCESS and NO_PROCESS_SANDBOX in options.flags:
            self._move(self.room.with_sandbox(Sandbox.NONE))
        elif self._config >= 0 and not can_wait(options):
            self._move(self.room)
        self._order()

    def listens(self) -> bool:
        """Whether buildctl can call it, and waits: it listens some time before it serves."""
        if not (self.room.runtime.has_socket() and self._is_where_it_should_be()):
            return False
        self._make_temporary()
        return True

    def ready(
        self,
        seconds: float,
        *,
        listening: Callable[[], object] = lambda: None,
        before_another: Callable[[], object] = lambda: None,
    ) -> None:
        """Wait for ``READY=1``; where the room is refused, try other ways to make one.

        ``weakened`` says why, if that is a weaker sandbox, and ``before_another`` was called,
        since no thread may run while a daemon is started. ``listening`` is called as soon as the
        daemon can be called. Raises DaemonNotReady after ``seconds``, or what :func:`explain`
        makes of a death.
        """
        why: RootlessNotPermitted | None = None
        while True:
            room = self.room
            try:
                self._wait(seconds, listening)
                if self._is_where_it_should_be():
                    self._make_temporary()
                    break
            except _DiedAheadError:
                self.log = Tail()
            except _DiedUntriedError:
                self._trial_first = True
                self.log = Tail()
            except RootlessNotPermitted as refused:
                if why is None or self.room.sandbox is Sandbox.PROCESS:
                    why = refused
                another = room.another()
                if another is None:
                    raise why from None
                room = another
            before_another()
            self._move(room)
            self._order()
        if why and self.room.sandbox is Sandbox.NONE:
            self.weakened = why.why

    def check(self) -> None:
        """Raise what :func:`explain` makes of it if the daemon has died or is just dying."""
        self._watch.until(lambda: False, seconds=LAST_WORDS, stoppable=False)

    def end_hanging_steps(self) -> int:
        """Without the process sandbox, end what steps left running; how many there were.

        Only what was there at the last look as well: a step that is just ending is not ours.
        """
        if self.room.sandbox is not Sandbox.NONE:
            return 0
        found = leftovers.hanging(Path(self.room.runtime.runc), leftovers.parents())
        certain = found & self._suspects
        self._suspects = found - certain
        leftovers.kill(certain)
        return len(certain)

    def kill(self) -> None:
        """Have it end at once, without waiting for that, as an idle one may; then `stop` it.

        May be called again.
        """
        if self._child is not None and not self._killed:
            self._killed = True
            self._watch.forget(self._child)
            self._inner = self._held_children(self._child)
            self._child.signal(signal.SIGKILL, group=self._is_deaf)

    def stop(self, grace: float) -> None:
        """End the daemon and everything that it started; may be called again."""
        child, self._child = self._child, None
        if child is not None:
            self._watch.forget(child)
            inner, self._inner = self._inner, []
            if not inner:
                inner = _children(child.pid) if grace else self._held_children(child)
            self._watch.end(child, grace=grace, group=self._is_deaf)
            self._watch.forget(child.stderr)
            child.close()
            _await(inner)
            if self.room.sandbox is Sandbox.NONE:
                leftovers.end_all()
        for descriptor in (self._orders, self._config):
            if descriptor >= 0:
                os.close(descriptor)
        self._orders = self._config = -1
        if self._notify is not None:
            self._watch.forget(self._notify.fileno())
            self._notify.close()
            self._notify = None

    def _held_children(self, child: Child) -> list[int]:
        """All children that it will ever have had, for one that is to be killed."""
        if self._is_deaf:
            child.hold()
        return _children(child.pid)

    @property
    def _is_deaf(self) -> bool:
        """unshare(1) ignores SIGTERM while it waits for its child; rootlesskit passes it on."""
        return self.room.by_unshare

    @property
    def _env(self) -> dict[str, str]:
        return environment(self.room, self._environ)

    def _move(self, room: Room) -> None:
        """Into another room."""
        self.stop(0)
        self.room = room
        self._open()

    def _open(self) -> None:
        self._ready = self._killed = False
        if self.room.sandbox is Sandbox.NONE:
            leftovers.adopt_orphans()
        found, self._opened = self._opened or opened(self.room, self._environ), None
        self._child, self._orders, self._config = found.child, found.orders, found.config
        self._ahead, self._is_in_place = found.is_ahead, False
        self._notify = socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM)
        self.room.runtime.bind_notify_socket(self._notify)
        self._watch.reads(found.child.stderr, Lines(self._heard))
        self._watch.reads(self._notify.fileno(), self._notified)
        self._watch.exits(found.child, lambda: self._died(found.child))

    def _order(self) -> None:
        """Tell what the room waits for. A room that is gone is noticed later."""
        room, options, root = self.room, self._options, self._options.root
        self._tried = root is None or root.tried or self._trial_first
        self._refused = ""
        lines = ""
        if root and not root.tried:
            rootless, beside = room.sandbox is not Sandbox.ROOT, not self._tried
            lines = trial.script(root.path, rootless=rootless, beside=beside)
        text = configuration(room, options, all=self._ahead)
        if not self._ahead:
            room.runtime.write_config(text, room.user or ROOT)
            lines += f"exec {shlex.join(command(room, options))} </dev/null\n"
        orders, config = self._orders, self._config
        self._orders = self._config = -1
        _send(orders, os.fsencode(lines))
        if config >= 0:
            _send(config, text.removeprefix(BEGINNING).encode())

    def _is_where_it_should_be(self) -> bool:
        """Whether its state is where it was told; one that is ahead may have heard nothing.

        A configuration that cannot be reached counts as empty, and is out of reach where a program
        in between closes what it does not know. The lock is held before the socket is there.
        """
        if self._ahead and not self._is_in_place:
            root = self._options.root.path if self._options.root else self.room.runtime.state
            self._is_in_place = _is_locked(f"{root}/{_LOCK}")
        return not self._ahead or self._is_in_place

    def _make_temporary(self) -> None:
        """Not before the daemon has looked for it in vain: see `Runtime.make_temporary`."""
        self.room.runtime.make_temporary(self.room.user or ROOT)

    def _wait(self, seconds: float, listening: Callable[[], object]) -> None:
        end = time.monotonic() + seconds
        if self._watch.until(
            lambda: self._ready or self.listens(),
            seconds=seconds,
            tick=lambda: None,
            interval=_LISTENS_WITHIN,
        ):
            listening()
        if not self._watch.until(self._is_decided, seconds=end - time.monotonic()):
            raise DaemonNotReady(
                f"buildkitd was not ready within PLP_START_TIMEOUT ({seconds:g} s)",
                why=self.log.text()[-8:] or ["it said nothing"],
                hint="Raise PLP_START_TIMEOUT on a slow machine; PLP_DEBUG=true shows the "
                "daemon's whole log.",
            )

        if self._refused:
            raise StateNotCarried("The daemon's state cannot be kept", why=[self._refused])

    def _is_decided(self) -> bool:
        """Whether it serves in a directory that can carry its state, or that cannot."""
        return bool(self._refused) or (self._ready and self._tried)

    def _heard(self, line: bytes) -> None:
        if line == trial.PASSED:
            self._tried = True
            return
        if not self._tried:
            self._refused = self._refused or trial.refusal([line.decode("utf-8", "replace")])
        self.log(line)
        self._say(line.decode("utf-8", "replace"))

    def _notified(self, message: bytes) -> None:
        """A datagram of sd_notify(3): newline-separated assignments."""
        if b"READY=1" in message.split(b"\n"):
            self._ready = True

    def _died(self, child: Child) -> None:
        # The log's last words may still be on their way.
        self._watch.until(lambda: False, seconds=LAST_WORDS, stoppable=False)
        log = self.log.text()
        if reason := trial.refusal(log):
            raise StateNotCarried("The daemon's state cannot be kept", why=[reason])
        if self._ahead and any("failed to load config" in line for line in log):
            raise _DiedAheadError
        if not self._tried:
            raise _DiedUntriedError
        raise explain(log, child.poll(), self.room, ready=self._ready)

    def _remove(self) -> None:
        # rootlesskit, which may have to do it, needs a place that is not about to go.
        outside = os.path.dirname(self.room.runtime.daemon)
        left = remove(self.room.runtime, {**self._env, "TMPDIR": outside})
        for path in left:
            self._say(f"could not remove {path}")


def _is_locked(path: str) -> bool:
    try:
        descriptor = os.open(path, os.O_RDONLY | os.O_NOFOLLOW | os.O_NONBLOCK | os.O_CLOEXEC)
    except OSError:
        return False
    try:
        fcntl.flock(descriptor, fcntl.LOCK_SH | fcntl.LOCK_NB)
    except BlockingIOError:
        return True
    except OSError:
        return False
    finally:
        os.close(descriptor)
    return False


def _send(descriptor: int, content: bytes) -> None:
    """Write all of it to a pipe, and close that."""
    try:
        with open(descriptor, "wb") as pipe:
            pipe.write(content)
    except BrokenPipeError:
        pass


def sweep(environ: Mapping[str, str]) -> int:
    """Remove the directories of runs that were killed; how many there were."""
    found = 0
    for runtime in abandoned(candidates(environ)):
        remove(runtime, environ)
        found += 1
    return found


def _children(pid: int) -> list[int]:
    """A pidfd of each child. The first process of a PID namespace ends after all others in it."""
    descriptors = []
    try:
        for task in os.listdir(f"/proc/{pid}/task"):
            with open(f"/proc/{pid}/task/{task}/children", encoding="ascii") as file:
                descriptors += [os.pidfd_open(int(child)) for child in file.read().split()]
    except OSError:
        pass  # it is ending already, or the kernel does not tell (CONFIG_PROC_CHILDREN)
    return descriptors


def _await(descriptors: list[int]) -> None:
    """Until these processes have ended, too: the kernel ends them, but not within our call."""
    for descriptor in descriptors:
        select.select([descriptor], [], [], KILL_WAIT)
        os.close(descriptor)
