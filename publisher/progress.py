"""How far a long push is: a line every few seconds, none for a short one."""

from __future__ import annotations

from collections.abc import Callable

from plp_builder import log
from plp_builder.terminal import human_duration, human_size

INTERVAL = 10.0


class Progress:
    """Tells what ``sent`` counts, of ``total`` bytes; ``clock`` gives seconds.

    What is sent once more after a fault counts again, so that ``sent`` may pass ``total``.
    """

    def __init__(self, total: int, sent: Callable[[], int], clock: Callable[[], float]) -> None:
        self._total = total
        self._sent = sent
        self._clock = clock
        self._began = self._told = clock()
        self._last = 0

    def tick(self) -> None:
        """Tell it when it is time; called as often as one likes."""
        now = self._clock()
        if now - self._told < INTERVAL:
            return
        sent = self._sent()
        time = human_duration(now - self._began)
        so_far = {"sent": human_size(sent), "of": human_size(self._total)}
        if sent == self._last:
            # It may have asked us to come back later (Retry-After), which skopeo does silently.
            log.info("waiting for the registry", **so_far, time=time)
        else:
            share = f"{min(100, 100 * sent // max(self._total, 1))}%"
            rate = f"{human_size(round((sent - self._last) / (now - self._told)))}/s"
            log.info("pushing", **so_far, share=share, rate=rate, time=time)
        self._told, self._last = now, sent
