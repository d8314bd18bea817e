"""What kind of file system a directory lies on (proc_pid_mountinfo(5))."""

from __future__ import annotations

import os
import re
from pathlib import Path

_OCTAL = re.compile(r"\\([0-7]{3})")
_NETWORK = frozenset(
    {"9p", "afs", "beegfs", "ceph", "cifs", "davfs", "gfs2", "glusterfs", "gpfs", "lustre"}
    | {"ncpfs", "nfs", "nfs4", "ocfs2", "orangefs", "smb3", "smbfs", "virtiofs", "vboxsf"}
)
_SHARE = 40
"""Percent of a file system that one of the two caches may take."""

_TIGHT = 2_000_000_000
_IN_MEMORY = frozenset({"ramfs", "tmpfs"})


def kind(path: Path, mountinfo: str) -> str:
    """The type of the file system at an absolute, resolved ``path``; "" if that cannot be told.

    ``mountinfo`` is the text of /proc/self/mountinfo. Of mounts at one place the last one counts.
    """
    here = os.fspath(path)
    found, depth = "", -1
    for line in mountinfo.splitlines():
        fields = line.split(" ")
        if "-" not in fields[6:-1]:
            continue
        point = _OCTAL.sub(lambda match: chr(int(match[1], 8)), fields[4])
        if here != point and not here.startswith(point.rstrip("/") + "/"):
            continue
        if len(point) >= depth:
            found, depth = fields[fields.index("-", 6) + 1], len(point)
    return found


def room_for(directory: Path, asked: int) -> int:
    """How many bytes a cache may take in ``directory``: ``asked``, if its disk is large enough.

    There are two caches, and room is needed for what a build adds before anything can go.
    """
    try:
        found = os.statvfs(directory)
    except OSError:
        return asked
    return min(asked, found.f_blocks * found.f_frsize * _SHARE // 100)


def is_tight(directory: Path) -> bool:
    """Whether a build may have filled the disk that ``directory`` lies on.

    It gives back some of it when it fails.
    """
    try:
        found = os.statvfs(directory)
    except OSError:
        return False
    free = found.f_bavail * found.f_frsize
    return free < _TIGHT or 4 * found.f_bavail < found.f_blocks


def is_shared(kind: str) -> bool:
    """Whether other machines may change what lies there, or locks and times mean little."""
    return kind in _NETWORK or kind.partition(".")[0] in {"fuse", "fuseblk"}


def carries_overlays(kind: str) -> bool:
    """Whether it is worth a trial: what is an overlay itself, or memory, is not."""
    return kind != "overlay" and kind not in _IN_MEMORY and not is_shared(kind)
