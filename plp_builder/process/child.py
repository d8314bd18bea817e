"""Processes, from their start to their exit code: no other module starts any.

Every child gets a session of its own, so that a Ctrl-C of the terminal reaches only us, and
``PR_SET_PDEATHSIG`` (prctl(2)) through setpriv(1), so that none outlives us even when we are
killed with SIGKILL.
"""

from __future__ import annotations

import os
import subprocess
import time
from typing import TYPE_CHECKING

from plp_builder.errors import ResourcesExhausted, TimedOut, ToolNotFound, exhausted
from plp_builder.signals import signal
from plp_builder.tuples import NamedTuple

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping, Sequence
    from typing import IO, Any, NoReturn

    from plp_builder.users import User

PIPE, DEVNULL = -1, -3
"""What a stream is to be, if not a descriptor: as subprocess has them, which takes longer to import
than to start a process."""

_BETWEEN_LOOKS = 0.0002
"""Seconds."""

_NOT_EXECUTED = 127
"""The exit code for it, as of a shell."""


class Completed(NamedTuple):
    """What a process that :func:`run` waited for has left."""

    argv: tuple[str, ...]
    code: int
    stdout: bytes
    stderr: bytes


class Child:
    """A started process, held by a pidfd so that a signal never meets a stranger."""

    def __init__(self, process: subprocess.Popen[bytes] | _Forked, name: str) -> None:
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
            if not (group and self._signal_group(number)):
                signal.pidfd_send_signal(self.pidfd, number)
        except (ProcessLookupError, PermissionError):
            pass

    def _signal_group(self, number: int) -> bool:
        """Whether there is a group: in its first moments a process is in ours."""
        try:
            os.killpg(self.pid, number)
        except ProcessLookupError:
            return False
        return True

    def hold(self, patience: float = 1.0) -> None:
        """Stop it where it is, so that it starts nothing more; a process that ended is fine.

        One that has not stopped after ``patience`` seconds is let be.
        """
        self.signal(signal.SIGSTOP)
        stopped = os.WSTOPPED | os.WEXITED | os.WNOWAIT | os.WNOHANG
        end = time.monotonic() + patience
        try:
            while time.monotonic() < end and os.waitid(os.P_PIDFD, self.pidfd, stopped) is None:
                time.sleep(_BETWEEN_LOOKS)
        except OSError:  # somebody else's by now, or a kernel that cannot wait for pidfds
            pass

    def close(self) -> None:
        """Let go of the descriptors; the process must have ended."""
        for stream in (self._process.stdout, self._process.stderr):
            if stream is not None:
                stream.close()
        if self.pidfd >= 0:
            os.close(self.pidfd)
            self.pidfd = -1


class _Forked:
    """A process that was forked here: what of subprocess.Popen is needed."""

    stdout = None

    def __init__(self, pid: int, stderr: IO[bytes] | None) -> None:
        self.pid = pid
        self.stderr = stderr
        self._code: int | None = None

    def poll(self) -> int | None:
        return self._wait(os.WNOHANG)

    def wait(self) -> int | None:
        return self._wait(0)

    def kill(self) -> None:
        os.kill(self.pid, signal.SIGKILL)

    def _wait(self, options: int) -> int | None:
        if self._code is None:
            try:
                pid, status = os.waitpid(self.pid, options)
            except ChildProcessError:  # who started us ignores SIGCHLD: nobody hears of a code
                pid, status = self.pid, 0
            if pid:
                self._code = os.waitstatus_to_exitcode(status)
        return self._code


_started: dict[int, subprocess.Popen[bytes] | _Forked] = {}
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
    stdin: int = DEVNULL,
    stdout: int = DEVNULL,
    stderr: int = DEVNULL,
    user: User | None = None,
    pass_fds: Sequence[int] = (),
) -> Child:
    """Start a program that lives no longer than we do, as another user if one is given.

    The streams are descriptors, PIPE or DEVNULL. Another user's program gets no supplementary
    group and no capability. Raises ToolNotFound, ResourcesExhausted.
    """
    words = _bound(argv, env, user)
    streams = {"stdin": stdin, "stdout": stdout, "stderr": stderr}
    return _held(_popen(words, env=dict(env), pass_fds=pass_fds, **streams), argv)


