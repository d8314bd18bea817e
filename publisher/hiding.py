"""The forms in which a secret travels: what no log may show."""

from __future__ import annotations

from base64 import b64encode


def forms(username: str, password: str, *others: str) -> tuple[str, ...]:
    """Password and other secrets, also as HTTP, an address or a form has them; each once."""
    plain = [text for text in (password, *others) if text]
    if not plain:
        return ()
    pair = [base64(f"{username}:{password}")] if password else []
    coded = [
        each for text in plain for each in (base64(text), _quoted(text, ""), _quoted(text, "/"))
    ]
    return tuple(dict.fromkeys((*plain, *pair, *coded)))


def base64(text: str) -> str:
    """``text`` as HTTP's Basic scheme and authfiles have it."""
    # A variable that is no UTF-8 goes out as the bytes that came in (PEP 383).
    return b64encode(text.encode("utf-8", "surrogateescape")).decode("ascii")


def _quoted(text: str, safe: str) -> str:
    """As an address or a form has it (RFC 3986, section 2.1)."""
    from urllib.parse import quote

    return quote(text, safe, errors="surrogateescape")
