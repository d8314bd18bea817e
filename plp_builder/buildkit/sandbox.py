"""How well a build step can be kept apart from the daemon.

With the *process sandbox* every step has a PID namespace and a procfs of its own. The kernel
lets a user namespace mount a procfs only while another one is visible in full
(``mount_too_revealing`` in Linux' fs/namespace.c): container engines that mask parts of /proc
take that away, and BuildKit then needs ``--oci-worker-no-process-sandbox``.
"""

from __future__ import annotations

import enum
import re

NO_PROCESS_SANDBOX = "--oci-worker-no-process-sandbox"

_HARMLESS = re.compile(r"/proc/(sys/fs/binfmt_misc|fs/nfsd|fs/nfs|openprom|xen)$")
"""Mount points that the kernel itself keeps empty: what lies on them hides nothing."""


class Sandbox(enum.Enum):
    """What separates build steps from the daemon."""

    ROOT = "process sandbox, daemon as root"
    PROCESS = "process sandbox"
    NONE = "no process sandbox"


def masked_paths(mountinfo: str) -> tuple[str, ...]:
    """The parts of /proc that something is mounted over, from /proc/self/mountinfo.

    Empty where a user namespace may mount a procfs. Format: proc_pid_mountinfo(5).
    """
    masked = []
    visible = False
    for line in mountinfo.splitlines():
        fields = line.split(" ")
        if len(fields) < 7 or "-" not in fields:
            continue
        root, point, options = fields[3], fields[4], fields[5].split(",")
        kind = fields[fields.index("-") + 1]
        if point == "/proc":
            visible = kind == "proc" and root == "/" and "ro" not in options
            masked.clear()
        elif point.startswith("/proc/") and not _HARMLESS.match(point):
            masked.append(point)
    return tuple(masked) if visible else ("/proc", *masked)
