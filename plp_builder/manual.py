"""The table of variables in ``--help``, made from a table of settings."""

from __future__ import annotations

from collections.abc import Iterator
from textwrap import wrap
from typing import Any

from plp_builder.variables import Table

WIDTH = 100


def table(settings: Table[Any]) -> list[str]:
    """All variables in groups, with default and meaning, in at most 100 columns."""
    lines: list[str] = []
    group = ""
    variables = settings.by_name
    names = max(map(len, variables)) + 2
    defaults = max(len(_default(settings, field)) for field in variables.values()) + 2
    for name, field in variables.items():
        variable = settings.described(field)
        if variable.group != group:
            group = variable.group
            lines += ["", f"{group}:"]
        meaning = variable.meaning
        if name in settings.names.aliases:
            meaning += f" (also {settings.names.aliases[name]})"
        lines += _row(name.ljust(names) + _default(settings, field).ljust(defaults), meaning)
    return lines


def _row(columns: str, meaning: str) -> Iterator[str]:
    indented = f"  {columns}"
    for line in wrap(meaning, WIDTH - len(indented)):
        yield f"{indented}{line}"
        indented = " " * len(indented)


def _default(settings: Table[Any], field: str) -> str:
    """How the default of ``field`` is written; ``-`` for one that is empty."""
    written = settings.described(field).default
    if written:
        return written
    value = settings.defaults[field]
    if isinstance(value, bool):
        return str(value).lower()
    return "-" if value in {None, "", ()} else str(value)
