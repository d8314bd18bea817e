"""Waits for all that a run waits for, in one place and one thread."""

from __future__ import annotations

import os
import selectors
import time
from typing import TYPE_CHECKING

from plp_builder.process.child import Child, reap_adopted
from plp_builder.process.stop import Stop
from plp_builder.signals import signal

if TYPE_CHECKING:
    from collections.abc import Callable
    from typing import IO, Self

READ_SIZE = 1 << 16
KILL_WAIT = 5.0
"""Seconds until a process that got SIGKILL is given up: it hangs in the kernel."""


class Watch:
    """Waits for several things at once: output, exits, a stop.

    One watch lives as long as a run. Whatever is registered is served while :meth:`until`
    waits for anything at all, so that no pipe runs full unseen and no death is overlooked.
    """

    def __init__(self, stop: Stop) -> None:
        self.stop = stop
        self._selector = selectors.DefaultSelector()
        self._selector.register(stop, selectors.EVENT_READ)

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self._selector.close()

    def reads(self, file: int | IO[bytes], sink: Callable[[bytes], None]) -> None:
        """Give what comes from ``file`` to ``sink``, chunk by chunk; b"" is its end."""
        number = file if isinstance(file, int) else file.fileno()
        os.set_blocking(number, False)

        def serve() -> None:
            try:
                chunk = os.read(number, READ_SIZE)
            except BlockingIOError:
                return
            if not chunk:
                self._selector.unregister(number)
            sink(chunk)

        self._selector.register(number, selectors.EVENT_READ, serve)

    def exits(self, child: Child, then: Callable[[], None]) -> None:
        """Call ``then`` once when ``child`` ends."""

        def serve() -> None:
            self._selector.unregister(child.pidfd)
            child.poll()
            then()

        self._selector.register(child.pidfd, selectors.EVENT_READ, serve)

    def forget(self, file: int | IO[bytes] | Child) -> None:
        """Stop watching it, whether or not it was watched."""
        number: int | IO[bytes] = file.pidfd if isinstance(file, Child) else file
        try:
            self._selector.unregister(number)
        except (KeyError, ValueError):
            pass

    def until(
        self,
        done: Callable[[], bool],
        *,
        seconds: float | None = None,
        tick: Callable[[], None] | None = None,
        interval: float = 1.0,
        stoppable: bool = True,
    ) -> bool:
        """Serve until ``done``, then True; False when ``seconds`` are over before.

        ``tick`` is called about every ``interval`` seconds. A stop raises, unless
        ``stoppable`` is false: that is for the code that cleans up after one.
        """
        end = None if seconds is None else time.monotonic() + seconds
        next_tick = time.monotonic() + interval
        while not done():
            if stoppable:
                self.stop.check()
            now = time.monotonic()
            if end is not None and now >= end:
                return False
            if tick is not None and now >= next_tick:
                tick()
                next_tick = time.monotonic() + interval
            moments = [moment for moment in (end, next_tick if tick else None) if moment]
            if stoppable and self.stop.deadline is not None:
                moments.append(self.stop.deadline)
            wait = max(0.0, min(moments) - now) if moments else None
            for key, _ in self._selector.select(wait):
                if key.data is not None:
                    key.data()
                else:
                    self._drain(stoppable)
        return True

    def _drain(self, stoppable: bool) -> None:
        """Empty the wake-up pipe, or a noted signal would make every wait a busy one."""
        if stoppable:
            self.stop.check()
        try:
            os.read(self.stop.fileno(), READ_SIZE)
        except BlockingIOError:
            pass
        if self.stop.adopts:
            reap_adopted()

    def end(self, child: Child, *, grace: float, group: bool = False) -> int | None:
        """SIGTERM, ``grace`` seconds, SIGKILL; the exit code, or None if even that failed.

        With ``grace`` 0, or when somebody asked twice, SIGKILL at once.
        """

        def ended() -> bool:
            return child.poll() is not None

        def ended_or_hurried() -> bool:
            return ended() or self.stop.impatient

        self.forget(child)
        self.exits(child, lambda: None)
        if grace > 0 and not self.stop.impatient:
            child.signal(signal.SIGTERM, group=group)
            self.until(ended_or_hurried, seconds=grace, stoppable=False)
        child.signal(signal.SIGKILL, group=group)
        self.until(ended, seconds=KILL_WAIT, stoppable=False)
        self.forget(child)
        return child.poll()
