"""Whose directory is it? What any other user may have put where everybody may write.

In a directory like /tmp (writable to all, with the sticky bit) whoever comes first makes a
name, and it stays that user's. What lies behind such a name is that user's choice.
"""

from __future__ import annotations

import re
import stat
from collections.abc import Iterator
from pathlib import Path

from plp_builder.tuples import NamedTuple

MAX_LINKS = 40
"""Linux follows no more in one path (path_resolution(7))."""

_OPEN_TO_ALL = stat.S_IWOTH | stat.S_ISVTX
_OCTAL = re.compile(r"\\([0-7]{3})")
_FUSE_OWNER = re.compile(r"\buser_id=(\d+)")


class Part(NamedTuple):
    """A part of a path: its owner, and the mode of the directory that it stands in."""

    path: Path
    uid: int
    parent_mode: int


def stranger(path: Path, uid: int) -> Part | None:
    """The first part of the way to ``path`` that some other user than ``uid`` or root chose.

    A mounted volume may belong to anybody: who mounts can do all that its owner can. None
    also when there is nothing yet, or when the way is closed.
    """
    foreign = [part for part in on_the_way(path) if is_foreign(part, uid)]
    if not foreign:
        return None
    try:
        mounted = mount_points(Path("/proc/self/mountinfo").read_text("utf-8", "surrogateescape"))
    except OSError:
        mounted = {}
    return next((part for part in foreign if mounted.get(str(part.path)) not in {0, uid}), None)


def is_foreign(part: Part, uid: int) -> bool:
    """Whether somebody else has put it where everybody may put something."""
    return part.parent_mode & _OPEN_TO_ALL == _OPEN_TO_ALL and part.uid not in {0, uid}


def on_the_way(path: Path) -> Iterator[Part]:
    """Every part that the kernel meets on the way to an absolute path, links included.

    Ends without an error at the first part that is missing or that cannot be reached.
    """
    here, links = Path("/"), 0
    left = list(reversed(path.parts[1:]))
    while left:
        name = left.pop()
        if name == "..":
            here = here.parent
            continue
        part = here / name
        try:
            status, parent = part.lstat(), here.stat()
            target = part.readlink() if stat.S_ISLNK(status.st_mode) else None
        except OSError:
            return
        yield Part(part, status.st_uid, parent.st_mode)
        if target is None:
            here = part
            continue
        links += 1
        if links > MAX_LINKS:
            return
        if target.is_absolute():
            here = Path("/")
        left += [step for step in reversed(target.parts) if step != "/"]


def mount_points(mountinfo: str) -> dict[str, int]:
    """Each mount point of /proc/self/mountinfo, with the uid of who mounted it: 0, or for
    FUSE, which lets every user mount, its ``user_id`` (proc_pid_mountinfo(5), mount.fuse(8)).
    """
    points = {}
    for line in mountinfo.splitlines():
        fields = line.split(" ")
        if len(fields) < 7 or "-" not in fields[6:]:
            continue
        kind, *rest = fields[fields.index("-", 6) + 1 :]
        owner = _FUSE_OWNER.search(rest[-1]) if kind.startswith("fuse") and rest else None
        point = _OCTAL.sub(lambda match: chr(int(match[1], 8)), fields[4])
        points[point] = int(owner[1]) if owner else 0
    return points
