"""How a given text is shown to people: short, harmless for a terminal, without passwords."""

from __future__ import annotations

MAX_SHOWN = 80


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
