"""How well a build step can be kept apart from the daemon.

With the *process sandbox* every step has a PID namespace and a procfs of its own. The kernel
lets a user namespace mount a procfs only while another one is visible in full
(``mount_too_revealing`` in Linux' fs/namespace.c): container engines that mask parts of /proc
take that away, and BuildKit then needs ``--oci-worker-no-process-sandbox``.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from typing import ClassVar

NO_PROCESS_SANDBOX = "--oci-worker-no-process-sandbox"


class Sandbox:
    """What separates build steps from the daemon: one of three; ``text`` is for people."""

    ROOT: ClassVar[Sandbox]
    PROCESS: ClassVar[Sandbox]
    NONE: ClassVar[Sandbox]

    def __init__(self, text: str) -> None:
        self.text = text


Sandbox.ROOT = Sandbox("process sandbox, daemon as root")
Sandbox.PROCESS = Sandbox("process sandbox")
Sandbox.NONE = Sandbox("no process sandbox")
