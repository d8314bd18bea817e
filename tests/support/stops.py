"""A run's stop within the tests' own process, and programs of their own for what ends one."""

from __future__ import annotations

import signal
import subprocess
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

from plp_builder.process import Stop

PATIENCE = 30.0
_HEARD = (signal.SIGTERM, signal.SIGINT, signal.SIGHUP, signal.SIGALRM)
_IMPORTS = f"import os, signal, sys, time\nsys.path[:0] = {sys.path!r}\n"


@contextmanager
def listening(what: str = "the build") -> Iterator[Stop]:
    """A stop that hears this process's signals; afterwards they mean what they meant before."""
    before = {number: signal.getsignal(number) for number in _HEARD}
    stop = Stop(what)
    stop.listen()
    try:
        yield stop
    finally:
        stop.limit(None)
        for number, handler in before.items():
            signal.signal(number, handler)


def python(program: str, **options: Any) -> subprocess.CompletedProcess[bytes]:
    """Run a Python of its own, for what a process can do only once."""
    return subprocess.run(
        [sys.executable, "-c", _IMPORTS + program],
        stdout=subprocess.PIPE,
        timeout=PATIENCE,
        check=False,
        **options,
    )
