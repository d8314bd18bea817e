"""How long each part of a run took."""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager


class Phases:
    """Seconds by name, in the order in which they began; a part that comes again is added."""

    def __init__(self, began: float, clock: Callable[[], float] = time.monotonic) -> None:
        self._clock = clock
        self._began = began
        self._seconds: dict[str, float] = {}

    def since_start(self, name: str) -> float:
        """Note that a part which began with the run has ended; its seconds."""
        self._seconds[name] = self._clock() - self._began
        return self._seconds[name]

    @contextmanager
    def part(self, name: str) -> Iterator[None]:
        """Measure what happens in the context, however it ends."""
        begin = self._clock()
        try:
            yield
        finally:
            self._seconds[name] = self._seconds.get(name, 0.0) + self._clock() - begin

    def seconds(self) -> dict[str, float]:
        """Each part's, to the millisecond."""
        return {name: round(value, 3) for name, value in self._seconds.items()}
