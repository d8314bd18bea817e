"""The daemon's own state, kept between builds: layers, base images, cache mounts.

``$PLP_CACHE_PATH/state/<layout version>`` holds

- ``root``, the daemon's root directory, which belongs to the daemon's user,
- ``layout``, the images built last as an OCI image layout, which BuildKit exports into,
- ``made``, what the state depends on: a daemon that differs in it begins anew,
- ``used``, while a build uses the state: the boot in which it does,
- ``size``, while no build uses it: how large it is, as far as that is known,
- ``records``: how many records of builds wait for the daemon to forget them,
- ``lock``, held for as long.

Nothing in it waits for the disk, for a build would wait for whatever else the machine writes. So
``used`` stays after a build that has made something, and goes after a later one that has not, when
the kernel has written out all that is older. A state that has ``used`` from another boot may have
lost something in a power cut and is not used again. After a kill in the same boot nothing is lost.
"""

from __future__ import annotations

import os
import stat
import time
from collections.abc import Callable, Iterator
from contextlib import ExitStack, contextmanager, suppress
from functools import partial
from pathlib import Path

from plp_builder.buildkit.damage import cut_databases, lacks_room, why_unsound
from plp_builder.buildkit.trial import DIRECTORY as TRIAL
from plp_builder.cache import notes
from plp_builder.cache.files import random_name, remove, replace_durably
from plp_builder.cache.filesystem import carries_overlays, kind
from plp_builder.cache.growth import Growth
from plp_builder.cache.leavings import remove_leavings
from plp_builder.cache.lock import locked
from plp_builder.cache.records import Records
from plp_builder.errors import StateNotCarried
from plp_builder.tuples import NamedTuple
from plp_builder.users import User, on_the_way

DIRECTORY = "state"
LAYOUT_VERSION = "1"
FINGERPRINT = "context"
"""The file with the fingerprint of the daemon's copy of the build context."""

_ASIDE = "aside-"
_LOCK, _MADE, _USED, _ROOT, _LAYOUT = "lock", "made", "used", "root", "layout"
_SIZE, _RECORDS = "size", "records"
_NOT_EXPORTED = "not-exported"
_DAEMON_LOCK = "buildkitd.lock"
_WRITTEN_OUT = 120.0
"""Seconds after which nothing waits to be written out any more: Linux begins after 30
(vm.dirty_expire_centisecs, Documentation/admin-guide/sysctl/vm.rst)."""
_DATABASES = "*.db", "*/*.db", "*/snapshots/*.db"
_READ = os.O_RDONLY | os.O_NONBLOCK | os.O_NOFOLLOW | os.O_CLOEXEC
_BOOT = Path("/proc/sys/kernel/random/boot_id")
_MOUNTS = Path("/proc/self/mountinfo")


class Maker(NamedTuple):
    """What a state depends on.

    ``ids`` are the subordinate ranges of the daemon's user, since files in the state belong to
    them; ``options`` what else the daemon was told about its worker.
    """

    buildkit: str
    snapshotter: str
    user: str
    ids: tuple[tuple[int, int], ...]
    options: str = ""


