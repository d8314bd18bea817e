"""skopeo: what it is asked, what it may see of the environment, and how long it is waited for."""

from __future__ import annotations

import os
import re
import signal
import time
from collections import deque
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from functools import partial
from typing import NamedTuple

from plp_builder import log, process
from plp_builder.errors import Failure, ResourcesExhausted, ToolNotFound
from plp_builder.oci.model import MAX_DOCUMENT_SIZE
from plp_builder.process import Child, Watch
from plp_builder.streams import Lines, Tail
from plp_builder.terminal import decode, shorten
from publisher.faults import Fault, Kind, classify

AT_ONCE = 4
"""Small questions asked at the same time."""
TICK = 0.5
LAST_WORDS = 5.0
MAX_LINE = 1 << 16
SHOWN_LINE = 4000
VERSION_WAIT = 10.0
INSTALL = "Install skopeo 1.9 or newer, for example with `apt-get install skopeo`."

_PROXIES = ("HTTP_PROXY", "HTTPS_PROXY", "NO_PROXY")
_PASSED = frozenset(
    {"PATH", "LANG", "SSL_CERT_FILE", "SSL_CERT_DIR"}
    | {*_PROXIES, *(name.lower() for name in _PROXIES)}
)
_CRASH = re.compile(rb"runtime(?:/cgo)?: |fatal error: |panic: |SIG[A-Z]+: ")
"""How the lines begin with which a Go program tells why it crashes, before its stacks."""
_CRASH_LINES = 4
_LACKS = (
    ("threads", r"runtime: failed to create new OS thread|runtime/cgo: pthread_create failed"),
    ("memory", r"runtime: out of memory|fatal error: runtime: (?:out of|cannot allocate) memory"),
    ("open files", r"runtime: (?:pipe|epollcreate\w*) failed with \d+"),
    (
        "open files",
        r"time=.* level=fatal .*: (?:socket|open /proc/self/fd/\d+): too many open files",
    ),
)
"""From the beginning of a line on: what a registry says comes later in one."""
_NOWHERE = "/proc/none"
"""A home that is not there and that not even root can make."""


class Registry(NamedTuple):
    """How to reach the registry.

    ``authfile`` and ``bundle`` (of CAs; empty for the machine's own) are paths of the inherited
    ``descriptors``, so that nothing lies on a disk.
    """

    repository: str
    authfile: str
    bundle: str
    insecure: bool
    descriptors: tuple[int, ...]

    def tag(self, name: str) -> str:
        """skopeo's name of a tag."""
        return f"docker://{self.repository}:{name}"

    def digest(self, digest: str) -> str:
        """skopeo's name of a manifest."""
        return f"docker://{self.repository}@{digest}"


@dataclass(frozen=True, slots=True)
class Ended:
    """What a skopeo has left; ``fault`` is None after success."""

    output: bytes
    fault: Fault | None


def copy(
    registry: Registry, source: str, destination: str, *, index_only: bool = False
) -> tuple[str, ...]:
    """Arguments: copy an image with all that belongs to it, byte by byte.

    ``index_only`` copies an index whose images are there already.
    """
    return (
        *("skopeo", "--insecure-policy", "copy"),
        *("--authfile", registry.authfile),
        *("--multi-arch", "index-only" if index_only else "all"),
        *("--preserve-digests", "--remove-signatures"),
        "--src-tls-verify=false",
        f"--dest-tls-verify={_truth(not registry.insecure)}",
        source,
        destination,
    )


def inspect(registry: Registry, image: str) -> tuple[str, ...]:
    """Arguments: print the manifest of ``image`` as the registry has it."""
    return (
        *("skopeo", "--insecure-policy", "inspect", "--raw", "--no-tags"),
        *("--authfile", registry.authfile),
        f"--tls-verify={_truth(not registry.insecure)}",
        image,
    )


def _truth(value: bool) -> str:
    return "true" if value else "false"


def require(environ: Mapping[str, str]) -> None:
    """Raise ToolNotFound where there is no skopeo: better before the archive is read."""
    path = environ.get("PATH", os.defpath)
    if process.find("skopeo", path) is None:
        raise ToolNotFound("skopeo was not found on PATH", why=[f"PATH={path}"], hint=INSTALL)


def version(environ: Mapping[str, str]) -> str:
    """The version of the skopeo on PATH, or "not found"."""
    try:
        done = process.run(["skopeo", "--version"], env=environment(environ), timeout=VERSION_WAIT)
    except Failure:
        return "not found"
    return decode(done.stdout).removeprefix("skopeo version ").strip() or "unknown"


def environment(environ: Mapping[str, str], bundle: str = "") -> dict[str, str]:
    """What skopeo gets to see: none of our variables, no home to read from or to write to."""
    env = {name: value for name, value in environ.items() if name in _PASSED}
    # As root it would keep a cache of blobs below /var/lib, wherever HOME is.
    env |= {"HOME": _NOWHERE, "_CONTAINERS_ROOTLESS_UID": "65534"}
    if bundle:
        env["SSL_CERT_FILE"] = bundle
    return env


