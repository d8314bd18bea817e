"""What may reach a terminal or a log: clean text, units for people, safe writing.

Text from build steps, registries and Dockerfiles is not ours. Before it is shown it loses
whatever a terminal would obey: escape sequences, control characters, and the Unicode
characters that reorder or break lines.
"""

from __future__ import annotations

import re
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Iterable
    from typing import Protocol

    class Stream(Protocol):
        """As much of a text stream as is needed to write to it."""

        def write(self, text: str, /) -> object: ...

        def flush(self) -> object: ...


RESET = "\x1b[0m"

# Patterns of which a run that begins needs none are compiled, by `re` itself, when they are used.
_SGR = r"\x1b\[[0-9;:]*m"
_ESCAPE = (
    r"\x1b(?:"
    r"\[[0-?]*[ -/]*[@-~]?"  # CSI: colours, cursor, erase (ECMA-48 §5.4)
    r"|\][^\x07\x1b]*(?:\x07|\x1b\\)?"  # OSC: titles, links, clipboard
    r"|[PX^_][^\x1b]*(?:\x1b\\)?"  # DCS, SOS, PM, APC
    r"|[ -/]*[0-~]?"  # every other two- or three-character escape
    r")"
    r"|\x9b[0-?]*[ -/]*[@-~]?"  # CSI as one C1 character
)
_UNSAFE = "[\x00-\x08\x0a-\x1f\x7f-\x9f\u061c\u200e\u200f\u2028-\u202e\u2066-\u2069\ud800-\udfff]"


def printable(text: str, *, colour: bool = False) -> str:
    """``text`` as one line that no terminal obeys; tabs stay.

    With ``colour`` the colour codes (SGR) stay too, and a reset ends the line.
    """
    if text.isprintable():
        return text
    if not colour or "\x1b[" not in text:
        return re.sub(_UNSAFE, "", re.sub(_ESCAPE, "", text))
    parts: list[str] = []
    end = 0
    for code in re.finditer(_SGR, text):
        parts += (printable(text[end : code.start()]), code.group())
        end = code.end()
    parts.append(printable(text[end:]))
    return "".join(parts) + (RESET if end else "")


def decode(data: bytes) -> str:
    """Bytes of unknown origin as text: UTF-8, with U+FFFD for what is not."""
    return data.decode("utf-8", "replace")


def shorten(text: str, limit: int) -> str:
    """``text`` with at most ``limit`` characters; an ellipsis tells that some are gone."""
    return text if len(text) <= limit else text[: limit - 1] + "…"


def human_size(size: int) -> str:
    """Bytes in decimal units with one digit: ``987 B``, ``12.3 MB``."""
    value = float(size)
    if value < 1000:
        return f"{size} B"
    for unit in ("kB", "MB", "GB", "TB"):
        value /= 1000
        if value < 999.95 or unit == "TB":
            break
    return f"{value:.1f} {unit}"


def human_duration(seconds: float) -> str:
    """Seconds for people: ``0.4s``, ``12.3s``, ``1m30s``, ``2h05m``."""
    seconds = max(seconds, 0.0)
    if seconds < 59.95:
        return f"{seconds:.1f}s"
    whole = round(seconds)
    if whole < 3600:
        return f"{whole // 60}m{whole % 60:02d}s"
    return f"{whole // 3600}h{whole % 3600 // 60:02d}m"


class Writer:
    """Writes lines to a text stream and never raises.

    A reader that went away must not end a build: once the stream is broken or closed, further
    lines are dropped. What the stream's encoding cannot hold is written as ``\\x…`` escapes.
    """

    __slots__ = ("_broken", "_stream")

    def __init__(self, stream: Stream | None) -> None:
        self._stream = stream
        self._broken = stream is None

    def lines(self, lines: Iterable[str]) -> None:
        """Write the lines, each ended by a newline, and flush."""
        text = "".join(f"{line}\n" for line in lines)
        if not text or self._broken or self._stream is None:
            return
        try:
            try:
                self._stream.write(text)
            except UnicodeEncodeError:
                encoding = getattr(self._stream, "encoding", None) or "ascii"
                self._stream.write(text.encode(encoding, "backslashreplace").decode(encoding))
            self._stream.flush()
        except BlockingIOError:
            pass  # the reader is slow and the stream does not wait: these lines are lost
        except (OSError, ValueError, LookupError):
            self._broken = True
