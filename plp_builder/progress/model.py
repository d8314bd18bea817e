"""The build as known so far, from BuildKit's events; its memory is bounded.

``Model.apply`` takes one event and returns what changed for somebody who watches: a step
started, a line of its output, its end, a warning, a line of buildctl itself.
"""

from __future__ import annotations

import re
from collections import deque

from plp_builder.progress import sources
from plp_builder.progress.events import CheckWarning, Event, Log, Status, Text, Vertex
from plp_builder.progress.step import Span, Step
from plp_builder.terminal import decode, shorten
from plp_builder.tuples import NamedTuple

KEPT_LINE_LENGTH = 2_000
KEPT_TEXTS = 200
KEPT_WARNINGS = 100
MAX_STEPS = 10_000
MAX_TRANSFERS = 1_000
MAX_PARTIAL_BYTES = 16 << 10

_EXCERPT_HEAD = re.compile(r"\S.*:\d+$")
_EXCERPT_RULE = re.compile(r"-{20,}$")
_NOISE = re.compile(
    # Another process holds the blob for a moment; it is tried again, and a real failure to write
    # ends in an error of the exporting step.
    r'msg="\(\*service\)\.Write failed".* locked for '
    r'|msg="failed check for fsverity support"'
)
_TO_COLUMN_ONE = re.compile(rb"\x1b\[[01]?G")


class Started(NamedTuple):
    """A step began, or began again; it may be told more than once."""

    step: Step


class Line(NamedTuple):
    """A whole line of a step's output, raw; ``seconds`` since the step's start."""

    step: Step
    text: str
    seconds: float


class Finished(NamedTuple):
    """A step is done for now, with or without an error; BuildKit may begin it again."""

    step: Step


class Warned(NamedTuple):
    warning: CheckWarning


class Said(NamedTuple):
    """A line of buildctl that belongs to no step and is not its final error.

    ``noise`` is what BuildKit's client says of its own inner life in builds that are well.
    """

    text: str
    noise: bool = False


Change = Started | Line | Finished | Warned | Said


