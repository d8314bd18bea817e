"""What to do next after a failed build."""

from __future__ import annotations

import re

from plp_builder.progress.rules import IMAGE_RULES, OFFLINE, RULES, Rule
from plp_builder.terminal import printable, shorten
from plp_builder.tuples import NamedTuple


class Case(NamedTuple):
    """What is known of a failure: BuildKit's error, the step's name and its last lines."""

    error: str
    step: str
    output: str
    excerpt: str = ""


DEFAULT = "Read BuildKit's words above; PLP_DEBUG=true shows more of what happened."

CRASHED = (
    "Most likely it could not have as many threads as it needs, or as much memory: raise the "
    "limits, in Docker --pids-limit and --memory, on a machine ulimit -u."
)

_MISSING = re.compile(r"failed to calculate checksum of ref \S+ \"?(?P<path>.*?)\"?: not found")
_FROM = re.compile(r"--from=(\S+)")


def missing_path(error: str) -> str:
    """The path that COPY or ADD did not find, as BuildKit tells it; empty for other errors."""
    found = _MISSING.search(error)
    return found["path"] if found else ""


def is_offline(error: str) -> bool:
    """Whether the daemon reached for the network although PLP_OFFLINE is set."""
    return re.search(OFFLINE, error) is not None


def hint(case: Case) -> str:
    """The next step for a failed build."""
    path = missing_path(case.error)
    return _copy_hint(case, path) if path else _first(RULES, case) or DEFAULT


def image_hint(case: Case) -> str:
    """The next step when an image could not be resolved."""
    return _first(IMAGE_RULES, case) or DEFAULT


def _copy_hint(case: Case, path: str) -> str:
    path = printable(path)
    source = _FROM.search(case.step)
    if source:
        return f'Check the path: there is no "{path}" in {printable(source[1])}.'
    if "../" in case.step:
        return (
            "Only what lies in the build context can be copied: set PLP_CONTEXT to a directory "
            "further up, or name the other directory in PLP_BUILD_CONTEXTS."
        )
    return (
        f'There is no "{path}" in the build context: check its spelling (case counts), '
        "PLP_CONTEXT, and whether .dockerignore leaves it out."
    )


def _first(rules: tuple[Rule, ...], case: Case) -> str:
    for rule in rules:
        found = rule.pattern.search(getattr(case, rule.field))
        if found:
            groups = (shorten(printable(group or ""), 200) for group in found.groups())
            return rule.hint.format("", *groups) if found.groups() else rule.hint
    return ""
