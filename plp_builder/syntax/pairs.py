"""Build arguments, labels and annotations: what BuildKit carries verbatim, and what it does not.

Sources: cmd/buildctl/build/{opt,output}.go, exporter/containerimage/exptypes/annotations.go and
frontend/dockerui/config.go of BuildKit 0.21 to 0.32.
"""

from __future__ import annotations

from collections.abc import Mapping

from plp_builder.values import (
    KeyValue,
    Refused,
    check_utf8,
    control_character,
    parse_key_values,
    parse_lines,
    shown,
)

# Linux passes no argument and no variable longer than 131,071 bytes (MAX_ARG_STRLEN less a NUL);
# a frontend image gets each option in a variable, BUILDKIT_FRONTEND_OPT_n.
MAX_ARGUMENT = 131_000

_WHITE_SPACE = "white space is no part of a name; give one KEY=value, or one KEY, a line"


def parse_build_args(text: str, environ: Mapping[str, str]) -> tuple[KeyValue, ...]:
    """``KEY=value`` a line; a bare ``KEY`` takes its value from ``environ``.

    A bare key that is not set there is left out, as ``docker build`` does; ``unset_build_args``
    names those. Of two lines with one key the last counts. No value appears in an error, since
    it may come from a protected variable of the host.
    """
    values: dict[str, str] = {}
    problems: list[str] = []
    for number, line in parse_lines(text):
        key, equals, given = line.partition("=")
        reason = _bad_key(key) or ("" if key.split() == [key] else _WHITE_SPACE)
        if reason:
            problems.append(f"line {number}: {reason}")
            continue
        value = given if equals else environ.get(key)
        if value is None:
            values.pop(key, None)
            continue
        values[key] = value
        problems += _cannot_pass(f"build-arg:{key}={value}", key)
    if problems:
        raise Refused(*problems)
    return tuple(KeyValue(key, value) for key, value in values.items())


def unset_build_args(text: str, environ: Mapping[str, str]) -> tuple[str, ...]:
    """The bare keys of PLP_BUILD_ARGS that ``environ`` does not hold; none of a text in error."""
    try:
        arguments = parse_lines(text)
        parse_build_args(text, environ)
    except Refused:
        return ()
    keys = (line for _, line in arguments if "=" not in line)
    return tuple(dict.fromkeys(key for key in keys if key not in environ))


def parse_labels(text: str) -> tuple[KeyValue, ...]:
    """``KEY=value`` a line. A key ends at the first ``=``; a value may hold anything."""
    labels = parse_key_values(text)
    problems: list[str] = []
    for label in labels:
        if reason := _bad_key(label.key):
            problems.append(f"{shown(label.key)}: {reason}")
        problems += _cannot_pass(f"label:{label.key}={label.value}", label.key)
    if problems:
        raise Refused(*problems)
    return labels


def parse_annotations(text: str) -> tuple[KeyValue, ...]:
    """``KEY=value`` a line, for the manifest.

    buildctl lowers the case of keys, BuildKit drops keys that hold a space, and all annotations
    travel in one argument: what would not arrive as given is refused. A key cannot reach another
    scope (`annotation-index.`, `annotation[platform].`): the scope ends before the key begins.
    """
    annotations = parse_key_values(text)
    problems = [
        f"{shown(annotation.key)}: {reason}"
        for annotation in annotations
        if (reason := _bad_annotation_key(annotation.key))
    ]
    # Two quotes, a comma and the prefix "annotation." around each; a quote inside is doubled.
    sizes = (_bytes(a.key + a.value) + (a.key + a.value).count('"') + 15 for a in annotations)
    if not problems and sum(sizes) > MAX_ARGUMENT - 8192:
        problems.append("all annotations together are longer than 120 KiB")
    if problems:
        raise Refused(*problems)
    return annotations


def _bad_annotation_key(key: str) -> str:
    if reason := _bad_key(key):
        return reason
    if " " in key:
        return "BuildKit drops annotation keys that hold a space"
    if not _stays_in_lower_case(key):
        return f"BuildKit lowers the case of annotation keys; use {shown(key.lower())}"
    return ""


def _stays_in_lower_case(key: str) -> bool:
    if key.isascii():
        return key == key.lower()
    from unicodedata import category

    # Cn: a character that this Python does not know may have a lower case for BuildKit's Go.
    return key == key.lower() and not any(category(c) in {"Lu", "Lt", "Cn"} for c in key)


def _bad_key(key: str) -> str:
    if not key:
        return "the key is empty"
    if escaped := control_character(key):
        return f"the key holds the control character {escaped}"
    return ""


def _cannot_pass(argument: str, key: str) -> list[str]:
    try:
        check_utf8(argument)
    except Refused as refused:
        return [f"{shown(key)} {problem}" for problem in refused.problems]
    if _bytes(argument) > MAX_ARGUMENT:
        return [f"{shown(key)} is longer than 128 KiB; put it into a file of the context"]
    return []


def _bytes(text: str) -> int:
    return len(text.encode("utf-8", "surrogateescape"))
