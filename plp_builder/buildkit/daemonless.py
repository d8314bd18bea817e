"""Starts, watches and stops a rootless buildkitd of the builder's own.

Readiness comes by sd_notify(3): buildkitd sends ``READY=1`` to ``$NOTIFY_SOCKET`` just before
it serves. That is why this is not upstream's buildctl-daemonless.sh, which polls for about two
seconds, does not see that the daemon died, and leaves processes behind on SIGTERM.
"""

from __future__ import annotations

import os
import socket
import subprocess
import time
from collections.abc import Callable, Mapping
from dataclasses import dataclass

from plp_builder.buildkit import Endpoint, leftovers
from plp_builder.buildkit.runtime import Runtime
from plp_builder.buildkit.sandbox import NO_PROCESS_SANDBOX, Sandbox
from plp_builder.errors import DaemonDied, DaemonFailure, DaemonNotReady, RootlessNotPermitted
from plp_builder.process import Child, Lines, Tail, Watch, start

DAEMON_GRACE = 2.0
"""Seconds between SIGTERM and SIGKILL when a run is stopped: mid-build the daemon would wait
for the build, whose result nobody wants any more."""

IDLE_GRACE = 0.3
"""The same at the end of a build: the state is thrown away, so there is nothing to save."""

_PASSED_ON = (
    "PATH", "LANG", "LC_ALL", "TZ", "SSL_CERT_FILE", "SSL_CERT_DIR",
    "HTTP_PROXY", "HTTPS_PROXY", "NO_PROXY", "ALL_PROXY",
    "http_proxy", "https_proxy", "no_proxy", "all_proxy",
)  # fmt: skip
"""What the daemon gets of our environment; secrets and tokens have no business there."""

_UNREACHABLE = "http://127.0.0.1:9"
"""A proxy that is not there (the discard port), for a daemon that must stay offline."""

_CAUSES = ("level=error", "level=fatal", "level=panic", "error:", "panic:", "[rootlesskit", "failed")
_NOT_PERMITTED = ("operation not permitted", "permission denied", "newuidmap", "newgidmap", "subuid")

ROOTLESS_HINT = (
    "Docker: add --privileged, or --security-opt seccomp=unconfined --security-opt "
    "apparmor=unconfined; without no-new-privileges. Kubernetes: seccompProfile and "
    "appArmorProfile Unconfined. `python -m plp_builder doctor` shows what is missing."
)


@dataclass(frozen=True, slots=True)
class Account:
    """The user who runs the daemon."""

    uid: int
    gid: int
    name: str
    home: str


@dataclass(frozen=True, slots=True)
class Plan:
    """All that a start depends on. ``account`` is None for a daemon as root."""

    runtime: Runtime
    account: Account | None
    sandbox: Sandbox
    flags: tuple[str, ...]
    debug: bool
    offline: bool


def sandbox_for(account: Account | None, flags: tuple[str, ...], masked: tuple[str, ...]) -> Sandbox:
    """The strongest sandbox that can work; a user's own flag wins."""
    if account is None:
        return Sandbox.ROOT
    return Sandbox.NONE if masked or NO_PROCESS_SANDBOX in flags else Sandbox.PROCESS


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
    rootlesskit = ("rootlesskit", "--net=host", f"--state-dir={plan.runtime.daemon}/rootlesskit")
    return (*rootlesskit, "--pidns") if plan.sandbox is Sandbox.PROCESS else rootlesskit


def environment(plan: Plan, environ: Mapping[str, str]) -> dict[str, str]:
    """The daemon's environment: what it needs, and nothing that came in as a secret."""
    env = {key: environ[key] for key in _PASSED_ON if environ.get(key)}
    env.setdefault("PATH", os.defpath)
    env["NOTIFY_SOCKET"] = str(plan.runtime.notify_socket)
    env["XDG_RUNTIME_DIR"] = str(plan.runtime.daemon)
    env["TMPDIR"] = str(plan.runtime.daemon)
    if plan.account is None:
        env["HOME"] = environ.get("HOME") or "/root"
        env["USER"] = "root"
    else:
        env["HOME"] = plan.account.home
        env["USER"] = env["LOGNAME"] = plan.account.name
    if plan.offline:
        for name in ("HTTP_PROXY", "HTTPS_PROXY", "http_proxy", "https_proxy"):
            env[name] = _UNREACHABLE
    return env


