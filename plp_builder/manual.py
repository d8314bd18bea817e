"""The table of variables in ``--help``, made from a settings model."""

from __future__ import annotations

from collections.abc import Iterator
from textwrap import wrap

from plp_builder.variables import Model, by_name, default, described

WIDTH = 100


def table(model: type[Model]) -> list[str]:
    """All variables in groups, with default and meaning, in at most 100 columns."""
    lines: list[str] = []
    group = ""
    variables = by_name(model)
    names = max(map(len, variables)) + 2
    defaults = max(len(_default(model, field)) for field in variables.values()) + 2
    for name, field in variables.items():
        variable = described(model, field)
        if variable.group != group:
            group = variable.group
            lines += ["", f"{group}:"]
        meaning = variable.meaning
        if name in model.names.aliases:
            meaning += f" (also {model.names.aliases[name]})"
        lines += _row(name.ljust(names) + _default(model, field).ljust(defaults), meaning)
    return lines


def _row(columns: str, meaning: str) -> Iterator[str]:
    indented = f"  {columns}"
    for line in wrap(meaning, WIDTH - len(indented)):
        yield f"{indented}{line}"
        indented = " " * len(indented)


def _default(model: type[Model], field: str) -> str:
    """How the default of ``field`` is written; ``-`` for one that is empty."""
    written = described(model, field).default
    if written:
        return written
    value = default(model, field)
    if isinstance(value, bool):
        return str(value).lower()
    return "-" if value in {None, "", ()} else str(value)