class State:
    """A state that this build alone uses, until the context of `opened` ends.

    ``warm`` says whether a daemon has been at work in it, ``tried`` whether its directory is
    known to carry one, ``growth`` how large it may be, and ``records`` what it may have to forget.
    """

    def __init__(self, directory: Path, maker: Maker, user: User) -> None:
        self.directory = directory
        self.root = directory / _ROOT
        self.layout = directory / _LAYOUT
        self.fingerprint = directory / FINGERPRINT
        self.warm = False
        self.tried = False
        self.growth = Growth(directory / _SIZE)
        self.records = Records(directory / _RECORDS)
        self._maker = maker
        self._user = user
        self._settled = True

    def prepare(self) -> str:
        """Make it ready for a daemon; why an older one was put aside, "" if none was.

        Raises OSError, StateNotCarried.
        """
        maker, refused, boot = _verdict(self.directory / _MADE)
        if refused and maker == self._wanted and boot == _boot():
            raise StateNotCarried("The daemon's state cannot be kept", why=[refused])
        reason = self._why_not(maker)
        if reason:
            self.put_aside()
        for path in cut_databases(self.root):
            path.unlink()
        self.tried = maker == self._wanted and not refused
        self._make_root()
        if not self.tried:
            remove(self.directory / _MADE)
        used = (self.directory / _USED).exists()
        self._settled = not used or self._has_settled()
        if used:
            remove_leavings(self.root)
        replace_durably(self.directory / _USED, _boot().encode())
        return reason

    def keep_verdict(self, refused: str = "") -> None:
        """Note that a daemon got by in this directory, or why none can until the next boot.

        That the disk is full is not noted. Never raises.
        """
        if self.tried or lacks_room(refused):
            return
        verdict = notes.text(self._maker, refused, _boot() if refused else "")
        with suppress(OSError):
            replace_durably(self.directory / _MADE, verdict)
            self.tried = not refused

    def not_exported(self, tag: str) -> None:
        """Note that the portable cache lacks something of the image ``tag``. Never raises."""
        with suppress(OSError):
            place = self.directory / _NOT_EXPORTED
            place.mkdir(exist_ok=True)
            (place / tag).touch()

    def exported(self, tag: str) -> None:
        """Note that it lacks nothing any more. Never raises."""
        with suppress(OSError):
            (self.directory / _NOT_EXPORTED / tag).unlink(missing_ok=True)

    def is_exported(self, tag: str) -> bool:
        """Whether nothing was noted that it lacks."""
        return not (self.directory / _NOT_EXPORTED / tag).exists()

    def ended(self, *, solved: bool) -> None:
        """Leave what is known of it to the next build, once its daemon is asked nothing more."""
        self.growth.keep()
        self.records.keep(more=solved)

    def put_aside(self) -> None:
        """Move what the daemon left out of the way; `remnants` goes with the run. Raises OSError.

        Images in the layout stay, but are verified again.
        """
        with suppress(FileNotFoundError):
            self.root.rename(self.directory / random_name(_ASIDE))
        for path in (self.fingerprint, self.layout / ".verified.json"):
            path.unlink(missing_ok=True)
        self.warm = False

    def renew(self) -> None:
        """Put it aside and make an empty one. Raises OSError."""
        self.put_aside()
        self._make_root()

    def finish(self, *, grown: bool) -> None:
        """The build has ended. Unless it has ``grown`` the state, a later boot may trust it.

        Then all that has changed is the daemon's databases, which are written out. Never raises.
        """
        if grown or not self._settled:
            return
        with suppress(OSError):
            for path in self._databases():
                descriptor = os.open(path, _READ)
                try:
                    os.fsync(descriptor)
                finally:
                    os.close(descriptor)
            (self.directory / _USED).unlink(missing_ok=True)

    def _holds_something(self) -> bool:
        """Whether a daemon has left anything; one that ends in order takes its lock away."""
        try:
            return any(name != TRIAL for name in os.listdir(self.root))  # noqa: PTH208 - names
        except OSError:
            return True

    def _databases(self) -> Iterator[Path]:
        for pattern in _DATABASES:
            yield from self.root.glob(pattern)

    def _has_settled(self) -> bool:
        """Whether the kernel has long written out what the last build did."""
        try:
            last = max((path.lstat().st_mtime for path in self._databases()), default=0.0)
        except OSError:
            return False
        return last <= time.time() - _WRITTEN_OUT

    def remnants(self) -> tuple[Path, ...]:
        """What was put aside, for the daemon's user to remove."""
        with suppress(OSError):
            return tuple(path for path in self.directory.iterdir() if path.name.startswith(_ASIDE))
        return ()

    @property
    def _wanted(self) -> str:
        """What is noted of its maker."""
        return notes.line(self._maker)

    def _why_not(self, made: str) -> str:
        try:
            found = self.root.lstat()
        except FileNotFoundError:
            return ""
        if not stat.S_ISDIR(found.st_mode) or found.st_uid != self._user.uid:
            return "it belonged to another user"
        used = _text(self.directory / _USED)
        if used and used != _boot():
            return "the machine went down while a build used it"
        if made and made != self._wanted:
            return "BuildKit, its user's ids or its options have changed"
        return why_unsound(self.root)

    def _make_root(self) -> None:
        user = self._user
        self.layout.mkdir(exist_ok=True)
        if not os.path.lexists(self.root):
            made = self.directory / random_name(_ASIDE)
            made.mkdir(0o700)
            if user.uid != os.geteuid():
                os.chown(made, user.uid, user.gid)
            made.rename(self.root)
        self.warm = self._holds_something()
        self.growth.begin(empty=not self.warm)
        self.records.begin(empty=not self.warm)


