"""Taking secrets out of texts, in every form in which programs and registries repeat them."""

from __future__ import annotations

import json
import re
from collections.abc import Callable, Iterable, Iterator

from plp_builder.terminal import printable

HIDDEN = "<hidden>"
SHORTEST = 3
SHORTEST_LINE = 8
SHORTEST_CORE = 8
MAX_LINES = 64
MAX_CODED = 8 << 10
"""Longer secrets, and files of more lines, are looked for as they are and in JSON alone: what
quotes them in other ways does not quote that much."""

_USER_INFO = r"(?<=://)[^/?#\s\"'<>]*@"
_ESCAPED = r"(?<!\\)\\++(?:u([0-9a-fA-F]{4})|x([0-9a-fA-F]{2})|U([0-9a-fA-F]{8}))"
_ALWAYS_SAFE = frozenset(b"ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789_.-~")
_SAFE_IN_ADDRESSES = ("", "/", "/$&+=:@", "$&+,;=", "!'()*")
"""What else stays as it is: by RFC 3986, in paths, in Go's paths and user infos, in JavaScript."""


def forms(secret: str) -> frozenset[str]:
    """``secret`` as it is and as others write it; without what is too short to be looked for.

    Those are: strings of JSON and of Go's ``%q``, also within one another as in a log of an error
    of an answer; HTML; percent-encoding; base64, also as a part of something longer such as
    ``user:password``. Of several lines each longer one counts for itself, since tools print them
    in pieces.
    """
    lines = [line for raw in secret.splitlines() if len(line := raw.strip()) >= SHORTEST_LINE]
    few = len(secret) <= MAX_CODED and len(lines) <= MAX_LINES
    found: set[str] = set()
    for text in {secret, secret.strip(), printable(secret), *lines}:
        if len(text) >= SHORTEST:
            found.update(_quoted(text))
            if few:
                found.update((*_in_html(text), *_in_addresses(text), *_in_base64(text)))
    return frozenset(form for form in found if len(form) >= SHORTEST)


def redactor(secrets: Iterable[str] = ()) -> Callable[[str], str]:
    """A function that replaces every known secret, and the user info of URLs, by ``<hidden>``.

    Secrets shorter than three characters are not looked for: they would hide half of every text.
    A secret that only shows when what is invisible has gone is found, too.
    """
    known = sorted({form for secret in secrets for form in forms(secret)}, key=len, reverse=True)
    pattern: re.Pattern[str] | None = None

    def plainly(text: str) -> str:
        nonlocal pattern
        # A file may have a thousand lines: to compile them takes 80 ms, and most builds print none.
        if any(map(text.__contains__, known)):
            pattern = pattern or re.compile("|".join(map(re.escape, known)))
            text = pattern.sub(HIDDEN, text)
        return re.sub(_USER_INFO, f"{HIDDEN}@", text) if "://" in text else text

    def visibly(line: str) -> str:
        for other in _other_looks(line):
            if (hidden := plainly(other)) != other:
                return hidden
        return line

    def hide(text: str) -> str:
        text = plainly(text)
        if text.isprintable() and "\\" not in text:
            return text
        lines = (line.split(HIDDEN) for line in text.split("\n"))
        return "\n".join(HIDDEN.join(map(visibly, parts)) for parts in lines)

    return hide


def _other_looks(line: str) -> Iterator[str]:
    """``line`` without what cannot be seen, and without that which is only spelt out."""
    if not line.isprintable():
        yield _seen(line)
    if "\\" in line and (unescaped := re.sub(_ESCAPED, _character, line)) != line:
        yield _seen(unescaped)


def _seen(line: str) -> str:
    """What can be seen of it: no zero-width characters, for example."""
    return "".join(each for each in printable(line) if each.isprintable() or each == "\t")


def _character(escaped: re.Match[str]) -> str:
    return chr(min(int(escaped[1] or escaped[2] or escaped[3], 16), 0x10FFFF))


def _quoted(text: str) -> set[str]:
    """In up to three strings around one another."""
    found = {text}
    for _ in range(3):
        found |= {quoted for each in found for quoted in _as_string(each)}
    return found


def _as_string(text: str) -> Iterator[str]:
    """As JSON and Go's ``%q`` have it; Go's JSON spells what HTML would obey."""
    yield json.dumps(text, ensure_ascii=False)[1:-1]
    ascii_alone = json.dumps(text)[1:-1]
    yield ascii_alone
    for character in "&<>":
        ascii_alone = ascii_alone.replace(character, f"\\u{ord(character):04x}")
    yield ascii_alone


def _in_html(text: str) -> Iterator[str]:
    text = text.replace("&", "&amp;").replace("<", "&lt;").replace(">", "&gt;")
    yield text.replace('"', "&#34;").replace("'", "&#39;")
    yield text.replace('"', "&quot;").replace("'", "&#x27;")


def _in_addresses(text: str) -> Iterator[str]:
    data = _bytes(text)
    for more in _SAFE_IN_ADDRESSES:
        safe = _ALWAYS_SAFE.union(more.encode())
        for code in ("%{:02X}", "%{:02x}"):
            coded = "".join(chr(byte) if byte in safe else code.format(byte) for byte in data)
            yield coded
            yield coded.replace("%20", "+")


def _in_base64(text: str) -> Iterator[str]:
    data = _bytes(text)
    whole = _base64(data)
    codes = [whole, whole.rstrip("=")]
    # Behind one or two other bytes all is shifted; the outermost characters hold neighbours, too.
    for before in range(3):
        full, rest = divmod(before + len(data), 3)
        core = _base64(bytes(before) + data)[(0, 2, 3)[before] : 4 * full + rest]
        if len(core) >= SHORTEST_CORE:
            codes.append(core)
    for code in codes:
        yield code
        yield code.replace("+", "-").replace("/", "_")


def _base64(data: bytes) -> str:
    from binascii import b2a_base64  # a shared object to load, and most builds have no secrets

    return b2a_base64(data, newline=False).decode("ascii")


def _bytes(text: str) -> bytes:
    # A variable that is no UTF-8 goes out as the bytes that came in (PEP 383).
    return text.encode("utf-8", "surrogateescape" if _from_bytes(text) else "surrogatepass")


def _from_bytes(text: str) -> bool:
    return all("\udc80" <= each <= "\udcff" for each in text if "\ud800" <= each <= "\udfff")
