"""What the environment is like: the only part of its check that looks at the machine."""

from __future__ import annotations

import os
import re
import stat
from types import MappingProxyType
from typing import TYPE_CHECKING

from plp_builder.process.child import find
from plp_builder.tuples import NamedTuple
from plp_builder.users import Owned, User, on_the_way, upwards

if TYPE_CHECKING:
    from collections.abc import Mapping

CAP_SYS_ADMIN = 21
"""linux/capability.h"""

_DAEMON_TOOLS = ("buildkitd", "rootlesskit", "buildkit-runc", "runc")
"""What the daemon's user runs."""

_HARMLESS = r"/proc/(sys/fs/binfmt_misc|fs/nfsd|fs/nfs|openprom|xen)$"
"""Mount points that the kernel itself keeps empty: what lies on them hides nothing."""

_TOOLS = (
    "buildkitd", "buildctl", "rootlesskit", "buildkit-runc", "runc", "setpriv",
    "newuidmap", "newgidmap", "fuse-overlayfs",
)  # fmt: skip
_FILE_LIMIT = 1 << 22


class Range(NamedTuple):
    """A line of /etc/subuid or /etc/subgid; ``owner`` is a name or a uid (subuid(5))."""

    owner: str
    start: int
    size: int


class IdMapper(NamedTuple):
    """How newuidmap or newgidmap may set ids."""

    path: str
    setuid_root: bool
    capability: bool
    nosuid: bool


class Disk(NamedTuple):
    """Free space in bytes; ``free_inodes`` is None where the file system does not count them."""

    name: str
    free_bytes: int
    free_inodes: int | None


class Facts(NamedTuple):
    """All that the checks want to know. What could not be read is None, empty or False."""

    uid: int = 0
    gid: int = 0
    path: str = ""
    home: str = ""
    environ_user: str = ""
    home_readable: bool = False
    users: tuple[User, ...] = ()
    other_user_databases: bool = False
    subuid: tuple[Range, ...] = ()
    subgid: tuple[Range, ...] = ()
    tools: Mapping[str, str] = MappingProxyType({})
    tool_ways: tuple[Owned, ...] = ()
    newuidmap: IdMapper | None = None
    newgidmap: IdMapper | None = None
    no_new_privileges: bool = False
    seccomp_filter: bool = False
    effective: int = 0
    bounding: int = 0
    max_user_namespaces: int | None = None
    unprivileged_userns_clone: int | None = None
    apparmor_restricts_userns: bool = False
    kernel: tuple[int, int] = (0, 0)
    fuse_overlayfs: bool = False
    proc_masks: tuple[str, ...] = ()
    memory_limit: int | None = None
    disks: tuple[Disk, ...] = ()

    def has_capability(self, number: int) -> bool:
        """Whether this process may use a capability now."""
        return bool(self.effective >> number & 1)

    def stranger(self) -> User:
        """The user of this process, when /etc/passwd does not know it."""
        return User(self.environ_user, self.uid, self.gid, self.home)

    def has_bounding(self, number: int) -> bool:
        """Whether a program that it starts could get the capability at all."""
        return bool(self.bounding >> number & 1)


def read_facts(environ: Mapping[str, str], root: str | os.PathLike[str] = "/") -> Facts:
    """Look at the machine. ``root`` is where /proc, /sys and /etc are; for tests."""
    tools = {name: path for name in _TOOLS if (path := find(name, environ.get("PATH", os.defpath)))}
    status = _status(_text(root, "proc/self/status"))
    return Facts(
        uid=os.geteuid(),
        gid=os.getegid(),
        path=environ.get("PATH", ""),
        home=environ.get("HOME", ""),
        environ_user=environ.get("USER", ""),
        home_readable=os.access(environ.get("HOME") or "/nonexistent", os.R_OK | os.X_OK),
        users=parse_passwd(_text(root, "etc/passwd")),
        other_user_databases=has_other_databases(_text(root, "etc/nsswitch.conf")),
        subuid=parse_ranges(_text(root, "etc/subuid")),
        subgid=parse_ranges(_text(root, "etc/subgid")),
        tools=tools,
        tool_ways=_ways(tools),
        newuidmap=_id_mapper(tools.get("newuidmap")),
        newgidmap=_id_mapper(tools.get("newgidmap")),
        no_new_privileges=status.get("NoNewPrivs") == "1",
        seccomp_filter=status.get("Seccomp") == "2",
        effective=_hexadecimal(status.get("CapEff", "")),
        bounding=_hexadecimal(status.get("CapBnd", "")),
        max_user_namespaces=_number(_text(root, "proc/sys/user/max_user_namespaces")),
        unprivileged_userns_clone=_number(_text(root, "proc/sys/kernel/unprivileged_userns_clone")),
        apparmor_restricts_userns=_number(
            _text(root, "proc/sys/kernel/apparmor_restrict_unprivileged_userns")
        )
        == 1,
        kernel=parse_kernel(os.uname().release),
        fuse_overlayfs="fuse-overlayfs" in tools and os.access("/dev/fuse", os.R_OK | os.W_OK),
        proc_masks=parse_proc_masks(_text(root, "proc/self/mountinfo")),
        memory_limit=_number(_text(root, "sys/fs/cgroup/memory.max")),
        disks=_disks(environ),
    )


