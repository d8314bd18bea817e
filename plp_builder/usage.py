"""The text of ``--help``, made from the settings model."""

from __future__ import annotations

from collections.abc import Iterator
from textwrap import wrap

from plp_builder import __version__
from plp_builder.settings import ALIASES, NOT_IMPLEMENTED, VARIABLES, default, described

WIDTH = 100
_HEAD = """\
plp-builder {version}: a source directory becomes one OCI image archive, by rootless BuildKit.

Usage: python -m plp_builder             build what the variables below describe
       python -m plp_builder doctor      check paths and this environment, and print a table
       python -m plp_builder --version   print the versions of builder, BuildKit and RootlessKit
       python -m plp_builder --help      print this text

An empty variable is not set. Booleans take true/false, 1/0, yes/no, on/off; sizes take units
(500k, 512MiB, 10GB), and so do durations (90, 60s, 1h30m).
"""


def text() -> str:
    """All variables in groups, with default and meaning, in at most 100 columns."""
    lines = _HEAD.format(version=__version__).splitlines()
    group = ""
    names = max(map(len, VARIABLES)) + 2
    defaults = max(len(_default(field)) for field in VARIABLES.values()) + 2
    for name, field in VARIABLES.items():
        variable = described(field)
        if variable.group != group:
            group = variable.group
            lines += ["", f"{group}:"]
        meaning = variable.meaning
        if name in ALIASES:
            meaning += f" (also {ALIASES[name]})"
        lines += _row(name.ljust(names) + _default(field).ljust(defaults), meaning)
    later = wrap(f"Not in this version: {', '.join(NOT_IMPLEMENTED)}.", WIDTH)
    codes = "Exit codes: 0 success, 1 failure, 143 after SIGTERM, 130 after SIGINT."
    return "\n".join([*lines, "", *later, codes])


def _row(columns: str, meaning: str) -> Iterator[str]:
    indented = f"  {columns}"
    for line in wrap(meaning, WIDTH - len(indented)):
        yield f"{indented}{line}"
        indented = " " * len(indented)


def _default(field: str) -> str:
    """How the default of ``field`` is written; ``-`` for one that is empty."""
    written = described(field).default
    if written:
        return written
    value = default(field)
    if isinstance(value, bool):
        return str(value).lower()
    return "-" if value in {None, "", ()} else str(value)
