"""The one place that starts processes, watches them, and ends them.

Mechanism only: how long to wait and what to show is decided by the callers. Nothing here
blocks without looking at a :class:`Stop`, except the short waits that end a process.

Every child gets a session of its own, so that a Ctrl-C of the terminal reaches only us, and
``PR_SET_PDEATHSIG`` (prctl(2)) through setpriv(1), so that none outlives us even when we are
killed with SIGKILL.
"""

from __future__ import annotations

import os
import selectors
import signal
import subprocess
import time
from collections.abc import Callable, Mapping, Sequence
from typing import IO, TYPE_CHECKING, Any, NamedTuple, Self

from plp_builder.errors import (
    Interrupted,
    ResourcesExhausted,
    Terminated,
    TimedOut,
    ToolNotFound,
    exhausted,
)

if TYPE_CHECKING:
    from types import FrameType

    from plp_builder.users import User

READ_SIZE = 1 << 16
LONGEST = 1e9
"""Seconds that a timer of the kernel surely takes."""
KILL_WAIT = 5.0
"""Seconds until a process that got SIGKILL is given up: it hangs in the kernel."""


class Stop:
    """What ends a run early: SIGTERM, SIGINT, SIGHUP, or a deadline.

    A signal is only noted when it comes; :meth:`check` raises it where the code is ready for
    it, and :class:`Watch` wakes up for it. ``what`` is running is named in the failures; a hint
    that is None is the failure's own.
    """

    def __init__(
        self,
        what: str = "the build",
        *,
        stopped_hint: str | None = None,
        timeout_hint: str = "Raise PLP_TIMEOUT, or look above for the step that took so long.",
    ) -> None:
        self.what = what
        self.stopped_hint = stopped_hint
        self.timeout_hint = timeout_hint
        self.deadline: float | None = None
        self.timeout = 0.0
        self.received: list[int] = []
        self.adopts = False
        self._listens = False
        self._armed = False
        self._wake, self._wakeup = os.pipe2(os.O_NONBLOCK | os.O_CLOEXEC)

    def listen(self) -> None:
        """Take over the signals. Only the main thread may call this and, from then on, `limit`.

        The first process of a container also hears of children's ends: those whose parents
        have gone are its own to collect (``adopts``; see :func:`reap_adopted`).
        """
        for number in (signal.SIGTERM, signal.SIGINT, signal.SIGHUP):
            if not (number == signal.SIGHUP and _is_ignored(number)):
                signal.signal(number, self._note)
        if os.getpid() == 1:
            self.adopts = True
            signal.signal(signal.SIGCHLD, lambda *_: self._wake_up())
        self._listens = True

    def limit(self, seconds: float | None) -> None:
        """Raise TimedOut when ``seconds`` from now are over; ``None`` takes the limit away."""
        self.timeout = seconds or 0.0
        self.deadline = None if seconds is None else time.monotonic() + seconds
        if self._armed:
            signal.setitimer(signal.ITIMER_REAL, 0)
        self._armed = self._listens and seconds is not None
        if self._armed:
            # Nobody looks at the deadline in a write that waits: this is what interrupts one.
            signal.signal(signal.SIGALRM, _write_without_waiting)
            signal.setitimer(signal.ITIMER_REAL, min(max(self.timeout, 1e-3), LONGEST))

    def _note(self, number: int, frame: FrameType | None) -> None:
        self.received.append(number)
        _write_without_waiting(number, frame)
        self._wake_up()

    def _wake_up(self) -> None:
        try:
            os.write(self._wakeup, b"!")
        except BlockingIOError:
            pass

    def fileno(self) -> int:
        return self._wake

    @property
    def impatient(self) -> bool:
        """True when somebody asked twice: no grace for anyone any more."""
        return len(self.received) > 1

    def check(self) -> None:
        """Raise Terminated, Interrupted or TimedOut if it is time to end."""
        if self.received:
            if self.received[0] == signal.SIGINT:
                raise Interrupted(f"{self.what} was interrupted (SIGINT)", hint=self.stopped_hint)
            name = signal.Signals(self.received[0]).name
            raise Terminated(f"{self.what} was asked to end ({name})", hint=self.stopped_hint)
        if self.deadline is not None and time.monotonic() >= self.deadline:
            raise TimedOut(
                f"{self.what} did not end within PLP_TIMEOUT ({self.timeout:g} s)",
                hint=self.timeout_hint,
            )


def _is_ignored(number: int) -> bool:
    """Whether whoever started us wants the signal to have no effect, as nohup(1) does."""
    return signal.getsignal(number) == signal.SIG_IGN


def _write_without_waiting(_number: int, _frame: FrameType | None) -> None:
    """A signal's handler: a reader who does not read must not hold up the end.

    A write that waits (for a stalled log collector) is tried again after this, and then does
    not wait any more.
    """
    try:
        os.set_blocking(2, False)
    except OSError:
        pass


class Completed(NamedTuple):
    """What a process that :func:`run` waited for has left."""

    argv: tuple[str, ...]
    code: int
    stdout: bytes
    stderr: bytes


