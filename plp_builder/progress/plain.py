"""The build for people and CI logs: numbered steps, one line a fact.

A step is named once (``#4 [build 2/5] RUN make``), each line of its output carries its number
and the seconds since its start, and its end says ``CACHED``, ``DONE 1.2s``, ``CANCELED`` or
``ERROR …``. BuildKit's own tasks appear only when they take time or have something to say.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from plp_builder.progress.events import CheckWarning
from plp_builder.progress.model import Change, Finished, Line, Model, Started, Warned
from plp_builder.progress.step import Step
from plp_builder.terminal import (
    RESET,
    Writer,
    decode,
    human_duration,
    human_size,
    printable,
    shorten,
)

if TYPE_CHECKING:
    from plp_builder.terminal import Stream

HEARTBEAT = 30.0
SLOW_HEARTBEAT = 60.0
SLOW_AFTER = 300.0
SHOWN_AFTER = 1.0
NAME_LENGTH = 400
WORTH_TELLING = 100_000

_BOLD, _RED, _GREEN, _YELLOW, _GREY = "\x1b[1m", "\x1b[31m", "\x1b[32m", "\x1b[33m", "\x1b[90m"


class Plain:
    """Writes a build to a stream as plain lines, coloured if ``colour``."""

    def __init__(
        self, stream: Stream, model: Model, *, colour: bool = False, verbose: bool = False
    ) -> None:
        self._writer = Writer(stream)
        self._model = model
        self._colour = colour
        self._verbose = verbose
        self._begun: dict[Step, float] = {}
        self._heard: dict[Step, float] = {}
        self._lines: list[str] = []

    def show(self, change: Change, now: float) -> None:
        if isinstance(change, Line):
            number = self._name(change.step, now)
            text = printable(change.text, colour=self._colour)
            prefix = self._paint(f"#{number} {change.seconds:.3f}", _GREY)
            self._lines.append(f"{prefix} {text}".rstrip())
        elif isinstance(change, Started):
            self._begun.setdefault(change.step, now)
            if change.step.counts or change.step.instruction or self._verbose:
                self._name(change.step, now)
        elif isinstance(change, Finished):
            self._finished(change.step, now)
        elif isinstance(change, Warned):
            self._lines.append(self._paint(f"WARNING {describe(change.warning)}", _YELLOW))
        elif not change.noise or self._verbose:
            self._lines.append(f"buildctl: {printable(change.text)}".rstrip())

    def tick(self, now: float) -> None:
        for step, begun in self._begun.items():
            elapsed = now - begun
            if not step.number:
                if elapsed >= SHOWN_AFTER:
                    self._name(step, now)
                continue
            if now - self._heard[step] >= (HEARTBEAT if elapsed < SLOW_AFTER else SLOW_HEARTBEAT):
                self._heard[step] = now
                told = "".join(f", {part}" for part in _state(step))
                line = f"#{step.number} still running, {human_duration(elapsed)}{told}"
                self._lines.append(self._paint(line, _GREY))

    def flush(self) -> None:
        lines, self._lines = self._lines, []
        self._writer.lines(lines)

    def _name(self, step: Step, now: float) -> int:
        if not step.number:
            name = shorten(" ".join(printable(step.name.replace("\n", " ")).split()), NAME_LENGTH)
            self._lines.append(self._paint(f"#{self._model.number(step)} {name}", _BOLD))
        self._heard[step] = now
        return step.number

    def _finished(self, step: Step, now: float) -> None:
        self._begun.pop(step, None)
        if not step.number and not step.error and step.duration < SHOWN_AFTER:
            self._heard.pop(step, None)
            return
        number = self._name(step, now)
        self._heard.pop(step, None)
        if step.canceled:
            self._lines.append(self._paint(f"#{number} CANCELED", _YELLOW))
        elif step.error:
            error = printable(step.error.replace("\n", " "))
            self._lines.append(self._paint(f"#{number} ERROR: {error}", _RED))
        elif step.cached:
            self._lines.append(self._paint(f"#{number} CACHED", _GREEN))
        else:
            size = step.transferred
            told = f", {human_size(size)}" if size >= WORTH_TELLING else ""
            done = f"#{number} DONE {human_duration(step.duration)}{told}"
            self._lines.append(self._paint(done, _GREEN))

    def _paint(self, text: str, colour: str) -> str:
        return f"{colour}{text}{RESET}" if self._colour else text


def describe(warning: CheckWarning) -> str:
    """A warning of the Dockerfile checks on one line: where, what, and where to read more."""
    short = warning.short
    if warning.line:
        short = short.removesuffix(f" (line {warning.line})")
    place = f"{warning.file or 'Dockerfile'}:{warning.line}" if warning.line else warning.file
    parts = (place, short, f"({warning.url})" if warning.url else "")
    return " ".join(printable(part) for part in parts if part)


def _state(step: Step) -> list[str]:
    """What a silent step is at: bytes received, and the line it has not ended yet."""
    state = []
    if step.expected > step.transferred:
        state.append(f"{human_size(step.transferred)} of {human_size(step.expected)}")
    elif step.transferred:
        state.append(human_size(step.transferred))
    for _, rest in sorted(step.partial.items()):
        text = printable(decode(rest.rstrip(b"\r").rpartition(b"\r")[2])).strip()
        if text:
            state.append(shorten(text, 120))
    return state
