"""The private directories of one run, and how they go away again.

There are two, because the daemon may be another user's: what the client writes (it may be
root) must not lie where the daemon's user could put a link in its way.
"""

from __future__ import annotations

import os
import stat
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from pathlib import Path
from secrets import token_hex

from plp_builder import process
from plp_builder.errors import Failure, RootlessNotPermitted

SOCKET_NAME = "buildkitd.sock"
SOCKET_PATH_LIMIT = 107
"""Longest path of a Unix socket in bytes: sun_path of unix(7), less its NUL."""

_NAME_ROOM = len("/plp-daemon-01234567/") + len(SOCKET_NAME)


@dataclass(frozen=True, slots=True)
class Runtime:
    """``client`` is ours alone; ``daemon`` belongs to the user who runs the daemon."""

    client: Path
    daemon: Path

    @property
    def socket(self) -> Path:
        return self.daemon / SOCKET_NAME

    @property
    def notify_socket(self) -> Path:
        return self.daemon / "notify.sock"

    @property
    def state(self) -> Path:
        """The daemon's root directory (``buildkitd --root``)."""
        return self.daemon / "state"

    @property
    def config(self) -> Path:
        return self.daemon / "buildkitd.toml"

    @property
    def runc(self) -> Path:
        """Where runc keeps the state of running containers, below XDG_RUNTIME_DIR."""
        return self.daemon / "runc"

    @property
    def metadata(self) -> Path:
        """What buildctl writes about a finished solve (``--metadata-file``)."""
        return self.client / "metadata.json"


def candidates(environ: Mapping[str, str]) -> tuple[Path, ...]:
    """Directories for temporary files, best first: TMPDIR, then the machine's own."""
    given = environ.get("TMPDIR", "")
    first = (Path(given),) if given.startswith("/") else ()
    return (*first, Path("/tmp"), Path("/var/tmp"))  # noqa: S108 - made with mkdir, mode 0700


def suits(base: Path, uid: int, gid: int) -> bool:
    """Whether a socket's path fits below ``base`` and a user gets through to it."""
    if len(os.fsencode(base)) + _NAME_ROOM > SOCKET_PATH_LIMIT:
        return False
    try:
        return all(_may_pass(os.stat(part), uid, gid) for part in (base, *base.parents))
    except OSError:
        return False


def _may_pass(status: os.stat_result, uid: int, gid: int) -> bool:
    if uid == 0:
        return True
    if status.st_uid == uid:
        return bool(status.st_mode & stat.S_IXUSR)
    return bool(status.st_mode & (stat.S_IXGRP if status.st_gid == gid else stat.S_IXOTH))


def create(bases: Iterable[Path], uid: int, gid: int) -> Runtime:
    """Make both directories (mode 0700) below the first base that suits the daemon's user.

    Raises RootlessNotPermitted when there is none.
    """
    refused = []
    for base in bases:
        if not suits(base, uid, gid):
            refused.append(f"{base}: missing, closed to uid {uid}, or too long for a socket")
            continue
        runtime = Runtime(base / f"plp-client-{token_hex(4)}", base / f"plp-daemon-{token_hex(4)}")
        try:
            _make(runtime, uid, gid)
        except OSError as error:
            remove_quickly(runtime)
            refused.append(f"{base}: {error.strerror}")
            continue
        return runtime
    raise RootlessNotPermitted(
        "there is no directory for the daemon's socket and state",
        why=refused,
        hint="Set TMPDIR to a short path of a writable directory; in a container started with "
        "--read-only add `--tmpfs /tmp`.",
    )


def _make(runtime: Runtime, uid: int, gid: int) -> None:
    runtime.client.mkdir(0o700)
    runtime.daemon.mkdir(0o700)
    runtime.state.mkdir(0o700)
    if uid != os.geteuid():
        for directory in (runtime.state, runtime.daemon):
            os.chown(directory, uid, gid)


def remove_quickly(runtime: Runtime) -> None:
    """Remove directories that are still empty."""
    for directory in (runtime.state, runtime.daemon, runtime.client):
        try:
            directory.rmdir()
        except OSError:
            continue


def remove(runtime: Runtime, env: Mapping[str, str]) -> tuple[str, ...]:
    """Remove both directories; what could not be removed.

    An unprivileged user may not delete what subordinate users own: that takes the user
    namespace which rootlesskit makes.
    """
    both = [str(runtime.client), str(runtime.daemon)]
    for command in (["rm"], ["rootlesskit", "--net=host", "rm"]):
        left = [path for path in both if os.path.lexists(path)]
        if not left:
            break
        try:
            process.run([*command, "-rf", "--", *left], env=env, timeout=60)
        except Failure:
            continue
    return tuple(path for path in both if os.path.lexists(path))
