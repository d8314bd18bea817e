"""One line of ``buildctl --progress=rawjson`` → frozen events.

Each line of buildctl's stderr is either a JSON object of BuildKit's ``client.SolveStatus``
(client/graph.go) or plain text: the excerpt of the Dockerfile and the error at the end, messages
of Go libraries, a panic. Nothing in a line can make ``parse`` raise: what has the wrong type
counts as absent, what is no status is text.
"""

from __future__ import annotations

import json
from binascii import Error as Base64Error
from binascii import a2b_base64
from collections.abc import Iterable
from datetime import datetime
from typing import Any

from plp_builder.streams import LINE_LIMIT
from plp_builder.terminal import decode
from plp_builder.tuples import NamedTuple

MAX_LINE_BYTES = LINE_LIMIT
"""Where a reader cuts a line. buildkitd splits its messages at 4 MiB, base64 adds a third."""

MAX_TEXT_BYTES = 64 << 10


class Vertex(NamedTuple):
    """A node of the build graph. Times are seconds since the epoch, None when unknown.

    ``group`` is the identity of a progress group: several vertices shown as one step.
    """

    digest: str
    name: str = ""
    started: float | None = None
    completed: float | None = None
    cached: bool = False
    error: str = ""
    group: str = ""
    group_name: str = ""


class Status(NamedTuple):
    """The progress of one part of a vertex, for example one layer; ``total`` 0 is unknown."""

    vertex: str
    id: str
    current: int = 0
    total: int = 0
    started: float | None = None
    completed: float | None = None


class Log(NamedTuple):
    """Output of a step as it came, cut anywhere. ``stream`` is 1 (stdout) or 2 (stderr)."""

    vertex: str
    stream: int
    data: bytes
    timestamp: float | None = None


class CheckWarning(NamedTuple):
    """A finding of the Dockerfile checks; lines start at 1, 0 is unknown."""

    vertex: str
    short: str
    detail: tuple[str, ...] = ()
    url: str = ""
    file: str = ""
    line: int = 0
    last_line: int = 0


class Text(NamedTuple):
    """A line that is no status."""

    text: str


Event = Vertex | Status | Log | CheckWarning | Text

_STATUS_KEYS = frozenset({"vertexes", "statuses", "logs", "warnings"})
_STATUS_STARTS = tuple(b'{"' + key.encode() + b'":' for key in _STATUS_KEYS)


def parse(line: bytes) -> tuple[Event, ...]:
    """The events of one line (with or without its newline), in the order they shall be applied."""
    if not line.startswith(b"{"):
        return _text(line)
    try:
        status = json.loads(line)
    except (ValueError, RecursionError):
        if line.startswith(_STATUS_STARTS):
            return (Text(f"buildctl wrote {len(line)} bytes of progress that cannot be read"),)
        return _text(line)
    if status == {}:
        return ()
    if not isinstance(status, dict) or _STATUS_KEYS.isdisjoint(status):
        return _text(line)
    vertices = [_vertex(item) for item in _objects(status, "vertexes")]
    logs = [_log(item) for item in _objects(status, "logs")]
    # A step's last output and its completion may share a message: the output goes first.
    last = [vertex for vertex in vertices if logs and vertex.completed is not None]
    return (
        *(vertex for vertex in vertices if not logs or vertex.completed is None),
        *(_status(item) for item in _objects(status, "statuses")),
        *(_warning(item) for item in _objects(status, "warnings")),
        *logs,
        *last,
    )


def _text(line: bytes) -> tuple[Event, ...]:
    text = decode(line[:MAX_TEXT_BYTES]).rstrip("\r\n")
    return (Text(text),) if text.strip() else ()


def _vertex(item: dict[str, Any]) -> Vertex:
    group = item.get("progressGroup")
    if not isinstance(group, dict):
        group = {}
    return Vertex(
        _string(item, "digest"),
        _string(item, "name"),
        _time(item.get("started")),
        _time(item.get("completed")),
        item.get("cached") is True,
        _string(item, "error"),
        _string(group, "id"),
        _string(group, "name"),
    )


def _status(item: dict[str, Any]) -> Status:
    return Status(
        _string(item, "vertex"),
        _string(item, "id"),
        _integer(item, "current"),
        _integer(item, "total"),
        _time(item.get("started")),
        _time(item.get("completed")),
    )


def _log(item: dict[str, Any]) -> Log:
    return Log(
        _string(item, "vertex"),
        _integer(item, "stream"),
        _base64(item.get("data")),
        _time(item.get("timestamp")),
    )


def _warning(item: dict[str, Any]) -> CheckWarning:
    source = item.get("sourceInfo")
    first = last = 0
    for place in _objects(item, "range"):
        start, end = place.get("start"), place.get("end")
        if isinstance(start, dict) and (line := _integer(start, "line")):
            first = min(first or line, line)
            last = max(last, line, _integer(end, "line") if isinstance(end, dict) else 0)
    detail = item.get("detail")
    return CheckWarning(
        _string(item, "vertex"),
        decode(_base64(item.get("short"))),
        tuple(decode(_base64(part)) for part in detail) if isinstance(detail, list) else (),
        _string(item, "url"),
        _string(source, "filename") if isinstance(source, dict) else "",
        first,
        last,
    )


def _objects(item: dict[str, Any], key: str) -> Iterable[dict[str, Any]]:
    found = item.get(key)
    return [one for one in found if isinstance(one, dict)] if isinstance(found, list) else ()


def _string(item: dict[str, Any], key: str) -> str:
    found = item.get(key)
    return found if isinstance(found, str) else ""


def _integer(item: dict[str, Any], key: str) -> int:
    found = item.get(key)
    return found if type(found) is int and 0 <= found < 1 << 63 else 0


def _time(found: object) -> float | None:
    if not isinstance(found, str):
        return None
    try:
        return datetime.fromisoformat(found).timestamp()
    except (ValueError, OverflowError, OSError):
        return None


def _base64(found: object) -> bytes:
    if not isinstance(found, str):
        return b""
    try:
        return a2b_base64(found)
    except (ValueError, Base64Error):
        return b""
