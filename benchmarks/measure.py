"""One process: how long it took and how much memory it needed; many: their median and spread."""

from __future__ import annotations

import os
import select
import signal
import statistics
import subprocess
import tempfile
import time
from collections.abc import Mapping, Sequence
from contextlib import suppress
from pathlib import Path
from typing import NamedTuple

POLL = 0.005
"""Seconds between two looks at a process's memory."""

TAIL = 4000


class Run(NamedTuple):
    """``seconds`` from start to end; ``peak`` in bytes, 0 where it was not watched;
    ``output`` is the end of what a failed process said."""

    code: int
    seconds: float
    peak: int
    output: str


class Spread(NamedTuple):
    """The median of ``of`` values and the quartiles around it."""

    of: int
    low: float
    median: float
    high: float

    @property
    def iqr(self) -> float:
        """The width of the middle half."""
        return self.high - self.low


def run(
    argv: Sequence[str],
    env: Mapping[str, str],
    cwd: Path,
    *,
    memory: bool = False,
    timeout: float | None = None,
) -> Run:
    """Run a program to its end; one that takes longer than ``timeout`` seconds is ended.

    With ``memory`` its own high-water mark is read every 5 ms from /proc/PID/status (VmHWM,
    proc_pid_status(5)). The kernel's account at the end (``ru_maxrss`` of wait4(2)) would
    not do: it is the largest of the process and all the children it waited for.
    """
    with tempfile.TemporaryFile() as output:
        started = time.perf_counter()
        child = subprocess.Popen(
            argv,
            env=dict(env),
            cwd=cwd,
            stdin=subprocess.DEVNULL,
            stdout=output,
            stderr=subprocess.STDOUT,
            process_group=0,
        )
        try:
            peak = _watch(child) if memory else 0
            code = _wait(child, timeout)
        except KeyboardInterrupt:
            _end(child)
            raise
        seconds = time.perf_counter() - started
        output.seek(max(0, os.fstat(output.fileno()).st_size - TAIL))
        text = output.read().decode("utf-8", "replace") if code else ""
    return Run(code, seconds, peak, text)


def _watch(child: subprocess.Popen[bytes]) -> int:
    peak = 0
    while child.poll() is None:
        peak = max(peak, high_water_mark(child.pid))
        time.sleep(POLL)
    return peak


def _wait(child: subprocess.Popen[bytes], timeout: float | None) -> int:
    if (code := child.poll()) is not None:
        return code
    # Not `wait(timeout)`: it looks every 50 ms, as long as some builds take.
    descriptor = os.pidfd_open(child.pid)
    try:
        over = select.poll()
        over.register(descriptor, select.POLLIN)
        ended = over.poll(None if timeout is None else timeout * 1000)
    finally:
        os.close(descriptor)
    return child.wait() if ended else _end(child) or 1


def _end(child: subprocess.Popen[bytes]) -> int:
    """End it and all that it started; upstream's script would leave its daemon behind."""
    os.killpg(child.pid, signal.SIGTERM)
    try:
        code = child.wait(30)
    except subprocess.TimeoutExpired:
        child.kill()
        code = child.wait()
    with suppress(ProcessLookupError):
        os.killpg(child.pid, signal.SIGKILL)
    return code


def high_water_mark(pid: int) -> int:
    """VmHWM of a process in bytes; 0 when it has gone or is not ours to look at."""
    try:
        status = Path(f"/proc/{pid}/status").read_text()
    except OSError:
        return 0
    for line in status.splitlines():
        if line.startswith("VmHWM:"):
            return int(line.split()[1]) * 1024
    return 0


def spread(values: Sequence[float]) -> Spread:
    """The quartiles of at least one value."""
    if len(values) == 1:
        return Spread(1, values[0], values[0], values[0])
    low, median, high = statistics.quantiles(values, n=4, method="inclusive")
    return Spread(len(values), low, median, high)