def explain(log: list[str], code: int | None, plan: Plan, *, ready: bool) -> DaemonFailure | RootlessNotPermitted:
    """Why a daemon ended, from the last lines of its log."""
    relevant = [line for line in log if any(cause in line for cause in _CAUSES)] or log
    why = relevant[-8:] or ["it left no message"]
    how = "was ended by a signal" if code is not None and code < 0 else f"ended with code {code}"
    text = "\n".join(relevant).lower()
    kind = "rootless" if plan.account else "plain"
    if not ready and any(word in text for word in _NOT_PERMITTED):
        return RootlessNotPermitted(
            f"{kind} BuildKit cannot start here: operation not permitted",
            why=why,
            hint=ROOTLESS_HINT,
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
    """A started daemon. ``died`` raises through the watch as soon as the process ends."""

    def __init__(self, plan: Plan, watch: Watch, child: Child, env: Mapping[str, str]) -> None:
        self.plan = plan
        self.endpoint = Endpoint(f"unix://{plan.runtime.socket}")
        self.log = Tail()
        self._watch = watch
        self._child = child
        self._env = env
        self._ready = False
        self._suspects: set[int] = set()

    def wait_until_ready(self, seconds: float) -> None:
        """Wait for ``READY=1``. Raises DaemonNotReady, or what :func:`explain` makes of a death."""
        began = time.monotonic()
        if not self._watch.until(lambda: self._ready, seconds=seconds):
            raise DaemonNotReady(
                f"buildkitd was not ready within PLP_START_TIMEOUT ({seconds:g} s)",
                why=self.log.text()[-8:] or [f"no message for {time.monotonic() - began:.1f} s"],
                hint="Raise PLP_START_TIMEOUT on a slow machine; PLP_DEBUG=true shows the "
                "daemon's whole log.",
            )

    def notified(self, message: bytes) -> None:
        """A datagram of the notify socket: newline-separated assignments."""
        if b"READY=1" in message.split(b"\n"):
            self._ready = True

    def died(self) -> None:
        code = self._child.poll()
        self._watch.until(lambda: False, seconds=0.05, stoppable=False)  # the log's last words
        raise explain(self.log.text(), code, self.plan, ready=self._ready)

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
        """End the daemon and everything it has left."""
        self._watch.forget(self._child)
        # unshare(1) ignores SIGTERM while it waits for its child; rootlesskit passes it on.
        self._watch.end(self._child, grace=grace, group=self.plan.sandbox is Sandbox.ROOT)
        if self.plan.sandbox is Sandbox.NONE:
            leftovers.end_all(set(), self._env)
        if self._child.stderr is not None:
            self._watch.forget(self._child.stderr.fileno())
        self._child.close()


def launch(plan: Plan, environ: Mapping[str, str], config: str, watch: Watch,
           log: Callable[[str], None]) -> Daemon:
    """Start the daemon, without waiting for it. ``log`` gets each line that it says.

    Raises ToolNotFound, OSError.
    """
    if plan.sandbox is Sandbox.NONE:
        leftovers.adopt_orphans()
    uid, gid = (plan.account.uid, plan.account.gid) if plan.account else (os.geteuid(), os.getegid())
    plan.runtime.config.write_text(config, "utf-8")
    notify = socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM)
    notify.bind(str(plan.runtime.notify_socket))
    other = uid != os.geteuid()
    if other:
        for path in (plan.runtime.config, plan.runtime.notify_socket):
            os.chown(path, uid, gid)
    env = environment(plan, environ)
    child = start(
        arguments(plan),
        env=env,
        stdout=subprocess.DEVNULL,
        stderr=subprocess.PIPE,
        uid=uid if other else None,
        gid=gid if other else None,
    )
    daemon = Daemon(plan, watch, child, env)

    def say(line: bytes) -> None:
        daemon.log(line)
        log(line.decode("utf-8", "replace"))

    assert child.stderr is not None
    watch.reads(child.stderr, Lines(say))
    watch.reads(notify.detach(), daemon.notified)
    watch.exits(child, daemon.died)
    return daemon
