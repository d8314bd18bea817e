"""Running the whole builder as a real process, as a host would."""

from __future__ import annotations

import os
import shutil
import signal
import subprocess
import sys
import tempfile
import uuid
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import BinaryIO, Protocol, Self

from scripts.set_up.step import ROOT
from tests.support import machine, processes
from tests.support.machine import Tools, User
from tests.support.processes import Process

_COVERAGE = ("COVERAGE_FILE", "COVERAGE_PROCESS_CONFIG", "COVERAGE_PROCESS_START")


@dataclass(frozen=True, slots=True)
class Result:
    """How a builder ended: exit code, what it wrote, and what it left behind."""

    code: int
    stdout: str
    stderr: str
    archive: Path
    left_processes: tuple[Process, ...]
    left_files: tuple[str, ...]

    @property
    def output(self) -> str:
        """Both streams, standard error last."""
        return self.stdout + self.stderr


@dataclass(frozen=True, slots=True)
class Workspace:
    """A source, a build and a cache directory of one user, with nothing in them yet."""

    root: Path
    owner: User

    @property
    def source(self) -> Path:
        """PLP_SOURCE_PATH."""
        return self.root / "source"

    @property
    def build(self) -> Path:
        """PLP_BUILD_PATH."""
        return self.root / "build"

    @property
    def cache(self) -> Path:
        """PLP_CACHE_PATH."""
        return self.root / "cache"

    @property
    def archive(self) -> Path:
        """Where the archive appears."""
        return self.build / "container-image.tar"

    @property
    def env(self) -> dict[str, str]:
        """The three path variables."""
        return {
            "PLP_SOURCE_PATH": str(self.source),
            "PLP_BUILD_PATH": str(self.build),
            "PLP_CACHE_PATH": str(self.cache),
        }

    def make(self) -> Workspace:
        """Create the directories; returns the workspace."""
        for directory in (self.root, self.source, self.build, self.cache):
            directory.mkdir(mode=0o755, exist_ok=True)
            directory.chmod(0o755)
            self.owner.own(directory)
        return self

    def write(self, files: Mapping[str, str | bytes]) -> Workspace:
        """Write files into the source directory by their relative paths."""
        for name, content in files.items():
            path = self.source / name
            path.parent.mkdir(parents=True, exist_ok=True)
            data = content.encode() if isinstance(content, str) else content
            path.write_bytes(data)
            for place in (path, *path.relative_to(self.source).parents):
                self.owner.own(self.source / place)
        return self

    def keep(self, file: Path) -> Path:
        """A copy beside the source that only the owner may read, for a secret."""
        copy = self.root / file.name
        shutil.copyfile(file, copy)
        copy.chmod(0o600)
        return self.owner.own(copy)

    def remove(self) -> None:
        """Delete everything, also what belongs to subordinate ids."""
        shutil.rmtree(self.root, ignore_errors=True)
        if self.root.exists():
            rootlesskit = machine.command("rootlesskit")
            subprocess.run([rootlesskit, "rm", "-rf", self.root], check=False, capture_output=True)


def new_workspace(owner: User) -> Workspace:
    """A workspace with a short path that any user can reach, unlike pytest's own."""
    root = Path(tempfile.mkdtemp(prefix="plp-w-", dir="/tmp"))
    return Workspace(root, owner).make()


def environment(
    given: Mapping[str, str | None], tools: Tools, user: User, home: Path
) -> dict[str, str]:
    """What the builder gets: ``given`` over a small usual environment; None takes one out."""
    usual = {
        "HOME": str(home),
        "LANG": "C.UTF-8",
        "PATH": tools.path,
        "TMPDIR": str(home / "tmp"),
        "USER": user.name,
    }
    measured = {name: os.environ[name] for name in _COVERAGE if name in os.environ}
    merged: dict[str, str | None] = {**usual, **measured, **given}
    return {name: value for name, value in merged.items() if value is not None}


