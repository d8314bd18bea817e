"""Starts, watches and stops a rootless buildkitd of the builder's own.

Readiness comes by sd_notify(3): buildkitd sends ``READY=1`` to ``$NOTIFY_SOCKET`` just before
it serves. That is why this is not upstream's buildctl-daemonless.sh, which polls for about two
seconds, does not see that the daemon died, and leaves processes behind on SIGTERM.
"""

from __future__ import annotations

import os
import socket
import subprocess
import sys
from collections.abc import Callable, Mapping
from dataclasses import dataclass, replace
from typing import Self

from plp_builder.buildkit import Endpoint, leftovers
from plp_builder.buildkit.runtime import Runtime, abandoned, candidates, create, remove
from plp_builder.buildkit.sandbox import NO_PROCESS_SANDBOX, Sandbox
from plp_builder.errors import DaemonDied, DaemonFailure, DaemonNotReady, RootlessNotPermitted
from plp_builder.process import Child, Lines, Tail, User, Watch, start

DAEMON_GRACE = 2.0
"""Seconds between SIGTERM and SIGKILL when a run is stopped: mid-build the daemon would wait
for the build, whose result nobody wants any more."""

IDLE_GRACE = 0.0
"""The same at the end of a build: the daemon is idle and its state is thrown away, so there is
nothing that it could still do well."""

LAST_WORDS = 0.1
"""Seconds in which a daemon that died is noticed, and its last lines arrive."""

ROOT = User("root", 0, 0, "/root")

_PASSED_ON = (
    "PATH", "LANG", "LC_ALL", "TZ", "SSL_CERT_FILE", "SSL_CERT_DIR",
    "HTTP_PROXY", "HTTPS_PROXY", "NO_PROXY", "ALL_PROXY",
    "http_proxy", "https_proxy", "no_proxy", "all_proxy",
)  # fmt: skip
"""What the daemon gets of our environment; secrets and tokens have no business there."""

_UNREACHABLE = "http://127.0.0.1:9"
"""A proxy that is not there (the discard port), for a daemon that must stay offline."""

_CAUSES = (
    "level=error", "level=fatal", "level=panic", "error:", "panic:", "[rootlesskit", "failed",
)  # fmt: skip
_NOT_PERMITTED = (
    "operation not permitted", "permission denied", "newuidmap", "newgidmap", "subuid",
)  # fmt: skip


@dataclass(frozen=True, slots=True)
class Plan:
    """All that a start depends on.

    ``user`` is None for a daemon as root; ``by_root`` is whether root starts it, for whomever.
    """

    runtime: Runtime
    user: User | None
    sandbox: Sandbox
    flags: tuple[str, ...] = ()
    debug: bool = False
    offline: bool = False
    host_network: bool = False
    by_root: bool = True


def plan(
    user: User | None,
    flags: tuple[str, ...],
    masked: tuple[str, ...],
    environ: Mapping[str, str],
    *,
    debug: bool,
    offline: bool,
    host_network: bool,
) -> Plan:
    """Fresh directories for the run, and the strongest sandbox that can work.

    ``masked`` are the hidden parts of /proc. Raises RootlessNotPermitted when there is no
    place for the directories.
    """
    return Plan(
        create(candidates(environ), user or ROOT),
        user,
        sandbox_for(user, flags, masked),
        flags,
        debug,
        offline,
        host_network,
        by_root=os.geteuid() == 0,
    )


def sandbox_for(user: User | None, flags: tuple[str, ...], masked: tuple[str, ...]) -> Sandbox:
    """The strongest sandbox that can work; a user's own flag wins."""
    if user is None:
        return Sandbox.ROOT
    return Sandbox.NONE if masked or NO_PROCESS_SANDBOX in flags else Sandbox.PROCESS


def nosync(parent: int) -> tuple[str, ...]:
    """What runs a program so that it never waits for the disk (see nosync.py).

    The daemon's state lives no longer than the build. ``parent`` may be 0. Nothing where this
    Python cannot be started again, for example after its user has changed.
    """
    if not os.access(sys.executable, os.X_OK):
        return ()
    script = os.path.join(os.path.dirname(__file__), "nosync.py")
    return (sys.executable, "-I", "-S", script, str(parent))


