"""Processes, from their start to their exit code: no other module starts any.

Every child gets a session of its own, so that a Ctrl-C of the terminal reaches only us, and
``PR_SET_PDEATHSIG`` (prctl(2)) through setpriv(1), so that none outlives us even when we are
killed with SIGKILL.
"""

from __future__ import annotations

import os
import signal
import subprocess
from collections.abc import Callable, Mapping, Sequence
from typing import IO, TYPE_CHECKING, Any

from plp_builder.errors import ResourcesExhausted, TimedOut, ToolNotFound, exhausted
from plp_builder.tuples import NamedTuple

if TYPE_CHECKING:
    from plp_builder.users import User


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
    return begin(argv, env=env, pass_fds=pass_fds).finish(timeout, input)


class Begun:
    """A small program under way; `finish` must be called."""

    def __init__(self, argv: tuple[str, ...], process: subprocess.Popen[bytes]) -> None:
        self._argv = argv
        self._process = process

    def finish(self, timeout: float, input: bytes = b"") -> Completed:
        """Wait for its end, at most ``timeout`` s from now on. Raises TimedOut."""
        try:
            stdout, stderr = self._process.communicate(input, timeout)
        except subprocess.TimeoutExpired:
            os.killpg(self._process.pid, signal.SIGKILL)
            self._process.communicate()
            what = f"{self._argv[0]} did not end within {timeout:g} s"
            raise TimedOut(what, hint="") from None
        return Completed(self._argv, self._process.returncode, stdout, stderr)


def begin(argv: Sequence[str], *, env: Mapping[str, str], pass_fds: Sequence[int] = ()) -> Begun:
    """Start a small program that others may run beside. Raises as `run`."""
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
    return Begun(tuple(argv), process)
