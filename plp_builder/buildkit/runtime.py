"""The private directories of one run, and how they go away again.

There are two, because the daemon may be another user's: what the client writes (it may be
root) must not lie where the daemon's user could put a link in its way. A lock in the client's
directory tells the directories of a living run from those of one that was killed.
"""

from __future__ import annotations

import fcntl
import os
import re
import stat
from contextlib import suppress
from typing import TYPE_CHECKING

from plp_builder import process
from plp_builder.errors import Failure, RootlessNotPermitted
from plp_builder.tuples import NamedTuple
from plp_builder.users import User, on_the_way

if TYPE_CHECKING:
    from collections.abc import Iterable, Iterator, Mapping
    from socket import socket as unix_socket

SOCKET_NAME = "buildkitd.sock"
_NOTIFY_NAME = "notify.sock"
_CONFIG_NAME = "buildkitd.toml"
_TEMPORARY_NAME = "t"  # a socket for ssh agents is further below
SOCKET_PATH_LIMIT = 107
"""Longest path of a Unix socket in bytes: sun_path of unix(7), less its NUL."""

_NAME_ROOM = len("/plp-daemon-01234567/") + len(SOCKET_NAME)


_PATIENCE = 60.0
_AS_ROOT = "unshare", "--map-root-user", "--map-auto"
"""Of util-linux 2.38; seven times as quick as rootlesskit."""
_DIRECTORY = os.O_RDONLY | os.O_DIRECTORY | os.O_NOFOLLOW | os.O_CLOEXEC
_CLIENT = r"plp-client-([0-9a-f]{8})"


class Runtime(NamedTuple):
    """``client`` is ours alone; ``daemon`` belongs to the user who runs the daemon.

    ``lock`` is a descriptor that is held as long as the run lives. ``handle`` is one of the
    directory ``daemon``, opened before it was given away: by its path, and in it, the daemon's
    user can put a link in our way.
    """

    client: str
    daemon: str
    lock: int = -1
    handle: int = -1

    @property
    def socket(self) -> str:
        return f"{self.daemon}/{SOCKET_NAME}"

    def has_socket(self) -> bool:
        """Whether there is a socket at ``socket``."""
        try:
            found = os.stat(SOCKET_NAME, dir_fd=self.handle, follow_symlinks=False)
        except OSError:
            return False
        return stat.S_ISSOCK(found.st_mode)

    @property
    def notify_socket(self) -> str:
        return f"{self.daemon}/{_NOTIFY_NAME}"

    @property
    def state(self) -> str:
        """The daemon's root directory (``buildkitd --root``)."""
        return f"{self.daemon}/state"

    @property
    def config(self) -> str:
        return f"{self.daemon}/{_CONFIG_NAME}"

    def write_config(self, text: str, user: User) -> None:
        """Make the file ``config``, for ``user`` to read. Raises OSError."""
        with suppress(FileNotFoundError):
            os.unlink(_CONFIG_NAME, dir_fd=self.handle)
        flags = os.O_CREAT | os.O_EXCL | os.O_WRONLY | os.O_CLOEXEC
        descriptor = os.open(_CONFIG_NAME, flags, 0o600, dir_fd=self.handle)
        with open(descriptor, "w", encoding="utf-8") as file:
            file.write(text)
            if user.uid != os.geteuid():
                os.fchown(descriptor, user.uid, user.gid)

    def bind_notify_socket(self, listener: unix_socket) -> None:
        """Bind ``notify_socket``; the directory lets nobody but its owner in. Raises OSError."""
        with suppress(FileNotFoundError):
            os.unlink(_NOTIFY_NAME, dir_fd=self.handle)
        umask = os.umask(0)  # so that the daemon's user may write to it without owning it
        try:
            listener.bind(f"/proc/self/fd/{self.handle}/{_NOTIFY_NAME}")
        finally:
            os.umask(umask)

    @property
    def temporary(self) -> str:
        """The daemon's TMPDIR, which `make_temporary` makes when it is wanted."""
        return f"{self.daemon}/{_TEMPORARY_NAME}"

    def make_temporary(self, user: User) -> None:
        """Make the directory ``temporary`` for ``user``, unless it is there. Raises OSError.

        A daemon that starts tries out a program of each platform, ten of them, in files there
        (BuildKit's util/archutil). It is told its platform, and where there is no such directory
        the trials end at once: 20 ms, and 80 where the disk is busy, as it is with an archive.
        """
        with suppress(FileExistsError):
            os.mkdir(_TEMPORARY_NAME, 0o700, dir_fd=self.handle)
            if user.uid != os.geteuid():
                made = os.open(_TEMPORARY_NAME, _DIRECTORY, dir_fd=self.handle)
                os.fchown(made, user.uid, user.gid)
                os.close(made)

    @property
    def runc(self) -> str:
        """Where runc keeps the state of running containers, below XDG_RUNTIME_DIR."""
        return f"{self.daemon}/runc"


