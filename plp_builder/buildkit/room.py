"""Where the daemon will live: a user, namespaces, private directories.

A room is made before the settings are read, because making namespaces takes as long as importing
the library that reads them. Whatever happens in it then is decided by the settings.
"""

from __future__ import annotations

import os
import sys
from functools import partial
from typing import TYPE_CHECKING

from plp_builder.buildkit.runtime import Runtime, candidates, create
from plp_builder.buildkit.sandbox import Sandbox
from plp_builder.tuples import NamedTuple
from plp_builder.users import IdMap, User

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping

ROOT = User("root", 0, 0, "/root")

_PASSED_ON = (
    "PATH", "LANG", "LC_ALL", "TZ", "SSL_CERT_FILE", "SSL_CERT_DIR",
    "HTTP_PROXY", "HTTPS_PROXY", "NO_PROXY", "ALL_PROXY",
    "http_proxy", "https_proxy", "no_proxy", "all_proxy",
)  # fmt: skip
"""What the daemon gets of our environment; secrets and tokens have no business there."""

_ALONE = frozenset({"x86_64"})
"""Machines on which a daemon need not try out other platforms, unless the kernel has an emulator:
variants of their own it knows without a trial, and for all others it looks for an emulator of its
own when a step needs it (BuildKit's solver/llbsolver/ops/exec_binfmt.go). An arm64 may run programs
for arm itself."""
_EMULATORS = "/proc/sys/fs/binfmt_misc"


class Room(NamedTuple):
    """``user`` is None for root; ``by_root`` is whether root makes the room, for whomever.

    ``ids`` is for unshare(1), which makes a rootless room in a sixth of rootlesskit's time; without
    them rootlesskit makes it.
    """

    runtime: Runtime
    user: User | None
    sandbox: Sandbox
    by_root: bool = True
    ids: IdMap | None = None

    @property
    def by_unshare(self) -> bool:
        """Whether unshare(1) makes it, which has a single process of its own."""
        return self.sandbox is Sandbox.ROOT or self.ids is not None

    @property
    def uids(self) -> frozenset[int]:
        """Of the daemon's user, and of its client."""
        return frozenset({(self.user or ROOT).uid, os.geteuid()})

    def another(self) -> Room | None:
        """The next to try where this one is refused; None if there is none."""
        if self.sandbox is not Sandbox.PROCESS:
            return None
        return self._replace(ids=None) if self.ids else self.with_sandbox(Sandbox.NONE)

    def with_sandbox(self, sandbox: Sandbox) -> Room:
        """The same with another sandbox."""
        return self._replace(sandbox=sandbox, ids=None)


def room(
    user: User | None,
    masked: tuple[str, ...],
    environ: Mapping[str, str],
    ids: IdMap | None = None,
) -> Room:
    """Fresh directories for the run, and the strongest sandbox that can work.

    ``masked`` are the hidden parts of /proc; ``ids`` those of ``user``, where unshare(1) can map
    them. Raises RootlessNotPermitted when there is no place for the directories.
    """
    tries = os.uname().machine not in _ALONE or _has_emulators()
    runtime = create(candidates(environ), user or ROOT, temporary=tries)
    sandbox = sandbox_for(user, masked)
    used = ids if sandbox is Sandbox.PROCESS else None
    return Room(runtime, user, sandbox, by_root=os.geteuid() == 0, ids=used)


def _has_emulators() -> bool:
    """Whether the kernel runs programs of other platforms: their names begin like this."""
    try:
        return any(name.startswith("qemu-") for name in os.listdir(_EMULATORS))
    except OSError:
        return False


def sandbox_for(user: User | None, masked: tuple[str, ...]) -> Sandbox:
    """The strongest sandbox that can work."""
    if user is None:
        return Sandbox.ROOT
    return Sandbox.NONE if masked else Sandbox.PROCESS


def wrapper(room: Room) -> tuple[str, ...]:
    """The words before a command line that make namespaces for it.

    A PID namespace wherever possible: when its first process goes, the kernel ends the rest. A
    mount namespace likewise takes all mounts with it.
    """
    if room.by_unshare:
        mapping = _mapping(room.ids) if room.ids and room.by_root else ()
        words = ["unshare", *mapping, "--mount", "--pid", "--fork", "--kill-child", "--mount-proc"]
    else:
        words = [
            "rootlesskit",
            "--net=host",
            # /etc/subuid and /etc/subgid have been looked at: no getsubids(1) four times over.
            "--subid-source=static",
            f"--state-dir={room.runtime.daemon}/rootlesskit-{_kind(room)}",
        ]
        if room.sandbox is Sandbox.PROCESS:
            words.append("--pidns")
        if not room.by_root and os.access(sys.executable, os.X_OK):
            script = os.path.join(os.path.dirname(__file__), "nosync.py")
            words += [sys.executable, "-I", "-S", script]
    return tuple(words)


def _kind(room: Room) -> str:
    return "pidns" if room.sandbox is Sandbox.PROCESS else "plain"


def _mapping(ids: IdMap) -> tuple[str, ...]:
    """The words that map root to the user, and all other ids to the user's subordinate ones.

    In the notation of util-linux 2.38, which later ones also take (unshare(1)).
    """
    users, groups = (f"{first},1,{count}" for first, count in ids)
    return "--map-root-user", f"--map-users={users}", f"--map-groups={groups}"


def preparation(room: Room) -> Callable[[], object] | None:
    """What to do in the wrapper's first process so that nothing in it waits for the disk.

    The filter for that is set by root, or by an ordinary user in a namespace of its own. None where
    only a process inside rootlesskit's can do it, of which ``wrapper`` takes care.
    """
    if not (room.by_root or room.ids):
        return None
    return partial(_prepare, None if room.by_root else room.ids)


def _prepare(ids: IdMap | None) -> None:
    from plp_builder.buildkit import nosync

    if ids:
        from plp_builder.buildkit import namespace

        try:
            namespace.enter(ids)
        except OSError as error:
            os.write(2, f"unshare: {error}\n".encode())
            os._exit(1)
    nosync.install(os.uname().machine)


def environment(room: Room, environ: Mapping[str, str]) -> dict[str, str]:
    """The environment in the room: what a daemon needs, and nothing that came in as a secret."""
    env = {key: environ[key] for key in _PASSED_ON if environ.get(key)}
    env.setdefault("PATH", os.defpath)
    env["NOTIFY_SOCKET"] = room.runtime.notify_socket
    env["XDG_RUNTIME_DIR"] = room.runtime.daemon
    env["XDG_CONFIG_HOME"] = room.runtime.daemon
    env["TMPDIR"] = room.runtime.temporary
    # A home of its own: the user's may be missing or closed, and has no say in the build.
    env["HOME"] = room.runtime.daemon
    # Go's collector at its usual pace holds up the daemon's start (docs/performance.md).
    env["GOGC"] = environ.get("GOGC") or "200"
    env["USER"] = env["LOGNAME"] = room.user.name if room.user else "root"
    return env