@dataclass(slots=True)
class Run:
    """A builder that runs. Use :meth:`wait`, or as a context manager, which ends it."""

    process: subprocess.Popen[bytes]
    home: Path
    marker: str
    archive: Path
    streams: tuple[BinaryIO, BinaryIO]
    before: frozenset[int] = field(default_factory=frozenset)

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self.destroy()

    @property
    def pid(self) -> int:
        """The builder's own process."""
        return self.process.pid

    def text(self, stream: int = 1) -> str:
        """What it has written so far: 0 is standard output, 1 standard error."""
        name = ("stdout", "stderr")[stream]
        return (self.home / name).read_text(errors="replace")

    def wait_for(self, text: str, seconds: float = 60.0) -> None:
        """Wait until either stream holds ``text``; fails when it does not come."""

        def seen() -> bool:
            return text in self.text(0) + self.text(1)

        processes.until(lambda: seen() or self.process.poll() is not None, seconds)
        assert seen(), f"{text!r} did not come:\n{self.text(0)}{self.text(1)}"

    def send(self, number: signal.Signals) -> None:
        """Send a signal to the builder alone, as `docker stop` does."""
        self.process.send_signal(number)

    def tree(self) -> tuple[Process, ...]:
        """All living processes of this build, also those whose parent has ended."""
        found = processes.below({self.pid, *self._adopted()}) | processes.marked(self.marker)
        return tuple(found[pid] for pid in sorted(found))

    def _adopted(self) -> set[int]:
        return processes.children() - self.before - processes.own

    def left(self, seconds: float = 0.5) -> tuple[Process, ...]:
        """What still lives after the builder's end; the kernel gets a moment to clear up."""

        def gone() -> bool:
            processes.reap(self._adopted())
            return not self.tree()

        processes.until(gone, seconds)
        return self.tree()

    def wait(self, timeout: float = 120.0) -> Result:
        """Wait for the end; a builder that takes longer fails the test with its output."""
        try:
            code = self.process.wait(timeout)
        except subprocess.TimeoutExpired:
            said = self.text(0) + self.text(1)
            self.destroy()
            raise AssertionError(f"The builder still ran after {timeout} s:\n{said}") from None
        left = self.left()
        files = sorted(str(path.name) for path in (self.home / "tmp").iterdir())
        result = Result(code, self.text(0), self.text(1), self.archive, left, tuple(files))
        self.destroy()
        return result

    def destroy(self) -> None:
        """Kill whatever is left of the build, and remove its home."""
        processes.until(self._all_killed, 10.0)
        self.process.wait()
        for stream in self.streams:
            stream.close()
        processes.own.discard(self.pid)
        shutil.rmtree(self.home, ignore_errors=True)

    def _all_killed(self) -> bool:
        tree = self.tree()
        for process in tree:
            try:
                os.kill(process.pid, signal.SIGKILL)
            except (ProcessLookupError, PermissionError):
                continue
        self.process.poll()
        processes.reap(self._adopted())
        return not tree


def start(
    env: Mapping[str, str | None],
    *,
    tools: Tools,
    user: User,
    arguments: tuple[str, ...] = (),
) -> Run:
    """Start `python -m plp_builder` with ``env`` as its environment (see :func:`environment`).

    A user that the caller has to switch to runs a copy of this very source with a Python
    that it can reach.
    """
    home = Path(tempfile.mkdtemp(prefix="plp-h-", dir="/tmp"))
    (home / "tmp").mkdir()
    user.own(home)
    user.own(home / "tmp")
    python, directory = (Path(sys.executable), ROOT)
    if user.switch:
        python, directory = machine.shared_python(), machine.shared_source()
    marker = f"TEST_RUN={uuid.uuid4().hex}"
    full = environment(env, tools, user, home)
    full["TEST_RUN"] = marker.partition("=")[2]
    build = Path(full.get("PLP_BUILD_PATH") or "/build")
    archive = build / (full.get("PLP_ARCHIVE_NAME") or "container-image.tar")
    streams = ((home / "stdout").open("wb"), (home / "stderr").open("wb"))
    before = frozenset(processes.children())
    process = subprocess.Popen(
        [python, "-m", "plp_builder", *arguments],
        cwd=directory,
        env=full,
        stdin=subprocess.DEVNULL,
        stdout=streams[0],
        stderr=streams[1],
        user=user.uid if user.switch else None,
        group=user.gid if user.switch else None,
        extra_groups=[] if user.switch else None,
        start_new_session=True,
    )
    processes.own.add(process.pid)
    return Run(process, home, marker, archive, streams, before)


class RunBuilder(Protocol):
    """The fixture ``run_builder``: run to the end, within ``timeout`` seconds."""

    def __call__(
        self,
        env: Mapping[str, str | None],
        *,
        user: str | User = ...,
        tools: Tools | None = ...,
        timeout: float = ...,
        arguments: tuple[str, ...] = ...,
    ) -> Result: ...


class StartBuilder(Protocol):
    """The fixture ``start_builder``: start it and return at once."""

    def __call__(
        self,
        env: Mapping[str, str | None],
        *,
        user: str | User = ...,
        tools: Tools | None = ...,
        arguments: tuple[str, ...] = ...,
    ) -> Run: ...


class MakeWorkspace(Protocol):
    """The fixture ``workspace``: a new workspace of a user, removed after the test."""

    def __call__(self, user: str | User = ...) -> Workspace: ...
