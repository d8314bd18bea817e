"""What ends a run before it is done: a signal, or a deadline."""

from __future__ import annotations

import os
import time
from typing import TYPE_CHECKING

from plp_builder.errors import Interrupted, Terminated, TimedOut
from plp_builder.signals import signal

if TYPE_CHECKING:
    from types import FrameType

LONGEST = 1e9
"""Seconds that a timer of the kernel surely takes."""


class Stop:
    """What ends a run early: SIGTERM, SIGINT, SIGHUP, or a deadline.

    A signal is only noted when it comes; :meth:`check` raises it where the code is ready for
    it, and :class:`Watch` wakes up for it. ``what`` is running is named in the failures; a hint
    that is None is the failure's own.
    """

    def __init__(
        self,
        what: str = "the build",
        *,
        stopped_hint: str | None = None,
        timeout_hint: str = "Raise PLP_TIMEOUT, or look above for the step that took so long.",
    ) -> None:
        self.what = what
        self.stopped_hint = stopped_hint
        self.timeout_hint = timeout_hint
        self.deadline: float | None = None
        self.timeout = 0.0
        self.received: list[int] = []
        self.adopts = False
        self._listens = False
        self._armed = False
        self._wake, self._wakeup = os.pipe2(os.O_NONBLOCK | os.O_CLOEXEC)

    def listen(self) -> None:
        """Take over the signals. Only the main thread may call this and, from then on, `limit`.

        The first process of a container also hears of children's ends: those whose parents
        have gone are its own to collect (``adopts``; see :func:`reap_adopted`).
        """
        for number in (signal.SIGTERM, signal.SIGINT, signal.SIGHUP):
            if not (number == signal.SIGHUP and _is_ignored(number)):
                signal.signal(number, self._note)
        if os.getpid() == 1:
            self.adopts = True
            signal.signal(signal.SIGCHLD, lambda *_: self._wake_up())
        self._listens = True

    def limit(self, seconds: float | None) -> None:
        """Raise TimedOut when ``seconds`` from now are over; ``None`` takes the limit away."""
        self.timeout = seconds or 0.0
        self.deadline = None if seconds is None else time.monotonic() + seconds
        if self._armed:
            signal.setitimer(signal.ITIMER_REAL, 0)
        self._armed = self._listens and seconds is not None
        if self._armed:
            # Nobody looks at the deadline in a write that waits: this is what interrupts one.
            signal.signal(signal.SIGALRM, _write_without_waiting)
            signal.setitimer(signal.ITIMER_REAL, min(max(self.timeout, 1e-3), LONGEST))

    def _note(self, number: int, frame: FrameType | None) -> None:
        self.received.append(number)
        _write_without_waiting(number, frame)
        self._wake_up()

    def _wake_up(self) -> None:
        try:
            os.write(self._wakeup, b"!")
        except BlockingIOError:
            pass

    def fileno(self) -> int:
        return self._wake

    @property
    def impatient(self) -> bool:
        """True when somebody asked twice: no grace for anyone any more."""
        return len(self.received) > 1

    def check(self) -> None:
        """Raise Terminated, Interrupted or TimedOut if it is time to end."""
        if self.received:
            if self.received[0] == signal.SIGINT:
                raise Interrupted(f"{self.what} was interrupted (SIGINT)", hint=self.stopped_hint)
            from signal import Signals

            name = Signals(self.received[0]).name
            raise Terminated(f"{self.what} was asked to end ({name})", hint=self.stopped_hint)
        if self.deadline is not None and time.monotonic() >= self.deadline:
            raise TimedOut(
                f"{self.what} did not end within PLP_TIMEOUT ({self.timeout:g} s)",
                hint=self.timeout_hint,
            )


def _is_ignored(number: int) -> bool:
    """Whether whoever started us wants the signal to have no effect, as nohup(1) does."""
    return signal.getsignal(number) == signal.SIG_IGN


def _write_without_waiting(_number: int, _frame: FrameType | None) -> None:
    """A signal's handler: a reader who does not read must not hold up the end.

    A write that waits (for a stalled log collector) is tried again after this, and then does
    not wait any more.
    """
    try:
        os.set_blocking(2, False)
    except OSError:
        pass
