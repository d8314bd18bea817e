"""Recorded progress of real builds, and what the builder makes of it.

tests/unit/streams holds buildctl's stderr with ``--progress=rawjson``, of BuildKit 0.32.2 unless
the name says otherwise. Lines that no test needs are left out.
"""

from __future__ import annotations

import base64
import io
import json
from collections.abc import Iterable
from pathlib import Path

from plp_builder import progress
from plp_builder.progress import Model

STREAMS = Path(__file__).parents[1] / "unit" / "streams"


def recorded(name: str) -> list[bytes]:
    return (STREAMS / f"{name}.jsonl").read_bytes().splitlines(keepends=True)


def watch(lines: Iterable[bytes], mode: str = "auto", *, colour: bool = False) -> tuple[str, Model]:
    """What a console shows of a whole stream, and the model at its end."""
    model, stream = Model(), io.StringIO()
    shown = progress.create(mode, "console", stream, colour, model)
    for line in lines:
        shown.feed(line, 0.0)
    shown.finish(0.0)
    return stream.getvalue(), model


def moment(seconds: float) -> str:
    return f"2026-01-01T00:{int(seconds) // 60:02d}:{seconds % 60:09.6f}Z"


def vertex(digest: str, name: str = "[1/1] RUN x", **keys: object) -> bytes:
    return _line("vertexes", {"digest": digest, "name": name, **keys})


def output(digest: str, data: bytes, seconds: float = 0.0, stream: int = 1) -> bytes:
    text = base64.b64encode(data).decode()
    return _line(
        "logs", {"vertex": digest, "stream": stream, "data": text, "timestamp": moment(seconds)}
    )


def status(digest: str, part: str, current: int, total: int = 0) -> bytes:
    return _line("statuses", {"vertex": digest, "id": part, "current": current, "total": total})


def _line(kind: str, item: object) -> bytes:
    return json.dumps({kind: [item]}).encode() + b"\n"
