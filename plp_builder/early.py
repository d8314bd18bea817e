"""What a signal does before anybody listens: it ends the process, which has nothing to clean up.

Python would print a traceback for SIGINT, and the first process of a container would not hear
of SIGTERM. While the interpreter itself starts, nothing of ours can change that.
"""

from __future__ import annotations

import os

from plp_builder.signals import signal

TYPE_CHECKING = False  # for the type checker, without importing typing
if TYPE_CHECKING:
    from types import FrameType

_CODES: dict[int, int] = {signal.SIGTERM: 143, signal.SIGHUP: 143, signal.SIGINT: 130}


def end_by_signals() -> None:
    """Until `process.Stop` listens. A SIGHUP that is ignored stays so (nohup)."""
    for number in _CODES:
        if not (number == signal.SIGHUP and signal.getsignal(number) == signal.SIG_IGN):
            signal.signal(number, _end)


def _end(number: int, _frame: FrameType | None) -> None:
    os._exit(_CODES[number])