@contextmanager
def opened(
    cache: Path,
    maker: Maker,
    user: User,
    *,
    patience: float,
    check: Callable[[], None],
    waiting: Callable[[], None],
) -> Iterator[State]:
    """The state below the cache directory, for this build alone.

    It waits up to ``patience`` seconds for another build; ``check`` is called meanwhile and may
    raise, ``waiting`` once. Raises LockNotFreeError after that, StateNotCarried where no state can
    be kept.
    """
    directory = cache / DIRECTORY / LAYOUT_VERSION
    with ExitStack() as stack:
        try:
            _make(directory)
            _check_place(directory, user)
            hold = partial(locked, exclusive=True, check=check, waiting=waiting, patience=patience)
            stack.enter_context(hold(directory / _LOCK))
            # A daemon may outlive a killed build for a moment.
            outlived = directory / _ROOT / _DAEMON_LOCK
            if outlived.is_file() and not outlived.is_symlink():
                with hold(outlived):
                    pass
            state = State(directory, maker, user)
        except OSError as error:
            raise not_carried(error) from None
        yield state


def _make(directory: Path) -> None:
    for path in (directory.parent, directory):
        with suppress(FileExistsError):
            path.mkdir(0o755)
        found = path.lstat()
        if not stat.S_ISDIR(found.st_mode) or found.st_uid not in {0, os.geteuid()}:
            raise StateNotCarried(
                "The daemon's state cannot be kept",
                why=[f"{path} is no directory of uid {os.geteuid()}"],
            )


def _check_place(directory: Path, user: User) -> None:
    found = kind(Path(os.path.realpath(directory)), _text(_MOUNTS))
    if not carries_overlays(found):
        raise StateNotCarried(
            "The daemon's state cannot be kept",
            why=[f"{directory} lies on {found}"],
            hint="Mount a directory or volume of a local disk there.",
        )
    closed = next((part for part in on_the_way(directory) if not part.open_to(user)), None)
    if closed:
        raise StateNotCarried(
            "The daemon's state cannot be kept",
            why=[f"{closed.path} is closed to uid {user.uid}, who runs the daemon"],
            hint=f"Let everybody enter it: chmod o+x {closed.path}",
        )


def not_carried(error: OSError) -> StateNotCarried:
    """The failure for what the disk refused."""
    reason = error.strerror or str(error)
    return StateNotCarried(
        "The daemon's state cannot be kept",
        why=[f"{error.filename}: {reason}" if error.filename else reason],
    )


def _verdict(place: Path) -> tuple[str, str, str]:
    """Who made a state, why it was refused, and in which boot; empty where that is not known."""
    try:
        maker, refused, boot = notes.read(place, 3)
    except OSError:
        return "", "", ""
    return maker, refused, boot


def _text(path: Path) -> str:
    try:
        return path.read_text("utf-8", "surrogateescape").strip()
    except OSError:
        return ""


def _boot() -> str:
    return _text(_BOOT) or "unknown"
