"""BuildKit's event stream → what people and logs see of a build.

``events`` parses a line, ``model`` keeps what is known, ``plain`` shows it to people and
``journal`` as log events; ``failure`` says why a solve failed. ``create`` puts them together::

    model = Model()
    watch = progress.create("auto", "console", sys.stderr, colour=False, model=model)
    watch.feed(line, now)  # each line of buildctl's stderr, bytes
    watch.tick(now)  # about once a second
    watch.finish(now)  # at the end of the stream

``now`` is any clock that only goes forward, in seconds; nothing here reads one.
"""

from __future__ import annotations

import re
from binascii import a2b_base64, b2a_base64
from typing import TYPE_CHECKING, Protocol

from plp_builder import log
from plp_builder.progress.events import MAX_LINE_BYTES, parse
from plp_builder.progress.model import Change, Finished, Line, Model, Said, Started, Warned
from plp_builder.progress.step import Step
from plp_builder.terminal import Writer, decode, printable

if TYPE_CHECKING:
    from plp_builder.terminal import Stream

__all__ = ["MAX_LINE_BYTES", "Model", "Progress", "create"]

SETTLED_AFTER = 0.2
"""Seconds after which an end is believed: BuildKit often begins a step again at once."""


_OUTPUT = re.compile(rb'"data":"([A-Za-z0-9+/=]+)"')
"""What a step printed, in a line of BuildKit's. Quotes inside of a JSON string are escaped, so
that no other text looks like this."""


class Progress(Protocol):
    """Somebody who watches a build. None of the methods raises."""

    def feed(self, line: bytes, now: float) -> None:
        """Take one line of buildctl's stderr, at most ``MAX_LINE_BYTES`` long."""

    def tick(self, now: float) -> None:
        """Time has passed; long silent steps get a sign of life."""

    def finish(self, now: float) -> None:
        """The stream is over."""


class Sink(Protocol):
    """Shows changes."""

    def show(self, change: Change, now: float) -> None: ...

    def tick(self, now: float) -> None: ...

    def flush(self) -> None: ...


def create(
    mode: str,
    log_format: str,
    stream: Stream,
    colour: bool,
    model: Model,
    *,
    verbose: bool = False,
) -> Progress:
    """The watcher for ``PLP_PROGRESS`` (``mode``: auto, plain, quiet, rawjson), or for a solve of
    which nothing is shown (``hidden``).

    It feeds ``model`` and writes to ``stream``; with ``log_format`` json it makes log events
    instead (except rawjson, which passes BuildKit's lines through). Of a quiet build only the
    warnings of the Dockerfile checks are shown. ``verbose`` also shows BuildKit's own short tasks.
    """
    if mode == "hidden":
        return _Hidden(model)
    if mode == "rawjson":
        return _RawJson(stream, model)
    sink: Sink
    if log_format == "json":
        from plp_builder.progress.journal import Journal

        sink = Journal(model)
    else:
        from plp_builder.progress.plain import Plain

        sink = Plain(stream, model, colour=colour, verbose=verbose)
    return _Watch(model, _Warnings(sink) if mode == "quiet" else sink)


class _Watch:
    """Parses once, feeds the model, and hands the changes to a sink.

    The end of a step is held back until something else happens or a moment has passed, since
    BuildKit completes many steps for an instant and begins them again.
    """

    def __init__(self, model: Model, sink: Sink) -> None:
        self._model = model
        self._sink = sink
        self._ended: Step | None = None
        self._ended_at = 0.0
        self._at_hand: set[Step] = set()

    def feed(self, line: bytes, now: float) -> None:
        for event in parse(line):
            for change in self._model.apply(event):
                self._show(change, now)
        self._sink.flush()

    def tick(self, now: float) -> None:
        if now - self._ended_at >= SETTLED_AFTER:
            self._settle(now)
        self._sink.tick(now)
        self._sink.flush()

    def finish(self, now: float) -> None:
        for change in self._model.finish():
            self._show(change, now)
        self._settle(now)
        self._sink.flush()

    def _show(self, change: Change, now: float) -> None:
        if isinstance(change, (Started, Line, Finished)):
            if self._ended is not None and change.step is not self._ended:
                self._settle(now)
            elif isinstance(change, Started):
                self._ended = None
            if isinstance(change, Finished):
                self._ended, self._ended_at = change.step, now
                return
        elif isinstance(change, Said):
            self._settle(now)
        self._sink.show(change, now)

    def _settle(self, now: float) -> None:
        if self._ended is not None:
            step, self._ended = self._ended, None
            # One that was told as cached ends once more when its layers have been fetched.
            if not (step.cached and step in self._at_hand):
                self._sink.show(Finished(step), now)
            if step.cached:
                self._at_hand.add(step)


class _Warnings:
    """Lets only the warnings of the Dockerfile checks through."""

    def __init__(self, sink: Sink) -> None:
        self._sink = sink

    def show(self, change: Change, now: float) -> None:
        if isinstance(change, Warned):
            self._sink.show(change, now)

    def tick(self, now: float) -> None:
        pass

    def flush(self) -> None:
        self._sink.flush()


class _Hidden:
    """Feeds the model alone."""

    def __init__(self, model: Model) -> None:
        self._model = model

    def feed(self, line: bytes, now: float) -> None:  # noqa: ARG002
        for event in parse(line):
            self._model.apply(event)

    def tick(self, now: float) -> None:
        pass

    def finish(self, now: float) -> None:  # noqa: ARG002
        self._model.finish()


class _RawJson:
    """BuildKit's lines for a machine that reads them: verbatim, except for secrets.

    What BuildKit's client says of its own inner life goes to the log, at the level debug.
    """

    def __init__(self, stream: Stream, model: Model) -> None:
        self._writer = Writer(stream)
        self._model = model

    def feed(self, line: bytes, now: float) -> None:  # noqa: ARG002
        for event in parse(line):
            for change in self._model.apply(event):
                if isinstance(change, Said) and change.noise:
                    log.debug("buildctl output", line=printable(change.text))
                    return
        clean = _OUTPUT.sub(_without_secrets, line)
        self._writer.lines((decode(clean).rstrip("\r\n"),))

    def tick(self, now: float) -> None:
        pass

    def finish(self, now: float) -> None:  # noqa: ARG002
        self._model.finish()


def _without_secrets(output: re.Match[bytes]) -> bytes:
    """What a step printed, which base64 hides from the redaction of the stream."""
    try:
        text = a2b_base64(output[1]).decode("utf-8", "surrogateescape")
    except ValueError:
        return output[0]
    hidden = log.hide(text)
    if hidden == text:
        return output[0]
    encoded = b2a_base64(hidden.encode("utf-8", "surrogateescape"), newline=False)
    return b'"data":"' + encoded + b'"'
