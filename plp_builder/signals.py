"""What the standard library's signal does, without its enumerations: they take 6 ms to make."""

from __future__ import annotations

TYPE_CHECKING = False  # for the type checker, without importing typing
if TYPE_CHECKING:
    import signal
else:
    import _signal as signal

__all__ = ["signal"]
