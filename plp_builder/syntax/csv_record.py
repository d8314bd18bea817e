"""CSV as buildctl reads it: one record, for secrets."""

from __future__ import annotations

from plp_builder.values import Refused


def parse_csv_fields(line: str) -> tuple[str, ...]:
    """The fields of one CSV record as buildctl reads them (Go's encoding/csv, RFC 4180).

    A field that begins with a quote ends with one, and ``""`` inside is a quote; elsewhere a
    quote is an error. White space is part of a field.
    """
    fields = []
    rest = line
    while True:
        if not rest.startswith('"'):
            field, comma, rest = rest.partition(",")
            if '"' in field:
                raise Refused('a quote stands inside a field; write "field" with "" for a quote')
        else:
            field, comma, rest = _quoted_field(rest)
        fields.append(field)
        if not comma:
            return tuple(fields)


def _quoted_field(text: str) -> tuple[str, str, str]:
    end = text.find('"', 1)
    while end >= 0 and text.startswith('""', end):
        end = text.find('"', end + 2)
    if end < 0:
        raise Refused("a quote is not closed")
    after = text[end + 1 :]
    if after and not after.startswith(","):
        raise Refused("text stands behind a closing quote")
    return text[1:end].replace('""', '"'), after[:1], after[1:]