class Runner:
    """Runs skopeo: with what it needs of us, and until it moves no more."""

    def __init__(
        self,
        registry: Registry,
        environ: Mapping[str, str],
        watch: Watch,
        *,
        stall_timeout: float,
        moved: Callable[[], int],
        tick: Callable[[], None],
    ) -> None:
        """``moved`` counts the bytes that left us; ``tick`` is called about twice a second."""
        self.registry = registry
        self._env = environment(environ, registry.bundle)
        self._watch = watch
        self._stall_timeout = stall_timeout
        self._moved = moved
        self._tick = tick

    def run(self, arguments: Sequence[str]) -> Ended:
        """Run one skopeo to its end."""
        return self.run_all([arguments])[0]

    def run_all(self, commands: Sequence[Sequence[str]]) -> list[Ended]:
        """Run several, a few at once; what they left is in the order of ``commands``."""
        running: dict[int, _Running] = {}
        ended: dict[int, Ended] = {}
        waiting = deque(enumerate(commands))

        def served() -> bool:
            for number in [number for number, each in running.items() if each.over()]:
                ended[number] = running.pop(number).left()
            while waiting and len(running) < AT_ONCE:
                number, arguments = waiting.popleft()
                running[number] = _Running(self._start(arguments), self._watch)
            return not running

        def tick() -> None:
            self._tick()
            now, moved = time.monotonic(), self._moved()
            for each in running.values():
                each.look(now, moved, self._stall_timeout)

        try:
            self._watch.until(served, tick=tick, interval=min(TICK, self._stall_timeout / 4))
        finally:
            for each in running.values():
                each.end()
        return [ended[number] for number in range(len(commands))]

    def _start(self, arguments: Sequence[str]) -> Child:
        log.debug("skopeo", arguments=list(arguments[2:]))
        return process.start(
            arguments,
            env=self._env,
            stdout=process.PIPE,
            stderr=process.PIPE,
            pass_fds=self.registry.descriptors,
        )


class _Running:
    """One skopeo and its output. It is over when it has ended and both pipes have."""

    def __init__(self, child: Child, watch: Watch) -> None:
        self._child = child
        self._watch = watch
        self._output = bytearray()
        self._tail = Tail(lines=40, width=MAX_LINE)
        self._streams = 2
        self._ended_at: float | None = None
        self._alive = time.monotonic()
        self._moved = 0
        self._stalled = 0.0
        self._crash: list[bytes] = []
        self._lines = Lines(self._line, limit=MAX_LINE)
        watch.reads(child.stdout, partial(self._read, self._print))
        watch.reads(child.stderr, partial(self._read, self._lines))
        watch.exits(child, self._ends)

    def _read(self, sink: Callable[[bytes], None], chunk: bytes) -> None:
        self._alive = time.monotonic()
        self._streams -= not chunk
        sink(chunk)

    def _line(self, line: bytes) -> None:
        if len(self._crash) < _CRASH_LINES and _CRASH.match(line):
            self._crash.append(line[:SHOWN_LINE])
        self._tail(line)

    def _print(self, chunk: bytes) -> None:
        # One byte more than a manifest may have tells that there was too much.
        self._output += chunk[: MAX_DOCUMENT_SIZE + 1 - len(self._output)]

    def _ends(self) -> None:
        self._ended_at = time.monotonic()

    def over(self) -> bool:
        if self._ended_at is None:
            return False
        return not self._streams or time.monotonic() >= self._ended_at + LAST_WORDS

    def look(self, now: float, moved: int, patience: float) -> None:
        """Kill it when nothing has moved and it has said nothing for too long."""
        if moved != self._moved:
            self._moved, self._alive = moved, now
        elif now - self._alive >= patience and not self._stalled:
            self._stalled = patience
            self._child.signal(signal.SIGKILL)

    def left(self) -> Ended:
        """What it has left, once it is over. Raises ResourcesExhausted where that ended it."""
        code = self._child.poll() or 0
        self._close()
        if self._stalled:
            said = f"nothing was sent or said for {self._stalled:g} s"
            return Ended(b"", Fault(Kind.STALLED, (said,)))
        lines = self._tail.text()
        for line in lines:
            log.debug("skopeo said", line=shorten(log.hide(line), SHOWN_LINE))
        if code:
            told = [decode(line) for line in self._crash] or lines
            _check_lack(told)
            return Ended(b"", classify(code, told))
        return Ended(bytes(self._output), None)

    def end(self) -> None:
        """End it at once: it has nothing to put in order, here or in the registry."""
        self._watch.end(self._child, grace=0)
        self._close()

    def _close(self) -> None:
        for each in (self._child, self._child.stdout, self._child.stderr):
            self._watch.forget(each)
        self._child.close()


def _check_lack(lines: Sequence[str]) -> None:
    """Raise ResourcesExhausted where that is why skopeo has ended: no other attempt helps."""
    for what, words in _LACKS:
        if found := next((line for line in lines if re.match(words, line)), None):
            why = [shorten(log.hide(found), SHOWN_LINE)]
            raise ResourcesExhausted(f"the system gives skopeo no more {what}", why=why)