def candidates(environ: Mapping[str, str]) -> tuple[str, ...]:
    """Directories for temporary files, best first: TMPDIR, then the machine's own."""
    given = environ.get("TMPDIR", "")
    first = (given.rstrip("/") or "/",) if given.startswith("/") else ()
    return (*first, "/tmp", "/var/tmp")  # noqa: S108 - made with mkdir, mode 0700


def suits(base: str | os.PathLike[str], user: User) -> bool:
    """Whether a socket's path fits below ``base`` and a user gets through to it."""
    if len(os.fsencode(base)) + _NAME_ROOM > SOCKET_PATH_LIMIT:
        return False
    try:
        return all(part.open_to(user) for part in on_the_way(base))
    except OSError:
        return False


def create(
    bases: Iterable[str | os.PathLike[str]], user: User, *, temporary: bool = False
) -> Runtime:
    """Make both directories (mode 0700) below the first base that suits the daemon's user.

    ``temporary`` makes the daemon's TMPDIR, too. Raises RootlessNotPermitted when there is no such
    base.
    """
    refused = []
    for base in bases:
        if not suits(base, user):
            refused.append(f"{base}: missing, closed to uid {user.uid}, or too long for a socket")
            continue
        try:
            return _make(os.fspath(base), user, temporary=temporary)
        except OSError as error:
            refused.append(f"{base}: {error.strerror}")
    raise RootlessNotPermitted(
        "there is no directory for the daemon's socket and state",
        why=refused,
        hint="Set TMPDIR to a short path of a writable directory; in a container started with "
        "--read-only add `--tmpfs /tmp`.",
    )


def _make(base: str, user: User, *, temporary: bool) -> Runtime:
    token = os.urandom(4).hex()
    client, daemon = f"{base}/plp-client-{token}", f"{base}/plp-daemon-{token}"
    os.mkdir(client, 0o700)
    opened = []
    try:
        lock = os.open(f"{client}/lock", os.O_CREAT | os.O_RDWR | os.O_CLOEXEC, 0o600)
        opened.append(lock)
        fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
        os.mkdir(daemon, 0o700)
        handle = os.open(daemon, _DIRECTORY)
        opened.append(handle)
        runtime = Runtime(client, daemon, lock, handle)
        os.mkdir(runtime.state, 0o700)
        if user.uid != os.geteuid():
            for path in (runtime.state, runtime.daemon):
                os.chown(path, user.uid, user.gid)
        if temporary:
            runtime.make_temporary(user)
    except OSError:
        for descriptor in opened:
            os.close(descriptor)
        runtime = Runtime(client, daemon)
        for path in (runtime.temporary, runtime.state, daemon, f"{client}/lock", client):
            with suppress(OSError):
                os.rmdir(path) if os.path.isdir(path) else os.unlink(path)
        raise
    return runtime


def abandoned(bases: Iterable[str | os.PathLike[str]]) -> Iterator[Runtime]:
    """Directories of our own runs that were killed, each locked so that it is ours to remove."""
    for base in dict.fromkeys(map(str, bases)):
        try:
            names = os.listdir(base)
        except OSError:
            continue
        for name in names:
            match = re.fullmatch(_CLIENT, name)
            if match is None:
                continue
            client = f"{base}/{name}"
            with suppress(OSError):
                lock = os.open(f"{client}/lock", os.O_RDWR | os.O_NOFOLLOW | os.O_CLOEXEC)
                try:
                    if os.fstat(lock).st_uid == os.geteuid() == os.lstat(client).st_uid:
                        fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
                        yield Runtime(client, f"{base}/plp-daemon-{match[1]}")
                finally:
                    os.close(lock)


def remove(runtime: Runtime, env: Mapping[str, str]) -> tuple[str, ...]:
    """Remove both directories; what could not be removed."""
    for descriptor in (runtime.lock, runtime.handle):
        if descriptor >= 0:
            os.close(descriptor)
    directories = runtime.client, runtime.daemon
    with suppress(OSError):
        # A state that lies elsewhere leaves a few files, for which no process is worth its start.
        os.rmdir(runtime.state)
        for directory in directories:
            _remove_few(directory)
    return remove_trees(directories, env)


def _remove_few(directory: str) -> None:
    """Remove a directory, following no link whoever puts one there. Raises OSError."""
    for _, directories, files, place in os.fwalk(directory, topdown=False):
        for name in files:
            os.unlink(name, dir_fd=place)
        for name in directories:
            os.rmdir(name, dir_fd=place)
    os.rmdir(directory)


def remove_trees(
    paths: Iterable[str | os.PathLike[str]], env: Mapping[str, str]
) -> tuple[str, ...]:
    """Remove directories in which a daemon was at work; what could not be removed.

    An unprivileged user may not delete what subordinate users own: that takes a user namespace,
    as the daemon's own.
    """
    wanted = list(map(str, paths))
    for command in (["rm"], [*_AS_ROOT, "rm"], ["rootlesskit", "--net=host", "rm"]):
        left = [path for path in wanted if os.path.lexists(path)]
        if not left:
            break
        try:
            process.run([*command, "-rf", "--", *left], env=env, timeout=_PATIENCE)
        except Failure:
            continue
    return tuple(path for path in wanted if os.path.lexists(path))