def _ways(tools: Mapping[str, str]) -> tuple[Owned, ...]:
    """What the daemon's user has to pass to run the tools."""
    parts: dict[Owned, None] = {}
    for name in _DAEMON_TOOLS:
        try:
            parts.update(dict.fromkeys(on_the_way(tools[name]) if name in tools else ()))
        except OSError:
            continue
    return tuple(parts)


def parse_passwd(text: str) -> tuple[User, ...]:
    """passwd(5); lines of another form are left out."""
    users = []
    for line in text.splitlines():
        fields = line.split(":")
        if len(fields) >= 6 and fields[2].isdecimal() and fields[3].isdecimal():
            users.append(User(fields[0], int(fields[2]), int(fields[3]), fields[5]))
    return tuple(users)


def parse_ranges(text: str) -> tuple[Range, ...]:
    """subuid(5) and subgid(5); lines of another form are left out."""
    ranges = []
    for line in text.splitlines():
        owner, *numbers = line.strip().split(":")
        if len(numbers) == 2 and all(number.isdecimal() for number in numbers):
            ranges.append(Range(owner, int(numbers[0]), int(numbers[1])))
    return tuple(ranges)


def ranges_of(user: User, ranges: tuple[Range, ...]) -> tuple[Range, ...]:
    """Those of ``ranges`` that belong to ``user``, by name or by uid."""
    return tuple(one for one in ranges if one.owner in (user.name, str(user.uid)))


def has_other_databases(nsswitch: str) -> bool:
    """Whether users may be known from elsewhere than /etc/passwd (nsswitch.conf(5))."""
    for line in nsswitch.splitlines():
        key, colon, sources = line.partition("#")[0].partition(":")
        if colon and key.strip() == "passwd":
            return bool(set(sources.split()) - {"files", "compat", "systemd"})
    return False


def parse_kernel(release: str) -> tuple[int, int]:
    """The first two numbers of uname's release."""
    major, _, rest = release.partition(".")
    minor = rest.split(".")[0].split("-")[0]
    return (int(major), int(minor)) if major.isdecimal() and minor.isdecimal() else (0, 0)


def parse_proc_masks(mountinfo: str) -> tuple[str, ...]:
    """The parts of /proc that something is mounted over, from /proc/self/mountinfo.

    Empty where a user namespace may mount a procfs: while another one is visible in full
    (``mount_too_revealing`` in Linux' fs/namespace.c). Format: proc_pid_mountinfo(5).
    """
    masked: list[str] = []
    visible = False
    for line in mountinfo.splitlines():
        fields = line.split(" ")
        if len(fields) < 7 or "-" not in fields:
            continue
        root, point, options = fields[3], fields[4], fields[5].split(",")
        kind = fields[fields.index("-") + 1 :][:1]
        if point == "/proc":
            visible = kind == ["proc"] and root == "/" and "ro" not in options
            masked.clear()
        elif point.startswith("/proc/") and not re.match(_HARMLESS, point):
            masked.append(point)
    return tuple(masked) if visible else ("/proc", *masked)


def _status(text: str) -> dict[str, str]:
    pairs = (line.partition(":") for line in text.splitlines())
    return {key: value.strip() for key, _, value in pairs}


def _text(root: str | os.PathLike[str], path: str) -> str:
    try:
        with open(os.path.join(root, path), "rb") as file:
            return file.read(_FILE_LIMIT).decode("utf-8", "surrogateescape")
    except OSError:
        return ""


def _number(text: str) -> int | None:
    return int(text) if text.strip().isdecimal() else None


def _hexadecimal(text: str) -> int:
    try:
        return int(text, 16)
    except ValueError:
        return 0


def _id_mapper(path: str | None) -> IdMapper | None:
    if path is None:
        return None
    try:
        status = os.stat(path)
        nosuid = bool(os.statvfs(path).f_flag & os.ST_NOSUID)
    except OSError:
        return None
    try:
        capability = bool(os.getxattr(path, "security.capability"))
    except OSError:
        capability = False
    setuid_root = bool(status.st_mode & stat.S_ISUID) and status.st_uid == 0
    return IdMapper(path, setuid_root, capability, nosuid)


def _disks(environ: Mapping[str, str]) -> tuple[Disk, ...]:
    """Space where the archive and the cache come to lie; nothing for a path that cannot be used."""
    build = environ.get("PLP_BUILD_PATH") or "/build"
    cache = environ.get("PLP_CACHE_PATH") or "/tmp/cache"  # noqa: S108
    disks = []
    # Only the cache directory is made when it is missing.
    for name, places in (("build path", (build,)), ("cache path", upwards(cache))):
        there = next(filter(os.path.isdir, places), None) if places[0].startswith("/") else None
        try:
            free = os.statvfs(there) if there else None
        except OSError:
            continue
        if free:
            inodes = free.f_favail if free.f_files else None
            disks.append(Disk(f"space at {name}", free.f_bavail * free.f_frsize, inodes))
    return tuple(disks)
