"""One solve: buildctl talks to the daemon, its events are shown, a failure is explained."""

from __future__ import annotations

import subprocess
import time
from collections.abc import Callable, Mapping, Sequence

from plp_builder.buildkit import Endpoint
from plp_builder.process import Watch, start
from plp_builder.streams import Lines

GRACE = 2.5
"""Seconds between SIGTERM and SIGKILL for buildctl, which needs 40 ms to cancel a build."""

LAST_WORDS = 2.0
"""Seconds for its output to end after itself: a credential helper may hold the pipe open."""

TICK = 0.5


def solve(
    endpoint: Endpoint,
    arguments: Sequence[str],
    *,
    env: Mapping[str, str],
    stdout: int | None,
    watch: Watch,
    line: Callable[[bytes, float], None],
    tick: Callable[[float], None],
) -> int:
    """Run ``buildctl ADDRESS ARGUMENTS`` to its end and return its exit code.

    ``stdout`` is the descriptor that the archive goes to. ``line`` gets each line of its
    stderr and ``tick`` is called about twice a second, both with the time of
    ``time.monotonic``. Whatever ends the wait early ends buildctl, too.
    """
    child = start(
        ["buildctl", *endpoint.arguments(), *arguments],
        env=env,
        stdout=subprocess.DEVNULL if stdout is None else stdout,
        stderr=subprocess.PIPE,
    )
    lines = Lines(lambda text: line(text, time.monotonic()))
    watch.reads(child.stderr, lines)
    watch.exits(child, lambda: None)
    try:
        watch.until(
            lambda: child.poll() is not None, tick=lambda: tick(time.monotonic()), interval=TICK
        )
        watch.until(lambda: lines.ended, seconds=LAST_WORDS)
        return child.poll() or 0
    finally:
        watch.end(child, grace=GRACE)
        watch.forget(child)
        watch.forget(child.stderr)
        child.close()
