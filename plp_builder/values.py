"""The values that settings are made of, and the parsers for their plain parts.

Everything here is frozen or pure. A parser takes text and returns a value, or raises ``Refused``
(a ``ValueError``) with sentences that say what was given and what is accepted. The name of the
variable is added by ``settings``, the only module that knows the names.
"""

from __future__ import annotations

from pathlib import Path

from plp_builder.tuples import NamedTuple

MAX_INT64 = 2**63 - 1
MAX_SHOWN = 80


class Refused(ValueError):
    """A text that is no value; ``problems`` holds one sentence for each thing wrong with it."""

    def __init__(self, *problems: str) -> None:
        super().__init__("; ".join(problems))
        self.problems = problems


class NotImplementedYet(Refused):
    """A value of the contract that a later version will honour."""


class KeyValue(NamedTuple):
    """A build argument, a label or an annotation."""

    key: str
    value: str


class Secret(NamedTuple):
    """A build secret: exactly one of ``env`` (the *name* of a set variable) and ``path`` is set."""

    id: str
    env: str | None
    path: Path | None


class Ssh(NamedTuple):
    """An agent for ``RUN --mount=type=ssh``: the path of one agent socket, or of key files."""

    id: str
    paths: tuple[Path, ...]


class BuildContext(NamedTuple):
    """A named context; ``source`` is as given: a directory, or ``scheme://…``."""

    name: str
    source: str


class AddHost(NamedTuple):
    """A line of /etc/hosts in build steps; ``host`` is in lower case, as BuildKit writes it."""

    host: str
    address: str


class Ulimit(NamedTuple):
    """A resource limit of build steps; -1 is unlimited."""

    name: str
    soft: int
    hard: int


class Mirror(NamedTuple):
    """``mirror`` (``host[:port][/path]``) is asked before ``registry`` (``host[:port]``)."""

    registry: str
    mirror: str


def shown(text: str) -> str:
    """``text`` in double quotes, short, with control characters escaped and passwords hidden."""
    cut = hide_user_info(text)
    if len(cut) > MAX_SHOWN:
        cut = cut[: MAX_SHOWN - 1] + "…"
    return '"' + "".join(map(_shown_character, cut)) + '"'


def _shown_character(character: str) -> str:
    if character in '"\\':
        return "\\" + character
    if character.isprintable():
        return character
    return character.encode("unicode_escape").decode("ascii")


def hide_user_info(text: str) -> str:
    """``text`` with ``***`` in place of what stands between ``://`` and ``@``."""
    head, separator, rest = text.partition("://")
    if not separator:
        return text
    end = min((rest.find(mark) for mark in "/?# \n" if mark in rest), default=len(rest))
    at = rest.rfind("@", 0, end)
    if at < 0:
        return head + separator + rest[:end] + hide_user_info(rest[end:])
    return head + separator + "***" + rest[at:end] + hide_user_info(rest[end:])


def control_character(text: str) -> str | None:
    """The first control character of ``text`` (C0, DEL, C1), escaped; None without any."""
    for character in text:
        if character < " " or "\x7f" <= character <= "\x9f":
            return _shown_character(character)
    return None


def check_utf8(text: str) -> None:
    """Raises Refused for bytes that are no UTF-8: BuildKit's protocol cannot carry them.

    Python hands such bytes of the environment over as lone surrogates (PEP 383).
    """
    try:
        text.encode("utf-8")
    except UnicodeEncodeError as error:
        byte = ord(text[error.start]) & 0xFF
        raise Refused(
            f"holds the byte 0x{byte:02x}, which is no UTF-8; give text in UTF-8"
        ) from None


_BOOLEANS = {
    "true": True, "1": True, "yes": True, "on": True,
    "false": False, "0": False, "no": False, "off": False,
}  # fmt: skip


def parse_boolean(text: str) -> bool:
    """True for true, 1, yes, on; False for false, 0, no, off; in any case of letters."""
    value = _BOOLEANS.get(text.strip().lower())
    if value is None:
        raise Refused(f"{shown(text)} is no boolean; use true/false, 1/0, yes/no or on/off")
    return value


_SIZE_PREFIXES = {"": 0, "k": 1, "m": 2, "g": 3, "t": 4, "p": 5}


