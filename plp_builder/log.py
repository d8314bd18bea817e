"""Log events with keys: aligned lines for people, JSON for machines.

``configure`` once, then ``info("daemon ready", user="plp", seconds=0.07)``. structlog is imported
at the first event that is written, since it costs more than the rest of a start. Logging never
raises, and known secrets never get out.
"""

from __future__ import annotations

import json
import re
import sys
from collections.abc import Callable, Iterable, Mapping, MutableMapping
from functools import partial
from math import isfinite
from typing import TYPE_CHECKING

from plp_builder.redaction import redactor
from plp_builder.terminal import RESET, Writer, printable

if TYPE_CHECKING:
    from datetime import datetime
    from typing import Any, TextIO

LEVELS = {"debug": 10, "info": 20, "warning": 30, "error": 40}
EVENT_WIDTH = 24
MAX_DEPTH = 5

_COLOURS = {"debug": "\x1b[90m", "info": "\x1b[32m", "warning": "\x1b[33m", "error": "\x1b[31m"}
_PLAIN_VALUE = r"[^\s\"'=\\]+"


def _now() -> datetime:
    from datetime import UTC, datetime

    return datetime.now(UTC).astimezone()


class _Configuration:
    """What ``configure`` was given, and the structlog logger once there is one."""

    def __init__(self) -> None:
        self.deferred: list[tuple[datetime, str, str, Mapping[str, object]]] | None = None
        self.set("console", "info", None, (), False, _now)

    def set(
        self,
        log_format: str,
        level: str,
        stream: TextIO | None,
        redact: tuple[str, ...],
        colour: bool,
        clock: Callable[[], datetime],
    ) -> None:
        self.json = log_format == "json"
        self.level = LEVELS[level]
        self.stream = stream
        self.colour = colour
        self.clock = clock
        self.hide = redactor(redact)
        self.logger: Any = None


_current = _Configuration()


def configure(
    format: str = "console",
    level: str = "info",
    stream: TextIO | None = None,
    redact: tuple[str, ...] = (),
    *,
    colour: bool = False,
    clock: Callable[[], datetime] = _now,
) -> None:
    """Say how events are written: ``format`` console or json, from ``level`` on, to ``stream``.

    ``stream`` None is the standard error of the moment of the first event. ``redact`` are the
    values that must never appear; ``clock`` gives aware times: a console shows them as they are,
    JSON in UTC. May be called again; events that ``defer`` keeps are written as the last call says.
    """
    _current.set(format, level, stream, redact, colour, clock)


def debug(event: str, /, **keys: object) -> None:
    _write("debug", event, keys)


def info(event: str, /, **keys: object) -> None:
    _write("info", event, keys)


def warning(event: str, /, **keys: object) -> None:
    _write("warning", event, keys)


def error(event: str, /, **keys: object) -> None:
    """``exc_info=True`` adds the traceback of the exception being handled."""
    _write("error", event, keys)


def outcome(
    event: str, keys: Mapping[str, object], lines: Iterable[str], *, level: str = "info"
) -> None:
    """The last word of a run, whatever PLP_LOG_LEVEL: ``lines`` for people, or one JSON event.

    Secrets are hidden at the level error only: a failure repeats what others said, a success
    holds a path, a digest and counts, which a short secret would only falsify.
    """
    release()
    current = _current
    hide = current.hide if level == "error" else _as_it_is
    if current.json:
        _emit(level, event, keys, hide)
    else:
        Writer(current.stream or sys.stderr).lines(map(hide, lines))


def defer() -> None:
    """Keep events until ``release``: writing the first one costs structlog's import."""
    _current.deferred = []


def release() -> None:
    """Write what was kept since ``defer``, in order and with the times of then."""
    current, kept = _current, _current.deferred
    current.deferred = None
    clock = current.clock
    for moment, level, event, keys in kept or ():
        current.clock = partial(_the_same, moment)
        _write(level, event, keys)
    current.clock = clock


def _as_it_is(text: str) -> str:
    return text


def _the_same(moment: datetime) -> datetime:
    return moment


class Redacted:
    """A text stream that lets no known secret through; each write is looked at by itself."""

    def __init__(self, stream: TextIO) -> None:
        self._stream = stream
        self.encoding = getattr(stream, "encoding", None)

    def write(self, text: str) -> int:
        return self._stream.write(hide(text))

    def flush(self) -> None:
        self._stream.flush()


def colourful(stream: TextIO, environ: Mapping[str, str]) -> bool:
    """Whether to colour: on a terminal, unless NO_COLOR is set (https://no-color.org)."""
    return not environ.get("NO_COLOR") and environ.get("TERM") != "dumb" and stream.isatty()


def hide(text: str) -> str:
    """``text`` without the secrets that ``configure`` was told, for what is written elsewhere."""
    return _current.hide(text)