class Model:
    """What is known of one build.

    ``printed`` is whether any step has put out anything.
    """

    def __init__(self) -> None:
        self.steps: dict[str, Step] = {}
        self.warnings: list[CheckWarning] = []
        self.texts: deque[str] = deque(maxlen=KEPT_TEXTS)
        self.failed: Step | None = None
        self.printed = False
        self._by_digest: dict[str, Step] = {}
        self._seen_warnings: set[tuple[str, str, int]] = set()
        self._numbers = 0
        self._head: str | None = None
        self._at_the_end = False

    @property
    def steps_total(self) -> int:
        """Instructions that BuildKit worked on (see ``Step.counts``)."""
        return sum(1 for step in self.steps.values() if step.counts and step.spans)

    @property
    def all_cached(self) -> bool:
        """Whether no step had to run."""
        return self.steps_cached == self.steps_total

    @property
    def steps_cached(self) -> int:
        """Those of ``steps_total`` whose result was at hand."""
        return sum(1 for step in self.steps.values() if step.counts and step.cached)

    @property
    def of_fixed_sources(self) -> bool:
        """Whether it was made of nothing that can be another thing next time: see `sources`."""
        if len(self.steps) >= MAX_STEPS:
            return False
        return sources.are_fixed(step.name for step in self.steps.values())

    @property
    def transferred(self) -> int:
        """Bytes that reached the daemon: context files and layers of base images."""
        return sum(step.transferred for step in self.steps.values())

    @property
    def running(self) -> tuple[str, ...]:
        """The names of the instructions that are being carried out."""
        return tuple(step.name for step in self.steps.values() if step.counts and step.running)

    def number(self, step: Step) -> int:
        """The number under which the step is shown; numbers are given in the order of showing."""
        if not step.number:
            self._numbers += 1
            step.number = self._numbers
        return step.number

    def apply(self, event: Event) -> list[Change]:
        """Take in one event; what changed, in order."""
        if isinstance(event, Log):
            return self._log(event)
        if isinstance(event, Vertex):
            return self._vertex(event)
        if isinstance(event, Status):
            return self._status(event)
        if isinstance(event, CheckWarning):
            return self._warning(event)
        return self._text(event)

    def finish(self) -> list[Change]:
        """The stream is over: what is still owed, output without a newline for example."""
        changes: list[Change] = []
        if self._head is not None:
            changes.append(Said(self._head))
            self._head = None
        for step in self.steps.values():
            changes += self._flush(step)
            if step.spans and not step.running and not all(step.members.values()):
                step.members = dict.fromkeys(step.members, True)
                changes.append(Finished(step))
        return changes

    def _step(self, digest: str, key: str, name: str) -> Step:
        step = self.steps.get(key)
        if step is None:
            step = Step(name or "(a step without a name)")
            if len(self.steps) < MAX_STEPS:
                self.steps[key] = step
        elif name:
            step.name = name
        if len(self._by_digest) < MAX_STEPS:
            self._by_digest[digest] = step
        return step

    def _vertex(self, event: Vertex) -> list[Change]:
        step = self._step(event.digest, event.group or event.digest, event.group_name or event.name)
        step.members.setdefault(event.digest, False)
        if event.started is None:
            return []
        at = (event.digest, event.started)
        known = step.spans.get(at)
        if event.completed is None:
            return [] if known else self._begin(step, at, event)
        if known and known.stop == event.completed and not event.error:
            return []
        return self._end(step, at, event)

    def _begin(self, step: Step, at: tuple[str, float], event: Vertex) -> list[Change]:
        again = step.running
        step.spans[at] = Span(None, event.cached)
        step.members[event.digest] = False
        return [] if again else [Started(step)]

    def _end(self, step: Step, at: tuple[str, float], event: Vertex) -> list[Change]:
        changes: list[Change] = [] if step.spans else [Started(step)]
        step.spans[at] = Span(event.completed, event.cached)
        step.members[event.digest] = not step.member_running(event.digest)
        if event.error and (not step.error or step.canceled):
            step.error = event.error
            if not step.canceled and self.failed is None:
                self.failed = step
        if not step.running and (all(step.members.values()) or event.error):
            changes += self._flush(step)
            changes.append(Finished(step))
        return changes

    def _status(self, event: Status) -> list[Change]:
        step = self._by_digest.get(event.vertex)
        if step is None:
            return []
        if event.id.startswith(("sha256:", "extracting sha256:")):
            step.fetched.add(event.vertex)
        if event.id.startswith(("transferring ", "sha256:")) and (
            event.id in step.transfers or len(step.transfers) < MAX_TRANSFERS
        ):
            step.transfers[event.id] = (event.current, event.total)
        elif event.started is not None and event.completed is not None and not step.counts:
            seconds = event.completed - event.started
            if seconds >= 1:
                return [
                    Line(step, f"{event.id} {seconds:.1f}s", self._since(step, event.completed))
                ]
        return []

    def _log(self, event: Log) -> list[Change]:
        self.printed = True
        step = self._by_digest.get(event.vertex)
        if step is None:
            step = self._step(event.vertex, event.vertex, "")
        changes: list[Change] = []
        if not step.spans:
            changes.append(Started(step))
        stream = 1 if event.stream == 1 else 2
        data = step.partial.pop(stream, b"") + event.data
        if b"\x1b[" in data:
            data = _TO_COLUMN_ONE.sub(b"\r", data)
        *whole, rest = data.split(b"\n")
        if rest:
            # Of a progress bar only the last state counts; it may still be overwritten.
            rest = rest[rest.rstrip(b"\r").rfind(b"\r") + 1 :]
            while len(rest) > MAX_PARTIAL_BYTES:
                whole.append(rest[:MAX_PARTIAL_BYTES])
                rest = rest[MAX_PARTIAL_BYTES:]
            step.partial[stream] = rest
        seconds = self._since(step, event.timestamp)
        changes += [self._line(step, line, seconds) for line in whole]
        return changes

    def _line(self, step: Step, raw: bytes, seconds: float) -> Line:
        if b"\r" in raw:
            raw = raw.rstrip(b"\r")
            raw = raw[raw.rfind(b"\r") + 1 :]
        text = decode(raw)
        step.lines.append(shorten(text, KEPT_LINE_LENGTH))
        return Line(step, text, seconds)

    def _flush(self, step: Step) -> list[Change]:
        seconds = step.stopped
        partial, step.partial = step.partial, {}
        return [
            self._line(step, rest, self._since(step, seconds))
            for _, rest in sorted(partial.items())
            if rest.strip()
        ]

    def _since(self, step: Step, timestamp: float | None) -> float:
        started = step.started
        if started is None or timestamp is None:
            return 0.0
        return max(0.0, timestamp - started)

    def _warning(self, event: CheckWarning) -> list[Change]:
        identity = (event.short, event.file, event.line)
        if identity in self._seen_warnings or len(self.warnings) >= KEPT_WARNINGS:
            return []
        self._seen_warnings.add(identity)
        self.warnings.append(event)
        return [Warned(event)]

    def _text(self, event: Text) -> list[Change]:
        """Tell buildctl's last words, an excerpt of the Dockerfile and the error, from the rest."""
        self.texts.append(event.text)
        if self._at_the_end:
            return []
        head, self._head = self._head, None
        if (head and _EXCERPT_RULE.match(event.text)) or event.text.startswith("error: "):
            self._at_the_end = True
            return []
        changes: list[Change] = [Said(head)] if head else []
        if _EXCERPT_HEAD.match(event.text):
            self._head = event.text
        else:
            changes.append(Said(event.text, _NOISE.search(event.text) is not None))
        return changes