class Child:
    """A started process, held by a pidfd so that a signal never meets a stranger."""

    def __init__(self, process: subprocess.Popen[bytes], name: str) -> None:
        self.name = name
        self.pid = process.pid
        self.pidfd = os.pidfd_open(process.pid)
        self._process = process

    @property
    def stdout(self) -> IO[bytes]:
        """Its output; ValueError unless it was started with PIPE."""
        return _pipe(self._process.stdout)

    @property
    def stderr(self) -> IO[bytes]:
        """Its error output; ValueError unless it was started with PIPE."""
        return _pipe(self._process.stderr)

    def poll(self) -> int | None:
        """The exit code, negative for the signal that ended it, or None while it runs."""
        return self._process.poll()

    def signal(self, number: int, *, group: bool = False) -> None:
        """Send a signal, to the whole process group if asked; a process that ended is fine."""
        if self.poll() is not None:
            return
        try:
            if group:
                os.killpg(self.pid, number)
            else:
                signal.pidfd_send_signal(self.pidfd, number)
        except (ProcessLookupError, PermissionError):
            pass

    def close(self) -> None:
        """Let go of the descriptors; the process must have ended."""
        for stream in (self._process.stdout, self._process.stderr):
            if stream is not None:
                stream.close()
        if self.pidfd >= 0:
            os.close(self.pidfd)
            self.pidfd = -1


_started: dict[int, subprocess.Popen[bytes]] = {}
"""What was started here, by pid: its end is told to who started it."""


def reap_adopted() -> None:
    """Collect every child that has ended, so that none counts against a limit of processes.

    An adopted one is nobody's; one of our own keeps its exit code for who asks later.
    """
    while True:
        try:
            ended = os.waitid(os.P_ALL, 0, os.WEXITED | os.WNOHANG | os.WNOWAIT)
        except ChildProcessError:
            return
        if ended is None:
            return
        ours = _started.pop(ended.si_pid, None)
        if ours is not None:
            ours.poll()
        else:
            os.waitpid(ended.si_pid, os.WNOHANG)


def _pipe(stream: IO[bytes] | None) -> IO[bytes]:
    if stream is None:
        raise ValueError("this stream is no pipe")
    return stream


def need_descriptors(count: int) -> None:
    """Raise ResourcesExhausted unless so many files can still be opened.

    A library that cannot be read half way through its import fails in ways of its own.
    """
    taken: list[int] = []
    try:
        for _ in range(count):
            taken.append(os.dup(2))  # noqa: PERF401 - those taken before a failure are given back
    except OSError as error:
        raise (exhausted(error) or error) from error
    finally:
        for descriptor in taken:
            os.close(descriptor)


def find(name: str, path: str) -> str | None:
    """The program that ``name`` means on a PATH, as execvp(3) finds it."""
    for directory in [""] if "/" in name else path.split(os.pathsep):
        candidate = os.path.join(directory or ".", name) if directory else name
        if os.path.isfile(candidate) and os.access(candidate, os.X_OK):
            return candidate
    return None


def start(
    argv: Sequence[str],
    *,
    env: Mapping[str, str],
    stdin: int = subprocess.DEVNULL,
    stdout: int = subprocess.DEVNULL,
    stderr: int = subprocess.DEVNULL,
    user: User | None = None,
    prepare: Callable[[], object] | None = None,
    pass_fds: Sequence[int] = (),
) -> Child:
    """Start a program that lives no longer than we do, as another user if one is given.

    The streams are descriptors or subprocess.PIPE/DEVNULL. Another user's program gets no
    supplementary group and no capability. ``prepare`` is called in the new process, as
    ourselves, before it executes anything. Raises ToolNotFound, ResourcesExhausted.
    """
    search = env.get("PATH", os.defpath)
    program = find(argv[0], search)
    if program is None:
        raise ToolNotFound(f"{argv[0]} was not found on PATH", why=[f"PATH={search}"])
    setpriv = find("setpriv", search + os.pathsep + os.defpath)
    if setpriv is None:
        raise ToolNotFound(
            "setpriv was not found on PATH", why=[f"PATH={search}"], hint="Install util-linux."
        )
    prefix = [setpriv, "--pdeathsig=KILL"]
    if user is not None and user.uid != os.geteuid():
        prefix += [f"--reuid={user.uid}", f"--regid={user.gid}"]
        prefix += ["--clear-groups", "--inh-caps=-all"]
    process = _popen(
        [*prefix, "--", program, *argv[1:]],
        env=dict(env),
        stdin=stdin,
        stdout=stdout,
        stderr=stderr,
        pass_fds=pass_fds,
        preexec_fn=prepare,
    )
    _started[process.pid] = process
    try:
        return Child(process, os.path.basename(argv[0]))
    except OSError as error:
        process.kill()
        process.communicate()
        raise (exhausted(error) or error) from error


def _popen(argv: list[str], **options: Any) -> subprocess.Popen[bytes]:
    try:
        # Of those that have threads, none uses preexec_fn.
        return subprocess.Popen(argv, start_new_session=True, **options)
    except BlockingIOError as error:  # fork(2): EAGAIN
        what = "the system gives us no more processes"
        raise ResourcesExhausted(what, why=[str(error)]) from error
    except OSError as error:
        raise (exhausted(error) or error) from error