def _write(level: str, event: str, keys: Mapping[str, object]) -> None:
    current = _current
    if LEVELS[level] < current.level:
        return
    if current.deferred is not None:
        current.deferred.append((current.clock(), level, event, keys))
        return
    _emit(level, event, keys, current.hide)


def _emit(level: str, event: str, keys: Mapping[str, object], hide: Callable[[str], str]) -> None:
    current = _current
    try:
        if hide is not current.hide:
            logger = _logger(current, hide)
        else:
            logger = current.logger = current.logger or _logger(current, hide)
        getattr(logger, level)(event, **keys)
    except Exception:  # noqa: BLE001 - logging must not end a build
        # A value whose text cannot be made, for example: the event still is worth telling.
        Writer(current.stream or sys.stderr).lines((printable(current.hide(f"{level} {event}")),))


def _logger(current: _Configuration, hide: Callable[[str], str]) -> Any:
    from plp_builder.lazy import lazily

    # What it imports for features that are not used here takes a third of its time.
    lazily("asyncio", "copy", "inspect", "platform", "textwrap", "uuid")
    import structlog

    # The moment of an event is asked for when it is written: ``release`` sets the clock back.
    def clock() -> datetime:
        return current.clock()

    return structlog.wrap_logger(
        _Lines(current.stream or sys.stderr),
        processors=[
            structlog.processors.add_log_level,
            structlog.processors.format_exc_info,
            _Clean(hide),
            _Json(clock) if current.json else _Console(clock, current.colour),
        ],
        wrapper_class=structlog.make_filtering_bound_logger(LEVELS["debug"]),
        context_class=dict,
        cache_logger_on_first_use=False,
    )


class _Lines:
    """structlog's innermost logger: takes what the last processor made."""

    def __init__(self, stream: TextIO) -> None:
        self._writer = Writer(stream)

    def msg(self, line: str) -> None:
        self._writer.lines((line,))

    debug = info = warning = error = msg


class _Clean:
    """A structlog processor: values become plain ones, and secrets disappear from all of them."""

    def __init__(self, hide: Callable[[str], str]) -> None:
        self._hide = hide

    def __call__(
        self, _logger: object, _method: str, event: MutableMapping[str, Any]
    ) -> dict[str, object]:
        return {self._hide(key): self._clean(value, MAX_DEPTH) for key, value in event.items()}

    def _clean(self, value: object, depth: int) -> object:
        if value is None or isinstance(value, (bool, int)):
            return value
        if isinstance(value, float):
            return value if isfinite(value) else str(value)
        if depth and isinstance(value, Mapping):
            return {
                self._hide(str(key)): self._clean(item, depth - 1) for key, item in value.items()
            }
        if depth and isinstance(value, (list, tuple, set, frozenset)):
            return [self._clean(item, depth - 1) for item in value]
        if isinstance(value, bytes):
            value = value.decode("utf-8", "replace")
        return self._hide(str(value))


class _Json:
    """A structlog processor: one object a line, in ASCII so that every stream can hold it."""

    def __init__(self, clock: Callable[[], datetime]) -> None:
        self._clock = clock

    def __call__(self, _logger: object, _method: str, event: MutableMapping[str, Any]) -> str:
        from datetime import UTC

        time = self._clock().astimezone(UTC).isoformat(timespec="milliseconds")
        first = {
            "timestamp": time.replace("+00:00", "Z"),
            "level": event.pop("level"),
            "event": event.pop("event"),
        }
        return json.dumps(first | dict(event), separators=(",", ":"))


class _Console:
    """A structlog processor: time, level, event, keys; a traceback on lines of its own."""

    def __init__(self, clock: Callable[[], datetime], colour: bool) -> None:
        self._clock = clock
        self._colour = colour

    def __call__(self, _logger: object, _method: str, event: MutableMapping[str, Any]) -> str:
        time = self._clock().strftime("%H:%M:%S")
        level = str(event.pop("level"))
        name = printable(str(event.pop("event")))
        traceback = event.pop("exception", None)
        keys = " ".join(f"{printable(key)}={_value(item)}" for key, item in event.items())
        shown = f"{level:8}"
        if self._colour:
            shown = f"{_COLOURS[level]}{shown}{RESET}"
        line = f"{time} {shown} {name:{EVENT_WIDTH}} {keys}".rstrip()
        below = str(traceback).splitlines() if traceback else ()
        return "\n".join((line, *(f"    {printable(text)}" for text in below)))


def _value(value: object) -> str:
    if isinstance(value, bool) or value is None or isinstance(value, (list, dict)):
        return printable(json.dumps(value, ensure_ascii=False))
    text = str(value)
    if re.fullmatch(_PLAIN_VALUE, text):
        return printable(text)
    return printable(json.dumps(text, ensure_ascii=False))
