"""Steps that tell what they did and how long it took, and places they share."""

from __future__ import annotations

import fcntl
import hashlib
import os
import subprocess
import sys
import time
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from pathlib import Path

ROOT = Path(__file__).resolve().parents[2]
NAME = "plp-container-image-builder"
_TITLE_WIDTH = 28


class SetupError(Exception):
    """The set-up cannot go on; the text says what is missing and what to do."""


class Step:
    """What is done, and how it ended: one line, or two where the work takes its time."""

    def __init__(self) -> None:
        self.outcome = "done"
        self.begun = False

    def begin(self, expectation: str) -> None:
        """There is something to do: say what and about how long, in a line that is seen at once.

        A whole line, because the logs of CI systems show no others while something is running.
        """
        print(f"{expectation} …", flush=True)
        self.begun = True


@contextmanager
def step(title: str) -> Iterator[Step]:
    """Print ``title``, what the block says it begins, the outcome that it set, and its seconds."""
    print(f"{title:<{_TITLE_WIDTH}}", end="", flush=True)
    started = time.monotonic()
    current = Step()
    try:
        yield current
    except BaseException:
        current.outcome = "failed"
        raise
    finally:
        indent = " " * _TITLE_WIDTH if current.begun else ""
        seconds = time.monotonic() - started
        print(f"{indent}{current.outcome}  ({seconds:.1f} s)", flush=True)


def cache_home(environ: Mapping[str, str] = os.environ) -> Path:
    """The directory of what is made once and used by every clone of this user."""
    base = environ.get("XDG_CACHE_HOME") or ""
    parent = Path(base) if Path(base).is_absolute() else Path.home() / ".cache"
    return parent / NAME


@contextmanager
def lock(path: Path) -> Iterator[None]:
    """Hold an exclusive lock on the file ``path``, so that two set-ups take turns."""
    path.parent.mkdir(parents=True, exist_ok=True)
    with path.open("w") as file:
        fcntl.flock(file, fcntl.LOCK_EX)
        yield


def content_key(*parts: bytes | str | Path) -> str:
    """Sixteen hexadecimal digits that change when a text or a file's content does."""
    digest = hashlib.sha256()
    for part in parts:
        if isinstance(part, Path):
            content = part.read_bytes()
        else:
            content = part.encode() if isinstance(part, str) else part
        digest.update(b"%d:" % len(content) + content)
    return digest.hexdigest()[:16]


def run(
    argv: Sequence[str | Path],
    *,
    cwd: Path = ROOT,
    env: Mapping[str, str] | None = None,
) -> str:
    """Run a command quietly; returns its output, or raises SetupError with its last lines."""
    try:
        done = subprocess.run(
            argv,
            cwd=cwd,
            env=env,
            check=False,
            stdin=subprocess.DEVNULL,
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            text=True,
            errors="replace",
        )
    except OSError as error:
        raise SetupError(f"{argv[0]} could not be started: {error.strerror}") from error
    if done.returncode:
        tail = "\n".join(f"    {line}" for line in done.stdout.splitlines()[-15:])
        raise SetupError(f"{' '.join(map(str, argv))}\n  ended with {done.returncode}:\n{tail}")
    return done.stdout


def warn(text: str) -> None:
    """Print what the reader should know but what does not end the set-up."""
    print(f"  ! {text}", file=sys.stderr, flush=True)