def arguments(plan: Plan) -> tuple[str, ...]:
    """The whole command line, from the wrapper that keeps the daemon's processes together."""
    runtime = plan.runtime
    daemon = [
        "buildkitd",
        f"--config={runtime.config}",
        f"--root={runtime.state}",
        f"--addr=unix://{runtime.socket}",
        "--containerd-worker=false",
        # The state lives as long as the build: collecting garbage in it is wasted work.
        "--oci-worker-gc=false",
    ]
    if plan.host_network:
        daemon.append("--allow-insecure-entitlement=network.host")
    if plan.debug:
        daemon.append("--debug")
    if plan.sandbox is Sandbox.NONE and NO_PROCESS_SANDBOX not in plan.flags:
        daemon.append(NO_PROCESS_SANDBOX)
    daemon += plan.flags
    return (*_wrapper(plan), *daemon)


def _wrapper(plan: Plan) -> tuple[str, ...]:
    """A PID namespace wherever possible: when its first process goes, the kernel ends the rest.

    A mount namespace likewise takes all mounts with it.
    """
    if plan.sandbox is Sandbox.ROOT:
        return ("unshare", "--mount", "--pid", "--fork", "--kill-child", "--mount-proc")
    words = ["rootlesskit", "--net=host", f"--state-dir={plan.runtime.daemon}/rootlesskit"]
    if plan.sandbox is Sandbox.PROCESS:
        words.append("--pidns")
    if not plan.by_root:
        words += nosync(0)
    return tuple(words)


def environment(plan: Plan, environ: Mapping[str, str]) -> dict[str, str]:
    """The daemon's environment: what it needs, and nothing that came in as a secret."""
    env = {key: environ[key] for key in _PASSED_ON if environ.get(key)}
    env.setdefault("PATH", os.defpath)
    env["NOTIFY_SOCKET"] = str(plan.runtime.notify_socket)
    env["XDG_RUNTIME_DIR"] = str(plan.runtime.daemon)
    env["TMPDIR"] = str(plan.runtime.daemon)
    # A home of its own: the user's may be missing or closed, and has no say in the build.
    env["HOME"] = str(plan.runtime.daemon)
    env["USER"] = env["LOGNAME"] = plan.user.name if plan.user else "root"
    if plan.offline:
        for name in ("HTTP_PROXY", "HTTPS_PROXY", "http_proxy", "https_proxy"):
            env[name] = _UNREACHABLE
    return env


def explain(
    log: list[str], code: int | None, plan: Plan, *, ready: bool
) -> DaemonFailure | RootlessNotPermitted:
    """Why a daemon ended, from the last lines of its log."""
    relevant = [line for line in log if any(cause in line for cause in _CAUSES)] or log
    why = relevant[-8:] or ["it left no message"]
    how = "was ended by a signal" if code is not None and code < 0 else f"ended with code {code}"
    text = "\n".join(relevant).lower()
    kind = "rootless" if plan.user else "plain"
    if not ready and any(word in text for word in _NOT_PERMITTED):
        return RootlessNotPermitted(
            f"{kind} BuildKit cannot start here: operation not permitted",
            why=why,
        )
    if "address already in use" in text or "could not lock" in text:
        hint = "Another daemon uses the same directory; wait for it to end."
    elif "unknown flag" in text or "flag provided but not defined" in text:
        hint = "Correct PLP_BUILDKITD_FLAGS; `buildkitd --help` lists the flags."
    elif "failed to load config" in text or "toml" in text:
        hint = "Correct the file that PLP_BUILDKITD_CONFIG names."
    elif code is not None and code in (-9, 137):
        hint = "It was killed, most likely for want of memory: raise the container's limit."
    else:
        hint = "Run again with PLP_DEBUG=true for the daemon's whole log."
    when = "while it was needed" if ready else "before it was ready"
    return DaemonDied(f"buildkitd {how} {when}", why=why, hint=hint)


