"""Expressions of GitHub's workflows, as far as this project uses them.

`Evaluate expressions in workflows and actions` in GitHub's documentation: a missing property is
null, null is an empty string, strings compare without case, `&&` and `||` return an operand.
"""

from __future__ import annotations

import re
from collections.abc import Mapping
from typing import Any

_TOKEN = re.compile(r"\s*(?:'((?:[^']|'')*)'|([A-Za-z_][\w-]*(?:\.[\w-]+)*)|(&&|\|\||==|!=|[!()]))")
_PLACE = re.compile(r"\$\{\{(.*?)\}\}", re.DOTALL)
_LITERALS = {"true": True, "false": False, "null": None}


def evaluate(text: str, contexts: Mapping[str, Any]) -> Any:
    """The value of an expression, without its braces. Raises ValueError for what is not known."""
    reader = _Reader(text, contexts)
    value = reader.either()
    if reader.token:
        raise ValueError(f"{text!r} goes on with {reader.token}")
    return value


def filled(text: object, contexts: Mapping[str, Any]) -> str:
    """A value of a workflow with every ``${{ … }}`` replaced by what it stands for."""
    if isinstance(text, bool):
        return string(text)
    return _PLACE.sub(lambda found: string(evaluate(found[1], contexts)), str(text))


def string(value: Any) -> str:
    """A value as a string: null is empty."""
    if value is None:
        return ""
    if isinstance(value, bool):
        return "true" if value else "false"
    if isinstance(value, str | int):
        return str(value)
    raise ValueError(f"{value!r} is no string")


class _Reader:
    """A recursive descent through ``||``, ``&&``, comparison, ``!`` and values."""

    def __init__(self, text: str, contexts: Mapping[str, Any]) -> None:
        self.text, self.contexts = text.strip(), contexts
        self.at = 0
        self.kind, self.token = "", ""
        self._next()

    def _next(self) -> None:
        if self.at == len(self.text):
            self.kind, self.token = "end", ""
            return
        found = _TOKEN.match(self.text, self.at)
        if found is None:
            raise ValueError(f"not known: {self.text[self.at :]!r} in {self.text!r}")
        self.at = found.end()
        self.kind = ("text", "name", "operator")[found.lastindex - 1] if found.lastindex else ""
        self.token = found[found.lastindex or 0]

    def _take(self, operator: str) -> bool:
        if (self.kind, self.token) != ("operator", operator):
            return False
        self._next()
        return True

    def either(self) -> Any:
        value = self._both()
        while self._take("||"):
            other = self._both()
            value = value or other
        return value

    def _both(self) -> Any:
        value = self._comparison()
        while self._take("&&"):
            other = self._comparison()
            value = value and other
        return value

    def _comparison(self) -> Any:
        value = self._negation()
        if self._take("=="):
            return _same(value, self._negation())
        if self._take("!="):
            return not _same(value, self._negation())
        return value

    def _negation(self) -> Any:
        if self._take("!"):
            return not self._negation()
        if self._take("("):
            value = self.either()
            if not self._take(")"):
                raise ValueError(f"a parenthesis is not closed in {self.text!r}")
            return value
        kind, token = self.kind, self.token
        self._next()
        if kind == "text":
            return token.replace("''", "'")
        if kind == "name":
            return _LITERALS[token] if token in _LITERALS else self._property(token)
        raise ValueError(f"{self.text!r} has no value at {token!r}")

    def _property(self, path: str) -> Any:
        first, *names = path.split(".")
        if first not in self.contexts:
            raise ValueError(f"there is no context {first} for {path}")
        value: Any = self.contexts[first]
        for name in names:
            value = value.get(name) if isinstance(value, Mapping) else None
        return value


def _same(left: Any, right: Any) -> bool:
    return string(left).casefold() == string(right).casefold()
