"""How well a build step can be kept apart from the daemon.

With the *process sandbox* every step has a PID namespace and a procfs of its own. The kernel
lets a user namespace mount a procfs only while another one is visible in full
(``mount_too_revealing`` in Linux' fs/namespace.c): container engines that mask parts of /proc
take that away, and BuildKit then needs ``--oci-worker-no-process-sandbox``.
"""

from __future__ import annotations

import enum

NO_PROCESS_SANDBOX = "--oci-worker-no-process-sandbox"


class Sandbox(enum.Enum):
    """What separates build steps from the daemon."""

    ROOT = "process sandbox, daemon as root"
    PROCESS = "process sandbox"
    NONE = "no process sandbox"
