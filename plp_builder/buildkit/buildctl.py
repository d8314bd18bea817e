"""One solve: buildctl talks to the daemon, its events are shown, a failure is explained."""

from __future__ import annotations

import time
from collections.abc import Callable, Mapping, Sequence

from plp_builder.buildkit import Endpoint
from plp_builder.process import DEVNULL, PIPE, Watch, start
from plp_builder.streams import Lines

GRACE = 2.5
"""Seconds between SIGTERM and SIGKILL for buildctl, which needs 40 ms to cancel a build."""

LAST_WORDS = 2.0
"""Seconds for its output to end after itself: a credential helper may hold the pipe open."""

TICK = 0.5


class Call:
    """A running ``buildctl ADDRESS ARGUMENTS``.

    ``stdout`` is the descriptor that the archive goes to. ``early`` is for a daemon that listens
    but does not serve yet: then buildctl waits for it, however long that takes.
    """

    def __init__(
        self,
        endpoint: Endpoint,
        arguments: Sequence[str],
        *,
        env: Mapping[str, str],
        stdout: int | None,
        watch: Watch,
        early: bool = False,
    ) -> None:
        self._watch = watch
        self._ended = False
        self._child = start(
            ["buildctl", *endpoint.arguments(), *(["--wait"] if early else []), *arguments],
            env=env,
            stdout=DEVNULL if stdout is None else stdout,
            stderr=PIPE,
        )

    def end(self) -> None:
        """End it if it has not ended; may be called again."""
        if not self._ended:
            self._ended = True
            self._watch.end(self._child, grace=GRACE)
            self._watch.forget(self._child)
            self._watch.forget(self._child.stderr)
            self._child.close()

    def finish(
        self,
        line: Callable[[bytes, float], None],
        tick: Callable[[float], None],
        early: Callable[[], object] = lambda: None,
    ) -> int:
        """Wait for its end and return its exit code.

        ``line`` gets each line of its stderr and ``tick`` is called about twice a second, both
        with the time of ``time.monotonic``. Whatever ends the wait early ends buildctl, too, after
        a call of ``early``.
        """
        child, watch = self._child, self._watch
        lines = Lines(lambda text: line(text, time.monotonic()))
        try:
            watch.reads(child.stderr, lines)
            watch.exits(child, lambda: None)
            watch.until(
                lambda: child.poll() is not None,
                tick=lambda: tick(time.monotonic()),
                interval=TICK,
            )
            watch.until(lambda: lines.ended, seconds=LAST_WORDS)
            return child.poll() or 0
        except BaseException:
            early()
            raise
        finally:
            self.end()
