"""Whether a directory can carry a daemon's root, tried by whoever would run the daemon.

The trial runs in the daemon's room, in place of the daemon: only there an overlay is mounted and
files are given to subordinate ids as the daemon would do it. One that fails ends the room, and
the reason is the last thing that its log says.
"""

from __future__ import annotations

import shlex
from collections.abc import Iterable
from pathlib import Path

DIRECTORY = ".trial"
"""Where it is made, below the root; it is gone afterwards, unless somebody is killed."""

_MARK = "plp: this directory cannot carry the daemon's state: "
_LONGEST_REASON = 300

_SCRIPT = """\
p={place}
refuse() {{ echo "{mark}$*" >&2; rm -rf "$p"; exit 75; }}
[ ! -e "$p" ] || rm -rf "$p"
said=$(mkdir -p "$p/lower" "$p/upper" "$p/work" "$p/merged" 2>&1 && : >"$p/lower/file") ||
    refuse "$said"
said=$(chown 1:1 "$p/lower/file" 2>&1) || refuse "files cannot belong to subordinate ids: $said"
said=$(mount -t overlay overlay -o "{options}lowerdir=$p/lower,upperdir=$p/upper,workdir=$p/work" \
"$p/merged" 2>&1) || refuse "no overlay can be mounted: $said"
said=$(rm -f "$p/merged/file" 2>&1 && : >"$p/merged/other" && chown 2:2 "$p/merged/other") || {{
    umount "$p/merged"; refuse "an overlay takes no changes: $said"; }}
umount "$p/merged"
rm -rf "$p"
"""


def script(root: Path, *, rootless: bool) -> str:
    """Lines for a POSIX shell that go on only where ``root`` can carry the daemon's state.

    In a user namespace an overlay keeps its marks in ``user.*`` attributes
    (Documentation/filesystems/overlayfs.rst, Linux 5.11 and later), as BuildKit mounts it. There
    ``volatile`` is known, too: the end of this one does not wait until the disk has all else.
    """
    options = "userxattr,volatile," if rootless else ""
    return _SCRIPT.format(place=shlex.quote(f"{root}/{DIRECTORY}"), mark=_MARK, options=options)


def refusal(log: Iterable[str]) -> str:
    """Why the trial failed, "" if it did not, from the lines of the room's log."""
    for line in log:
        before, mark, reason = line.partition(_MARK)
        if mark and not before:
            return reason.strip()[:_LONGEST_REASON] or "no reason was given"
    return ""
