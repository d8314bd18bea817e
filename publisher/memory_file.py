"""Files without a name, for what a child has to read and nobody else may find.

Nothing lies on a disk, so nothing is left there, also when we are killed with SIGKILL. A child
that has inherited the descriptor (``pass_fds``) reads ``path``.
"""

from __future__ import annotations

import fcntl
import os
from typing import TYPE_CHECKING, Self

if TYPE_CHECKING:
    from types import TracebackType


class MemoryFile:
    """A file of mode 0600 in memory that holds ``content`` and cannot be changed any more.

    To be closed, or used as a context. Sealed as memfd_create(2) describes it: whoever has the
    descriptor may read, nobody may write.
    """

    def __init__(self, name: str, content: bytes) -> None:
        self.fd = os.memfd_create(name, os.MFD_CLOEXEC | os.MFD_ALLOW_SEALING)
        try:
            os.fchmod(self.fd, 0o600)
            rest = memoryview(content)
            while rest:
                rest = rest[os.write(self.fd, rest) :]
            os.lseek(self.fd, 0, os.SEEK_SET)
            seals = fcntl.F_SEAL_WRITE | fcntl.F_SEAL_GROW | fcntl.F_SEAL_SHRINK | fcntl.F_SEAL_SEAL
            fcntl.fcntl(self.fd, fcntl.F_ADD_SEALS, seals)
        except BaseException:
            self.close()
            raise

    @property
    def path(self) -> str:
        """Its name for a child that has inherited the descriptor, and for ourselves."""
        return f"/proc/self/fd/{self.fd}"

    def close(self) -> None:
        """Let it go; may be called twice. A child's descriptor stays open."""
        if self.fd >= 0:
            os.close(self.fd)
            self.fd = -1

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self,
        _type: type[BaseException] | None,
        _error: BaseException | None,
        _traceback: TracebackType | None,
    ) -> None:
        self.close()
