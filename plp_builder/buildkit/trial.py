"""Whether a directory can carry a daemon's root, tried by whoever would run the daemon.

The trial runs in the daemon's room: only there an overlay is mounted and files are given to
subordinate ids as the daemon would do it. It takes as long as a third of the daemon's start, so it
runs beside that, and tells in the room's log how it went. A daemon that ends meanwhile takes the
room and the trial with it; then the trial comes first, and one that fails ends the room.
"""

from __future__ import annotations

import shlex
from collections.abc import Iterable
from pathlib import Path

DIRECTORY = ".trial"
"""Where it is made, below the root; it is gone afterwards, unless somebody is killed."""

_MARK = "plp: this directory cannot carry the daemon's state: "
PASSED = b"plp: this directory can carry the daemon's state"
"""What the log says after a trial beside the daemon that has gone well."""
_TELL = f'echo "{PASSED.decode()}" >&2'
_LONGEST_REASON = 300
_DAEMON_STARTS = 0.03
"""Seconds in which a daemon keeps several processors busy, before it makes a key."""

_SCRIPT = """\
p={place}
refuse() {{ echo "{mark}$*" >&2; rm -rf "$p"; exit 75; }}
overlay() {{
    said=$(mount -t overlay overlay \
        -o "$1,lowerdir=$p/lower,upperdir=$p/upper,workdir=$p/work" "$p/merged" 2>&1)
}}
[ ! -e "$p" ] || rm -rf "$p"
said=$(mkdir -p "$p/lower" "$p/upper" "$p/work" "$p/merged" 2>&1) || refuse "$said"
true >"$p/lower/file" || refuse "no file can be made in it"
said=$(chown 1:1 "$p/lower/file" 2>&1) || refuse "files cannot belong to subordinate ids: $said"
{overlay} || refuse "no overlay can be mounted: $said"
said=$(rm -f "$p/merged/file" 2>&1) && true >"$p/merged/other" &&
    said=$(chown 2:2 "$p/merged/other" 2>&1) || {{
    umount "$p/merged"; refuse "an overlay takes no changes: $said"; }}
umount "$p/merged"
rm -rf "$p"
"""


def script(root: Path, *, rootless: bool, beside: bool) -> str:
    """Lines for a POSIX shell that go on only where ``root`` can carry the daemon's state.

    With ``beside`` they go on at once, and what the trial finds is told meanwhile. It takes what
    the daemon leaves of the processors, and begins when that needs only one of them.

    In a user namespace an overlay keeps its marks in ``user.*`` attributes, as BuildKit mounts it.
    The end of a ``volatile`` one does not wait until the disk has all else
    (Documentation/filesystems/overlayfs.rst, Linux 5.11 and 5.10).
    """
    overlay = "overlay userxattr,volatile" if rootless else "overlay volatile || overlay index=off"
    place = shlex.quote(f"{root}/{DIRECTORY}")
    lines = _SCRIPT.format(place=place, mark=_MARK, overlay=overlay)
    if not beside:
        return lines
    later = f"sleep {_DAEMON_STARTS}; {lines}{_TELL}"
    return f"nice -n 19 sh -c {shlex.quote(later)} </dev/null >/dev/null &\n"


def refusal(log: Iterable[str]) -> str:
    """Why the trial failed, "" if it did not, from the lines of the room's log."""
    for line in log:
        before, mark, reason = line.partition(_MARK)
        if mark and not before:
            return reason.strip()[:_LONGEST_REASON] or "no reason was given"
    return ""