class Daemon:
    """A daemon of our own: a context manager that starts it, and leaves nothing of it behind.

    Inside, its death is raised by whatever waits on the watch (see :func:`explain`). ``say``
    gets each line of its log.
    """

    def __init__(
        self,
        plan: Plan,
        environ: Mapping[str, str],
        config: str,
        watch: Watch,
        say: Callable[[str], None],
    ) -> None:
        self.plan = plan
        self.endpoint = Endpoint(f"unix://{plan.runtime.socket}")
        self.log = Tail()
        self.weakened: tuple[str, ...] = ()
        self._environ = environ
        self._config = config
        self._watch = watch
        self._say = say
        self._child: Child | None = None
        self._notify: socket.socket | None = None
        self._ready = False
        self._suspects: set[int] = set()

    def __enter__(self) -> Self:
        try:
            self._launch()
        except BaseException:
            self._remove()
            raise
        return self

    def __exit__(self, kind: type[BaseException] | None, *_: object) -> None:
        try:
            self.stop(IDLE_GRACE if kind is None else DAEMON_GRACE)
        finally:
            self._remove()

    def ready(self, seconds: float) -> None:
        """Wait for ``READY=1``; try the weaker sandbox where the stronger one is refused.

        ``weakened`` then says why. Raises DaemonNotReady after ``seconds``, or what
        :func:`explain` makes of a death.
        """
        try:
            self._wait(seconds)
        except RootlessNotPermitted as refused:
            if self.plan.sandbox is not Sandbox.PROCESS:
                raise
            self.stop(0)
            self.plan = replace(self.plan, sandbox=Sandbox.NONE)
            self._launch()
            try:
                self._wait(seconds)
            except RootlessNotPermitted:
                raise refused from None
            self.weakened = refused.why

    def check(self) -> None:
        """Raise what :func:`explain` makes of it if the daemon has died or is just dying."""
        self._watch.until(lambda: False, seconds=LAST_WORDS, stoppable=False)

    def end_hanging_steps(self) -> int:
        """Without the process sandbox, end what steps left running; how many there were.

        Only what was there at the last look as well: a step that is just ending is not ours.
        """
        if self.plan.sandbox is not Sandbox.NONE:
            return 0
        found = leftovers.hanging(self.plan.runtime.runc, leftovers.parents())
        certain = found & self._suspects
        self._suspects = found - certain
        leftovers.kill(certain, self._env)
        return len(certain)

    def stop(self, grace: float) -> None:
        """End the daemon and everything that it started; may be called again."""
        child, self._child = self._child, None
        if child is not None:
            self._watch.forget(child)
            # unshare(1) ignores SIGTERM while it waits for its child; rootlesskit passes it on.
            self._watch.end(child, grace=grace, group=self.plan.sandbox is Sandbox.ROOT)
            self._watch.forget(child.stderr)
            child.close()
            if self.plan.sandbox is Sandbox.NONE:
                leftovers.end_all(self._env)
        if self._notify is not None:
            self._watch.forget(self._notify.fileno())
            self._notify.close()
            self._notify = None

    @property
    def _env(self) -> dict[str, str]:
        return environment(self.plan, self._environ)

    def _launch(self) -> None:
        plan = self.plan
        if plan.sandbox is Sandbox.NONE:
            leftovers.adopt_orphans()
        plan.runtime.config.write_text(self._config, "utf-8")
        plan.runtime.notify_socket.unlink(missing_ok=True)
        self._notify = socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM)
        self._notify.bind(str(plan.runtime.notify_socket))
        if plan.user is not None and plan.by_root:
            for path in (plan.runtime.config, plan.runtime.notify_socket):
                os.chown(path, plan.user.uid, plan.user.gid)
        child = start(
            arguments(plan),
            env=self._env,
            stderr=subprocess.PIPE,
            user=plan.user,
            launcher=nosync(os.getpid()) if plan.by_root else (),
        )
        self._child = child
        self._watch.reads(child.stderr, Lines(self._heard))
        self._watch.reads(self._notify.fileno(), self._notified)
        self._watch.exits(child, lambda: self._died(child))

    def _wait(self, seconds: float) -> None:
        if not self._watch.until(lambda: self._ready, seconds=seconds):
            raise DaemonNotReady(
                f"buildkitd was not ready within PLP_START_TIMEOUT ({seconds:g} s)",
                why=self.log.text()[-8:] or ["it said nothing"],
                hint="Raise PLP_START_TIMEOUT on a slow machine; PLP_DEBUG=true shows the "
                "daemon's whole log.",
            )

    def _heard(self, line: bytes) -> None:
        self.log(line)
        self._say(line.decode("utf-8", "replace"))

    def _notified(self, message: bytes) -> None:
        """A datagram of sd_notify(3): newline-separated assignments."""
        if b"READY=1" in message.split(b"\n"):
            self._ready = True

    def _died(self, child: Child) -> None:
        # The log's last words may still be on their way.
        self._watch.until(lambda: False, seconds=LAST_WORDS, stoppable=False)
        raise explain(self.log.text(), child.poll(), self.plan, ready=self._ready)

    def _remove(self) -> None:
        left = remove(self.plan.runtime, self._env)
        for path in left:
            self._say(f"could not remove {path}")


def sweep(environ: Mapping[str, str]) -> int:
    """Remove the directories of runs that were killed; how many there were."""
    found = 0
    for runtime in abandoned(candidates(environ)):
        remove(runtime, environ)
        found += 1
    return found
