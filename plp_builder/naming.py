"""How variables are called: the rule, its exceptions, and what a misspelt one may have meant."""

from __future__ import annotations

from collections.abc import Collection, Mapping

from plp_builder.tuples import NamedTuple

PREFIX = "PLP_"


class Names(NamedTuple):
    """The names of a program's variables: a field's, in upper case behind ``PLP_``, unless…

    ``own`` names, by field, the variables that other tools have given their name; ``aliases``, by
    variable, the second name that some have.
    """

    own: Mapping[str, str]
    aliases: Mapping[str, str]

    def variable(self, field: str) -> str:
        """The variable behind a field."""
        return self.own.get(field) or PREFIX + field.upper()

    def given(self, field: str, environ: Mapping[str, str]) -> str:
        """The name under which ``environ`` gives the field: the variable's own, or its alias."""
        name = self.variable(field)
        return self.aliases.get(name, name) if not environ.get(name) else name

    def all_of(self, field: str) -> tuple[str, ...]:
        """The variable behind a field, and its alias if it has one."""
        name = self.variable(field)
        return (name, self.aliases[name]) if name in self.aliases else (name,)

    def differing(self, environ: Mapping[str, str]) -> list[str]:
        """A sentence for each variable that is given under two names with two values."""
        return [
            f"{name} and {alias} are both set, and differ; set one of them"
            for name, alias in self.aliases.items()
            if environ.get(name) and environ.get(alias) and environ[name] != environ[alias]
        ]


def unknown(
    environ: Mapping[str, str],
    known: Collection[str],
    siblings: Collection[str],
    meant: Mapping[str, str],
) -> tuple[str, ...]:
    """A sentence for each PLP_ variable that no program of this project knows.

    One of ``known``, or what ``meant`` says of names that look like others, is asked for instead;
    ``siblings`` are the variables of the other programs, which are set beside ours.
    """
    strange = [name for name in sorted(environ) if name.startswith(PREFIX)]
    strange = [name for name in strange if name not in known and name not in siblings]
    if not strange:
        return ()
    from difflib import get_close_matches

    sentences = []
    for name in strange:
        near = [meant[name]] if name in meant else []
        near = near or get_close_matches(name, sorted(known), n=1, cutoff=0.75)
        question = f"; did you mean {near[0]}?" if near else ""
        sentences.append(f"{ascii(name)[1:-1]} is unknown{question}")
    return tuple(sentences)
