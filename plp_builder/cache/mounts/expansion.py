"""Variables in a Dockerfile's words, as far as they can be told without building.

Rules: frontend/dockerfile/shell/lex.go of BuildKit.
"""

from __future__ import annotations

import re
from collections.abc import Mapping

_NAME = re.compile(r"[A-Za-z_][A-Za-z0-9_]*")
_SPECIAL = re.compile(r"[{@*#?$!0-9-]")
_SUBSTITUTION = re.compile(r"\{([A-Za-z_][A-Za-z0-9_]*)(:?[-+])?")


class UnresolvedError(Exception):
    """What a word means is known to BuildKit alone; the message names the reason."""


class Variables:
    """Those that are set. ``closed`` is whether all others are known to be unset."""

    def __init__(self, known: Mapping[str, str], *, closed: bool) -> None:
        self._known = dict(known)
        self._unknown: set[str] = set()
        self._closed = closed

    def copy(self) -> Variables:
        """The same, to be changed by itself."""
        other = Variables(self._known, closed=self._closed)
        other._unknown = set(self._unknown)
        return other

    def set(self, name: str, word: str, escape: str) -> None:
        """Set one to what ``word`` expands to, if that can be told."""
        try:
            self.give(name, expand(word, self, escape))
        except UnresolvedError:
            self.forget(name)

    def give(self, name: str, value: str) -> None:
        """Set one to this very value."""
        self._known[name] = value
        self._unknown.discard(name)

    def forget(self, name: str) -> None:
        """It is set to something that cannot be told."""
        self._known.pop(name, None)
        self._unknown.add(name)

    def get(self, name: str) -> str | None:
        """Its value, None if it is not set. Raises UnresolvedError."""
        if name in self._known:
            return self._known[name]
        if name in self._unknown or not self._closed:
            raise UnresolvedError(f"the value of {name} is not known before the build")
        return None


def expand(word: str, variables: Variables, escape: str) -> str:
    """``word`` without quotes and escapes, with values for variables. Raises UnresolvedError."""
    result, at = _expand(word, 0, variables, escape, end="")
    if at < len(word):
        raise UnresolvedError(f"{word!r} is not understood")
    return result


def _expand(word: str, at: int, variables: Variables, escape: str, *, end: str) -> tuple[str, int]:
    result, quote = "", ""
    while at < len(word):
        character = word[at]
        if character == end and not quote:
            return result, at + 1
        if character == "$" and quote != "'":
            value, at = _dollar(word, at + 1, variables, escape)
            result += value
            continue
        at += 1
        if character == quote or (not quote and character in "'\""):
            quote = "" if quote else character
        elif character == escape and quote != "'":
            escaped = word[at : at + 1]
            at += 1
            kept = quote and escaped not in {'"', "$", escape}
            result += escape + escaped if kept else escaped
        else:
            result += character
    if quote or end:
        raise UnresolvedError(f"{word!r} has no {quote or end} at its end")
    return result, at


def _dollar(word: str, at: int, variables: Variables, escape: str) -> tuple[str, int]:
    name = _NAME.match(word, at)
    if name:
        return variables.get(name[0]) or "", name.end()
    match = _SUBSTITUTION.match(word, at)
    if match is None:
        if _SPECIAL.match(word, at):
            raise UnresolvedError(f"{word!r} is not understood")
        return "$", at
    operator = match[2]
    if not operator:
        if not word.startswith("}", match.end()):
            raise UnresolvedError(f"{word!r} is not understood")
        return variables.get(match[1]) or "", match.end() + 1
    other, at = _expand(word, match.end(), variables, escape, end="}")
    value = variables.get(match[1])
    is_set = bool(value) if operator.startswith(":") else value is not None
    if operator.endswith("+"):
        return (other if is_set else ""), at
    return (value or "" if is_set else other), at
