"""The records in which buildctl takes attributes: `key=value` fields, quoted as in CSV."""

from __future__ import annotations


def record(*pairs: tuple[str, object]) -> str:
    """One CSV record of `key=value` fields as Go reads it; a field is quoted where it has to be."""
    return ",".join(_field(f"{key}={value}") for key, value in pairs)


def _field(field: str) -> str:
    if not any(character in field for character in '",\r\n'):
        return field
    return '"' + field.replace('"', '""') + '"'
