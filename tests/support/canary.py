"""Looking for a secret wherever a process could leave it: a watcher that runs beside it.

Run as a program it reads what to look for as JSON from standard input (so that its own argument
list does not hold it), says that it is ready, looks until its input ends, and prints what it found.
"""

from __future__ import annotations

import base64
import json
import os
import subprocess
import sys
import time
from collections.abc import Iterable, Iterator, Mapping
from contextlib import contextmanager, suppress
from pathlib import Path
from select import select
from typing import NamedTuple
from urllib.parse import quote

from scripts.set_up.step import ROOT

MAX_FILE = 64 << 20
PAUSE = 0.002


class Found(NamedTuple):
    """A place where a needle was: what kind of place, and which."""

    kind: str
    where: str


def needles(secret: str, *usernames: str) -> tuple[bytes, ...]:
    """The forms in which a secret can be written down."""
    pairs = [f"{username}:{secret}" for username in usernames]
    encoded = [base64.b64encode(text.encode()) for text in (secret, *pairs)]
    plain = (secret, quote(secret), quote(secret, safe=""), json.dumps(secret)[1:-1])
    return tuple(dict.fromkeys((*(text.encode() for text in plain), *encoded)))


def holds(data: bytes, wanted: Iterable[bytes]) -> bool:
    """Whether one of the needles is in ``data``."""
    return any(needle in data for needle in wanted)


def files_with(
    directories: Iterable[Path], wanted: Iterable[bytes], inputs: Iterable[Path] = ()
) -> list[Found]:
    """The files below ``directories`` that hold a needle, but for those below ``inputs``."""
    wanted = tuple(wanted)
    skipped = set(inputs)
    found = []
    for top in directories:
        for directory, names, files in os.walk(top):
            names[:] = [name for name in names if Path(directory, name) not in skipped]
            for path in (Path(directory, name) for name in files):
                with suppress(OSError):
                    if path.is_file() and path not in skipped and holds(_start_of(path), wanted):
                        found.append(Found("file", str(path)))
    return found


def _start_of(path: Path) -> bytes:
    with path.open("rb") as file:
        return file.read(MAX_FILE)


class Watcher:
    """What is found while it watches; complete when the context has ended."""

    def __init__(self) -> None:
        self.found: set[Found] = set()
        self.sweeps = 0
        self.children: set[str] = set()

    @property
    def summary(self) -> str:
        """How much was looked at: without that, nothing found means nothing."""
        return f"{self.sweeps} sweeps; children seen:\n" + "\n".join(sorted(self.children))


@contextmanager
def watching(
    pid: int,
    wanted: Iterable[bytes],
    directories: Iterable[Path],
    inputs: Iterable[Path] = (),
    seen: Path | None = None,
) -> Iterator[Watcher]:
    """Watch argument lists of all processes, environments below ``pid``, and files.

    In the directory ``seen`` each child that was looked at leaves a file of its pid's name.
    """
    task = {
        "pid": pid,
        "needles": [needle.hex() for needle in wanted],
        "directories": [str(path) for path in directories],
        "inputs": [str(path) for path in inputs],
        "seen": [str(seen)] if seen else [],
    }
    watcher = Watcher()
    process = subprocess.Popen(
        [sys.executable, "-m", "tests.support.canary"],
        cwd=ROOT,
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
    )
    assert process.stdin is not None
    assert process.stdout is not None
    with process:
        process.stdin.write(json.dumps(task).encode() + b"\n")
        process.stdin.flush()
        assert process.stdout.readline() == b"ready\n"
        yield watcher
        process.stdin.close()
        result = json.loads(process.stdout.read())
    watcher.found |= {Found(*each) for each in result["found"]}
    watcher.sweeps = result["sweeps"]
    watcher.children = set(result["children"])


class _Eye:
    """One look at everything after the other."""

    def __init__(self, task: Mapping[str, object]) -> None:
        def texts(name: str) -> list[str]:
            value = task[name]
            assert isinstance(value, list)
            return value

        assert isinstance(task["pid"], int)
        self.below = {task["pid"]}
        self.top = task["pid"]
        self.wanted = [bytes.fromhex(text) for text in texts("needles")]
        self.directories = [Path(text) for text in texts("directories")]
        self.inputs = [Path(text) for text in texts("inputs")]
        self.seen = [Path(text) for text in texts("seen")]
        self.found: set[Found] = set()
        self.children: set[str] = set()
        self.sweeps = 0

    def sweep(self) -> None:
        self.sweeps += 1
        own = self._arguments(self.top)
        for path in Path("/proc").iterdir():
            if path.name.isdigit():
                self._look(int(path.name), own)
        self.found |= set(files_with(self.directories, self.wanted, self.inputs))

    def _look(self, pid: int, own: bytes) -> None:
        arguments = self._arguments(pid)
        shown = arguments.replace(b"\0", b" ").decode(errors="replace")[:200]
        if holds(arguments, self.wanted):
            self.found.add(Found("arguments", f"{pid} {shown.split(' ')[0]}"))
        if pid not in self.below:
            with suppress(OSError, ValueError, IndexError):
                stat = Path(f"/proc/{pid}/stat").read_text(errors="replace")
                if int(stat.rpartition(") ")[2].split()[1]) in self.below:
                    self.below.add(pid)
        # A child that has not become its program yet still is an image of its parent.
        if pid in self.below and pid != self.top and arguments and arguments != own:
            self.children.add(shown)
            with suppress(OSError):
                if holds(Path(f"/proc/{pid}/environ").read_bytes(), self.wanted):
                    self.found.add(Found("environment", f"{pid} {shown}"))
            for directory in self.seen:
                (directory / str(pid)).touch()

    def _arguments(self, pid: int) -> bytes:
        try:
            return Path(f"/proc/{pid}/cmdline").read_bytes()
        except OSError:
            return b""


def main() -> None:
    """See the module's docstring."""
    eye = _Eye(json.loads(sys.stdin.readline()))
    eye.sweep()
    sys.stdout.write("ready\n")
    sys.stdout.flush()
    while not select([0], [], [], 0)[0]:
        eye.sweep()
        time.sleep(PAUSE)
    eye.sweep()
    result = {"found": sorted(eye.found), "sweeps": eye.sweeps, "children": sorted(eye.children)}
    sys.stdout.write(json.dumps(result))


if __name__ == "__main__":
    main()
