"""The first moments of a room: its namespaces are made, and in them something waits for orders.

That is the daemon itself where nothing is expected to be asked of it: by the time it gets its
configuration it has done what every daemon does first, and that takes as long as the imports for
which it is ahead (25 ms). Else it is a shell, which becomes the daemon that it is told to be.
"""

from __future__ import annotations

import fcntl
import os
from typing import TYPE_CHECKING

from plp_builder.buildkit.command import BEGINNING, ahead
from plp_builder.buildkit.room import environment, preparation, wrapper
from plp_builder.buildkit.runtime import remove
from plp_builder.process.child import fork
from plp_builder.signals import signal
from plp_builder.tuples import NamedTuple

if TYPE_CHECKING:
    from collections.abc import Mapping

    from plp_builder.buildkit.room import Room
    from plp_builder.process import Child

_ABOVE_THE_SHELLS_OWN = 10
"""The lowest descriptor that no script's redirection names."""

_SHELL = ("sh",)
_SHELL_BESIDE = ("sh", "-c", 'exec 3<&0; sh <&3 3<&- & exec "$@" </dev/null 3<&-', "sh")
"""Lines for a shell come on standard input in both; here another shell reads them."""


class Opened(NamedTuple):
    """``orders`` is a descriptor for lines of a POSIX shell, ``config`` one for buildkitd.toml.

    The latter has its `BEGINNING` already, and is -1 where a shell waits. Once both are closed
    nobody waits any longer.
    """

    room: Room
    child: Child
    orders: int
    config: int

    @property
    def is_ahead(self) -> bool:
        """Whether the daemon runs already."""
        return self.config >= 0


def opened(room: Room, environ: Mapping[str, str], *, expecting_nothing: bool = False) -> Opened:
    """Open a room, without waiting until it is: what goes wrong in it is said on its error output.

    ``expecting_nothing`` starts the daemon ahead, where that is possible. Raises ToolNotFound,
    ResourcesExhausted, OSError.
    """
    descriptors: list[int] = []
    given: list[int] = []
    words: tuple[str, ...] = _SHELL
    config = -1
    try:
        waits, orders = os.pipe2(os.O_CLOEXEC)
        descriptors += waits, orders
        if expecting_nothing and room.by_unshare:
            reads, config = os.pipe2(os.O_CLOEXEC)
            descriptors += reads, config
            os.write(config, BEGINNING.encode())
            kept = fcntl.fcntl(reads, fcntl.F_DUPFD_CLOEXEC, _ABOVE_THE_SHELLS_OWN)
            descriptors.append(kept)
            given.append(kept)
            if room.user is not None and room.by_root:
                os.fchown(kept, room.user.uid, room.user.gid)
            words = (*_SHELL_BESIDE, *ahead(room, f"/proc/self/fd/{kept}"))
        child = fork(
            [*wrapper(room), *words],
            preparation(room),
            env=environment(room, environ),
            stdin=waits,
            user=room.user,
            pass_fds=given,
        )
    except BaseException:
        for descriptor in descriptors:
            os.close(descriptor)
        raise
    for descriptor in set(descriptors) - {orders, config}:
        os.close(descriptor)
    return Opened(room, child, orders, config)


def abandon(found: Opened, environ: Mapping[str, str]) -> None:
    """End a room that nobody takes over, without waiting for its end."""
    found.child.signal(signal.SIGKILL, group=True)
    found.child.close()
    for descriptor in (found.orders, found.config):
        if descriptor >= 0:
            os.close(descriptor)
    remove(found.room.runtime, environ)