def run(
    argv: Sequence[str],
    *,
    env: Mapping[str, str],
    timeout: float,
    input: bytes = b"",
    pass_fds: Sequence[int] = (),
) -> Completed:
    """Run a small program to its end. Raises ToolNotFound, or TimedOut after ``timeout`` s.

    ResourcesExhausted where it cannot be started. It has ``pass_fds`` open under the same numbers.
    """
    program = find(argv[0], env.get("PATH", os.defpath))
    if program is None:
        raise ToolNotFound(f"{argv[0]} was not found on PATH", why=[f"PATH={env.get('PATH', '')}"])
    process = _popen(
        [program, *argv[1:]],
        env=dict(env),
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        pass_fds=pass_fds,
    )
    _started[process.pid] = process
    try:
        stdout, stderr = process.communicate(input, timeout)
    except subprocess.TimeoutExpired:
        os.killpg(process.pid, signal.SIGKILL)
        process.communicate()
        raise TimedOut(f"{argv[0]} did not end within {timeout:g} s", hint="") from None
    return Completed(tuple(argv), process.returncode, stdout, stderr)


class Watch:
    """Waits for several things at once: output, exits, a stop.

    One watch lives as long as a run. Whatever is registered is served while :meth:`until`
    waits for anything at all, so that no pipe runs full unseen and no death is overlooked.
    """

    def __init__(self, stop: Stop) -> None:
        self.stop = stop
        self._selector = selectors.DefaultSelector()
        self._selector.register(stop, selectors.EVENT_READ)

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self._selector.close()

    def reads(self, file: int | IO[bytes], sink: Callable[[bytes], None]) -> None:
        """Give what comes from ``file`` to ``sink``, chunk by chunk; b"" is its end."""
        number = file if isinstance(file, int) else file.fileno()
        os.set_blocking(number, False)

        def serve() -> None:
            try:
                chunk = os.read(number, READ_SIZE)
            except BlockingIOError:
                return
            if not chunk:
                self._selector.unregister(number)
            sink(chunk)

        self._selector.register(number, selectors.EVENT_READ, serve)

    def exits(self, child: Child, then: Callable[[], None]) -> None:
        """Call ``then`` once when ``child`` ends."""

        def serve() -> None:
            self._selector.unregister(child.pidfd)
            child.poll()
            then()

        self._selector.register(child.pidfd, selectors.EVENT_READ, serve)

    def forget(self, file: int | IO[bytes] | Child) -> None:
        """Stop watching it, whether or not it was watched."""
        number: int | IO[bytes] = file.pidfd if isinstance(file, Child) else file
        try:
            self._selector.unregister(number)
        except (KeyError, ValueError):
            pass

    def until(
        self,
        done: Callable[[], bool],
        *,
        seconds: float | None = None,
        tick: Callable[[], None] | None = None,
        interval: float = 1.0,
        stoppable: bool = True,
    ) -> bool:
        """Serve until ``done``, then True; False when ``seconds`` are over before.

        ``tick`` is called about every ``interval`` seconds. A stop raises, unless
        ``stoppable`` is false: that is for the code that cleans up after one.
        """
        end = None if seconds is None else time.monotonic() + seconds
        next_tick = time.monotonic() + interval
        while not done():
            if stoppable:
                self.stop.check()
            now = time.monotonic()
            if end is not None and now >= end:
                return False
            if tick is not None and now >= next_tick:
                tick()
                next_tick = time.monotonic() + interval
            moments = [moment for moment in (end, next_tick if tick else None) if moment]
            if stoppable and self.stop.deadline is not None:
                moments.append(self.stop.deadline)
            wait = max(0.0, min(moments) - now) if moments else None
            for key, _ in self._selector.select(wait):
                if key.data is not None:
                    key.data()
                else:
                    self._drain(stoppable)
        return True

    def _drain(self, stoppable: bool) -> None:
        """Empty the wake-up pipe, or a noted signal would make every wait a busy one."""
        if stoppable:
            self.stop.check()
        try:
            os.read(self.stop.fileno(), READ_SIZE)
        except BlockingIOError:
            pass
        if self.stop.adopts:
            reap_adopted()

    def end(self, child: Child, *, grace: float, group: bool = False) -> int | None:
        """SIGTERM, ``grace`` seconds, SIGKILL; the exit code, or None if even that failed.

        With ``grace`` 0, or when somebody asked twice, SIGKILL at once.
        """

        def ended() -> bool:
            return child.poll() is not None

        def ended_or_hurried() -> bool:
            return ended() or self.stop.impatient

        self.forget(child)
        self.exits(child, lambda: None)
        if grace > 0 and not self.stop.impatient:
            child.signal(signal.SIGTERM, group=group)
            self.until(ended_or_hurried, seconds=grace, stoppable=False)
        child.signal(signal.SIGKILL, group=group)
        self.until(ended, seconds=KILL_WAIT, stoppable=False)
        self.forget(child)
        return child.poll()
