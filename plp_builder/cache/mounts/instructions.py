"""A Dockerfile's text → its instructions with their flags.

Rules: frontend/dockerfile/parser/{parser,split_command,directives}.go of BuildKit. Tolerant: what
BuildKit will refuse is its business, so here it is only something that says nothing.
"""

from __future__ import annotations

import json
import re
from collections.abc import Iterator

from plp_builder.tuples import NamedTuple

_DIRECTIVE = re.compile(r"#\s*([A-Za-z][A-Za-z0-9]*)\s*=\s*(.+?)\s*$")
_DIRECTIVES = frozenset({"syntax", "escape", "check"})
_BLANK = re.compile(r"[\t\v\f\r ]+")
_HEREDOC = re.compile(r"\d*<<(-?)([^<]+)$")
_AFTER_SIGN = re.compile(r"<<[ \t]+")
_QUOTES = re.compile(r"['\"\\]")
_TAKES_HEREDOCS = frozenset({"ADD", "COPY", "RUN"})


class Instruction(NamedTuple):
    """``keyword`` in upper case, ``flags`` without their quotes and escapes, the rest as it is."""

    keyword: str
    flags: tuple[str, ...]
    rest: str


class Instructions(NamedTuple):
    """All of a Dockerfile's, and its escape character."""

    found: tuple[Instruction, ...]
    escape: str


def parse(text: str) -> Instructions:
    """The instructions in ``text``, which may be anything. Raises nothing."""
    lines = text.removeprefix("\ufeff").split("\n")
    escape = _escape(lines)
    return Instructions(tuple(_instructions(lines, escape)), escape)


def words(text: str, escape: str) -> list[str]:
    """``text`` cut at blanks, as a shell does; quotes and escapes stay (line_parsers.go)."""
    found: list[str] = []
    word, quote, blank_word = "", "", True
    at = 0
    while at < len(text):
        character = text[at]
        at += 1
        if not quote and character.isspace():
            if not blank_word:
                found.append(word)
            word, blank_word = "", True
            continue
        blank_word = False
        word += character
        if character == escape and quote != "'" and at < len(text):
            word += text[at]
            at += 1
        elif quote:
            quote = "" if character == quote else quote
        elif character in "'\"":
            quote = character
    return found if blank_word else [*found, word]


def _escape(lines: list[str]) -> str:
    seen = set()
    for line in lines:
        match = _DIRECTIVE.match(line.strip())
        name = match[1].lower() if match else ""
        if match is None or name not in _DIRECTIVES or name in seen:
            break
        if name == "escape" and match[2] in {"\\", "`"}:
            return match[2]
        seen.add(name)
    return "\\"


def _instructions(lines: list[str], escape: str) -> Iterator[Instruction]:
    token = re.escape(escape)
    goes_on = re.compile(rf"(?<!{token}){token}[ \t]*$")
    rest = iter(lines)
    for line in rest:
        logical = _without_comment(line.rstrip("\r").lstrip())
        while goes_on.search(logical):
            logical = goes_on.sub("", logical)
            further = next(rest, None)
            # Comments and blank lines in between do not end an instruction.
            while further is not None and not _without_comment(further).strip():
                further = next(rest, None)
            if further is None:
                break
            logical += further.rstrip("\r")
        if not logical.strip():
            continue
        found = _split(logical.strip(), escape)
        yield found
        for chomp, name in _heredocs(found, logical, escape):
            for line_of_it in rest:
                content = line_of_it.rstrip("\r")
                if (content.lstrip("\t") if chomp else content) == name:
                    break


def _without_comment(line: str) -> str:
    return "" if line.lstrip().startswith("#") else line


def _split(line: str, escape: str) -> Instruction:
    keyword, _, arguments = _BLANK.sub("\0", line, count=1).partition("\0")
    flags, rest = _flags(arguments, escape)
    return Instruction(keyword.upper(), tuple(flags), rest.strip())


def _flags(text: str, escape: str) -> tuple[list[str], str]:
    """The leading words that begin with ``--``, and what comes behind them."""
    found: list[str] = []
    at = 0
    while True:
        while at < len(text) and text[at].isspace():
            at += 1
        if not text.startswith("--", at):
            return found, text[at:]
        word, at = _word(text, at, escape)
        if word == "--":
            return found, text[at:]
        found.append(word)


def _word(text: str, at: int, escape: str) -> tuple[str, int]:
    word, quote = "", ""
    while at < len(text):
        character = text[at]
        if not quote and character.isspace():
            break
        at += 1
        if character == (quote or character) and character in "'\"":
            quote = "" if quote else character
        elif character == escape:
            word += text[at : at + 1]
            at += 1
        else:
            word += character
    return word, at


def _heredocs(found: Instruction, line: str, escape: str) -> list[tuple[bool, str]]:
    """The terminators that an instruction waits for, each with whether tabs before it count."""
    keyword, rest = found.keyword, found.rest
    if keyword == "ONBUILD":
        inner = _split(rest, escape) if rest else found
        keyword, rest = inner.keyword, inner.rest
    if keyword not in _TAKES_HEREDOCS or "<<" not in line or _is_json(rest):
        return []
    found_words = words(_AFTER_SIGN.sub("<<", line), "\\")
    matches = (_HEREDOC.match(word) for word in found_words)
    return [(bool(match[1]), _QUOTES.sub("", match[2])) for match in matches if match]


def _is_json(rest: str) -> bool:
    if not rest.startswith("["):
        return False
    try:
        return isinstance(json.loads(rest), list)
    except (ValueError, RecursionError):
        return False