def parse_size(text: str, *, base: int = 1000) -> int:
    """Bytes, at least 1. ``10GB``, ``1.5 GB``, ``512MiB``, ``500k``, ``1048576``.

    ``KiB``, ``MiB``… always count in 1024; ``k``, ``kB``… in ``base``.
    """
    number, unit = _split_unit(text.strip())
    name = unit.lower().removesuffix("b")
    if name.endswith("i") and len(name) == 2:
        name, base = name[0], 1024
    if name not in _SIZE_PREFIXES or not _is_number(number):
        raise Refused(f"{shown(text)} is no size; use a number with a unit: 500k, 512MiB, 10GB")
    whole, _, fraction = number.partition(".")
    factor: int = base ** _SIZE_PREFIXES[name]
    size = int(whole + fraction) * factor // int("1" + "0" * len(fraction))
    if not 1 <= size <= MAX_INT64:
        raise Refused(f"{shown(text)} is out of range; use 1 byte up to 8EiB - 1")
    return size


_SECONDS = {"ms": 0.001, "s": 1.0, "m": 60.0, "h": 3600.0, "d": 86400.0}
MAX_DURATION = 20 * 86400.0  # poll(2) counts milliseconds in 31 bits, which is 24.8 days


def parse_duration(text: str, *, zero: bool = False) -> float:
    """Seconds, more than 0, at most 20 days. ``60s``, ``1h30m``, ``1.5h``, ``500ms``, ``90``.

    With ``zero``, 0 is a value as well.
    """
    rest = text.strip()
    if _is_number(rest):
        seconds = float(rest)
    else:
        seconds = 0.0
        while rest:
            number, tail = _split_unit(rest)
            unit, rest = _split_word(tail)
            if not _is_number(number) or unit not in _SECONDS:
                raise Refused(_no_duration(text))
            seconds += float(number) * _SECONDS[unit]
    if not 0 <= seconds <= MAX_DURATION or not (seconds or zero):
        least = "0 up to" if zero else "more than 0 and at most"
        raise Refused(f"{shown(text)} is out of range; use {least} 20d")
    return seconds


def _no_duration(text: str) -> str:
    return f"{shown(text)} is no duration; use seconds or units: 90, 60s, 1h30m"


def _is_number(text: str) -> bool:
    whole, point, fraction = text.partition(".")
    return len(text) <= 40 and _digits(whole) and (not point or _digits(fraction))


def _digits(text: str) -> bool:
    return 0 < len(text) <= 40 and text.isascii() and text.isdigit()


def _split_unit(text: str) -> tuple[str, str]:
    end = 0
    while end < len(text) and (text[end] in "0123456789."):
        end += 1
    return text[:end], text[end:].lstrip(" ")


def _split_word(text: str) -> tuple[str, str]:
    end = 0
    while end < len(text) and text[end].isalpha():
        end += 1
    return text[:end], text[end:].lstrip(" ")


def parse_integer(text: str, low: int, high: int) -> int:
    """A decimal integer from ``low`` to ``high``."""
    stripped = text.strip()
    if not _digits(stripped.removeprefix("-")):
        raise Refused(f"{shown(text)} is no integer; use {low} to {high}")
    value = int(stripped)
    if not low <= value <= high:
        raise Refused(f"{shown(text)} is out of range; use {low} to {high}")
    return value


def parse_choice(text: str, choices: tuple[str, ...]) -> str:
    """One of ``choices``; case and blanks around do not matter."""
    value = text.strip().lower()
    if value not in choices:
        raise Refused(f"{shown(text)} is not accepted; use {join_or(choices)}")
    return value


def join_or(words: tuple[str, ...]) -> str:
    """``a, b or c``."""
    return words[0] if len(words) == 1 else ", ".join(words[:-1]) + " or " + words[-1]


def parse_lines(text: str) -> tuple[tuple[int, str], ...]:
    """The lines that are not blank, with their number from 1.

    White space before a line (an indented YAML block) is not part of it; what follows is kept as
    it is. A carriage return at the end is refused: kept, it would silently become part of a value.
    """
    lines = []
    for number, given in enumerate(text.split("\n"), 1):
        line = given.lstrip(" \t")
        if line.strip(" \t\r") == "":
            continue
        if line.endswith("\r"):
            raise Refused(f"line {number} ends with a carriage return; end lines with \\n alone")
        lines.append((number, line))
    return tuple(lines)


def parse_items(text: str) -> tuple[str, ...]:
    """The entries of a list by comma or line, without blanks around them; empty ones left out."""
    entries = (entry.strip() for entry in text.replace("\n", ",").split(","))
    return tuple(entry for entry in entries if entry)


def parse_key_values(text: str) -> tuple[KeyValue, ...]:
    """``KEY=value`` a line, split at the first ``=``; of two lines with one key the last counts."""
    values: dict[str, str] = {}
    problems = []
    for number, line in parse_lines(text):
        key, equals, value = line.partition("=")
        if not equals:
            problems.append(f"line {number} is no KEY=value")
        elif not key:
            problems.append(f"line {number} has no key before the =")
        else:
            values[key] = value
    if problems:
        raise Refused(*problems)
    return tuple(KeyValue(key, value) for key, value in values.items())