def fork(
    argv: Sequence[str],
    prepare: Callable[[], object] | None,
    *,
    env: Mapping[str, str],
    stdin: int,
    user: User | None = None,
    pass_fds: Sequence[int] = (),
) -> Child:
    """The same, without waiting until the program is executed: a program that cannot be says so.

    ``prepare`` is called before, in the new process, as ourselves. There may be no other thread.
    Of the streams only the error output is to be read. Raises as `start`.
    """
    words = _bound(argv, env, user)
    try:
        reads, writes = os.pipe2(os.O_CLOEXEC)
    except OSError as error:
        raise _refusal(error) from error
    try:
        pid = os.fork()
        if pid == 0:
            _become(words, prepare, env, (stdin, writes), pass_fds)
    except OSError as error:
        os.close(reads)
        raise _refusal(error) from error
    finally:
        os.close(writes)
    return _held(_Forked(pid, os.fdopen(reads, "rb", buffering=0)), argv)


def _become(
    words: list[str],
    prepare: Callable[[], object] | None,
    env: Mapping[str, str],
    streams: tuple[int, int],
    pass_fds: Sequence[int],
) -> NoReturn:
    """Be the new process, from its first moment on; ``streams`` are its input and error output."""
    try:
        os.dup2(streams[1], 2)
        os.dup2(streams[0], 0)
        os.dup2(os.open(os.devnull, os.O_WRONLY | os.O_CLOEXEC), 1)
        _keep(pass_fds)
        os.setsid()
        for number in (signal.SIGPIPE, signal.SIGXFSZ):  # which Python ignores
            signal.signal(number, signal.SIG_DFL)
        if prepare:
            prepare()
        os.execve(words[0], words, env)  # noqa: S606 - no shell is wanted
    except BaseException as error:  # noqa: BLE001 - nothing may go on as if it were our parent
        os.write(2, f"{words[0]}: {error}\n".encode(errors="backslashreplace"))
    finally:
        os._exit(_NOT_EXECUTED)


def _keep(descriptors: Sequence[int]) -> None:
    """Pass on these and the three streams, and nothing else that our caller has left open for us.

    What is not passed on stays open until the program is executed: somebody here may count on it.
    """
    for number in map(int, os.listdir("/proc/self/fd")):
        if number > 2:
            try:
                os.set_inheritable(number, number in descriptors)
            except OSError:  # the listing's own
                pass


def _bound(argv: Sequence[str], env: Mapping[str, str], user: User | None) -> list[str]:
    """The words that start a program which ends with us."""
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
    return [*prefix, "--", program, *argv[1:]]


def _held(process: subprocess.Popen[bytes] | _Forked, argv: Sequence[str]) -> Child:
    _started[process.pid] = process
    try:
        return Child(process, os.path.basename(argv[0]))
    except OSError as error:
        process.kill()
        process.wait()
        for stream in (process.stdout, process.stderr):
            if stream is not None:
                stream.close()
        raise (exhausted(error) or error) from error


def _popen(argv: list[str], **options: Any) -> subprocess.Popen[bytes]:
    try:
        return subprocess.Popen(argv, start_new_session=True, **options)
    except OSError as error:
        raise _refusal(error) from error


def _refusal(error: OSError) -> Exception:
    if isinstance(error, BlockingIOError):  # fork(2): EAGAIN
        return ResourcesExhausted("the system gives us no more processes", why=[str(error)])
    return exhausted(error) or error


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
        stdin=PIPE,
        stdout=PIPE,
        stderr=PIPE,
        pass_fds=pass_fds,
    )
    _started[process.pid] = process
    return Begun(tuple(argv), process)
