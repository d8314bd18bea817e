"""The one place that starts processes (`child`) and watches them to their end (`watch`, `stop`).

Mechanism only: how long to wait and what to show is decided by the callers. Nothing here
blocks without looking at a :class:`Stop`, except the short waits that end a process.
"""

from __future__ import annotations

from plp_builder.process.child import (
    DEVNULL,
    PIPE,
    Begun,
    Child,
    Completed,
    begin,
    find,
    fork,
    need_descriptors,
    reap_adopted,
    run,
    start,
)
from plp_builder.process.stop import Stop
from plp_builder.process.watch import KILL_WAIT, Watch

__all__ = [
    "DEVNULL",
    "KILL_WAIT",
    "PIPE",
    "Begun",
    "Child",
    "Completed",
    "Stop",
    "Watch",
    "begin",
    "find",
    "fork",
    "need_descriptors",
    "reap_adopted",
    "run",
    "start",
]
