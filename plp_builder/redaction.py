"""Keeps secret values and credentials out of whatever is written."""

from __future__ import annotations

import re
from collections.abc import Callable, Iterable

HIDDEN = "<hidden>"
SHORTEST = 3
SHORTEST_LINE = 8

_USER_INFO = re.compile(r"(?<=://)[^/?#\s\"'<>]*@")


def redactor(secrets: Iterable[str] = ()) -> Callable[[str], str]:
    """A function that replaces every known secret, and the user info of URLs, by ``<hidden>``.

    Secrets shorter than three characters are not looked for: they would hide half of every text.
    Of a secret with several lines each longer line is hidden too, since tools print it in pieces.
    """
    values: set[str] = set()
    for secret in secrets:
        values.update((secret, secret.strip()))
        values.update(
            line for raw in secret.splitlines() if len(line := raw.strip()) >= SHORTEST_LINE
        )
    known = sorted((value for value in values if len(value) >= SHORTEST), key=len, reverse=True)
    pattern = re.compile("|".join(map(re.escape, known))) if known else None

    def hide(text: str) -> str:
        if pattern is not None:
            text = pattern.sub(HIDDEN, text)
        return _USER_INFO.sub(f"{HIDDEN}@", text) if "://" in text else text

    return hide
