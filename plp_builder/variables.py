"""Environment → frozen settings, whose fields say all about their variables.

Builder and publisher each have a named tuple of settings and a ``Table`` of it. Nothing here reads
``os.environ``: whoever calls passes a mapping in.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Mapping
from functools import partial
from typing import TYPE_CHECKING, Any, Generic, TypeVar, get_type_hints

from plp_builder.naming import Names
from plp_builder.tuples import NamedTuple
from plp_builder.values import hide_user_info, parse_choice

if TYPE_CHECKING:
    from plp_builder.errors import SettingInvalid

HIDDEN = "<hidden>"


class Variable(NamedTuple):
    """What a field is made from: part of its annotation.

    ``parse`` takes the text of the variable or, when ``environ`` is true, the text and the
    environment. ``default`` is how --help writes a default that does not read well by itself.
    ``repr`` does not show a ``secret``.
    """

    group: str
    meaning: str
    parse: Callable[..., object]
    environ: bool = False
    default: str = ""
    secret: bool = False

    def __get_pydantic_core_schema__(self, _source: object, _handler: object) -> Any:
        from pydantic_core import core_schema

        return core_schema.no_info_plain_validator_function(self._parsed)

    def given(self, text: str, environ: Mapping[str, str]) -> tuple[Any, ...]:
        """What ``parse`` takes."""
        return (text, environ) if self.environ else (text,)

    def _parsed(self, given: tuple[Any, ...]) -> object:
        return self.parse(*given)


def in_group(group: str) -> Callable[..., Variable]:
    """What makes the variables of one group of --help."""
    return partial(Variable, group)


def one_of(*choices: str) -> Callable[[str], str]:
    """A parser that takes one of some words."""
    return partial(parse_choice, choices=choices)


S = TypeVar("S", bound=tuple[Any, ...])


class Table(Generic[S]):
    """The fields of ``settings``, a named tuple, and what is behind them.

    ``annotations`` and ``defaults`` are by field, ``by_name`` has the field behind each variable;
    all are in the order of the contract.
    """

    def __init__(self, settings: type[S], names: Names) -> None:
        self.settings = settings
        self.names = names
        self.annotations: Mapping[str, Any] = get_type_hints(settings, include_extras=True)
        self.defaults: Mapping[str, Any] = vars(settings)["_field_defaults"]
        self.by_name = {names.variable(field): field for field in self.annotations}

    def described(self, field: str) -> Variable:
        """What is said about the variable of a field."""
        marks = self.annotations[field].__metadata__
        return next(mark for mark in marks if isinstance(mark, Variable))

    def set_in(self, environ: Mapping[str, str]) -> Iterator[tuple[str, str]]:
        """Each field that is set, with its text. An empty variable is not set."""
        for field in self.annotations:
            if text := environ.get(self.names.given(field, environ)):
                yield field, text

    def parsed(self, environ: Mapping[str, str]) -> S:
        """The settings of an environment that nothing is wrong with. Raises Refused."""
        values = {
            field: (variable := self.described(field)).parse(*variable.given(text, environ))
            for field, text in self.set_in(environ)
        }
        return self.settings(**{**self.defaults, **values})

    def shown(self, settings: S) -> Iterable[tuple[str, object]]:
        """The fields with what may be shown of them: no secrets, no passwords in addresses."""
        for field, value in zip(self.annotations, settings, strict=True):
            if value and self.described(field).secret:
                yield field, HIDDEN
            else:
                yield field, hide_user_info(value) if isinstance(value, str) else value


class Usable(NamedTuple, Generic[S]):
    """What can be used of an environment; the fields in ``bad`` have their default instead."""

    settings: S
    bad: frozenset[str]
    failure: SettingInvalid | None
