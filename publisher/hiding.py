"""What no log may show of credentials."""

from __future__ import annotations

from base64 import b64encode


def secrets(username: str, password: str, *others: str) -> tuple[str, ...]:
    """Password and other secrets, and user and password as HTTP has them; each once.

    In what other forms they may come back is :mod:`plp_builder.redaction`'s.
    """
    pair = base64(f"{username}:{password}") if password else ""
    return tuple(dict.fromkeys(text for text in (password, *others, pair) if text))


def base64(text: str) -> str:
    """``text`` as HTTP's Basic scheme and authfiles have it."""
    # A variable that is no UTF-8 goes out as the bytes that came in (PEP 383).
    return b64encode(text.encode("utf-8", "surrogateescape")).decode("ascii")
