"""An environment is read into a table of settings, and all its problems are told at once.

By pydantic-settings, which is used nowhere else. Importing it takes as long as a daemon's start, so
nothing imports this module before it is needed.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from functools import cache
from typing import Any, TypeVar

from plp_builder import lazy
from plp_builder.errors import SettingInvalid, SettingNotImplemented
from plp_builder.values import NotImplementedYet, Refused, check_utf8
from plp_builder.variables import Table, Usable

lazy.before_pydantic()

from pydantic import ValidationError, create_model  # noqa: E402
from pydantic_settings import (  # noqa: E402
    BaseSettings,
    PydanticBaseSettingsSource,
    SettingsConfigDict,
)

S = TypeVar("S", bound=tuple[Any, ...])


def load_usable(
    table: Table[S],
    environ: Mapping[str, str],
    conflicts: Callable[[S, frozenset[str]], list[str]],
    not_implemented: Sequence[str] = (),
) -> Usable[S]:
    """The settings as far as they can be used, and how they fail. Raises nothing.

    ``conflicts`` finds what is wrong between the fields that are not bad; ``not_implemented`` has a
    sentence for each variable that is set and belongs to a later version. The failure's ``why`` has
    a line for every problem of every variable; it is SettingNotImplemented when all problems are
    variables or values of later versions.
    """
    usable = dict(environ)
    problems: list[str] = []
    later = list(not_implemented)
    bad: set[str] = set()
    fields = {name: field for field in table.annotations for name in table.names.all_of(field)}
    for name, field in fields.items():
        try:
            check_utf8(environ.get(name, ""))
        except Refused as refused:
            problems.append(f"{name} {refused}")
            usable.pop(name)
            bad.add(field)
    try:
        settings = _read(table, usable)
    except _NotReadError as error:
        for field, cause in error.causes:
            bad.add(field)
            lines = [f"{table.names.given(field, usable)}: {text}" for text in cause.problems]
            (later if isinstance(cause, NotImplementedYet) else problems).extend(lines)
            for name in table.names.all_of(field):
                usable.pop(name, None)
        settings = _read(table, usable)
    problems += table.names.differing(environ) + conflicts(settings, frozenset(bad))
    return Usable(settings, frozenset(bad), _failure(problems, later))


class _NotReadError(Exception):
    """``causes`` has the fields whose variables cannot be used, and what is wrong with them."""

    def __init__(self, causes: tuple[tuple[str, Refused], ...]) -> None:
        super().__init__()
        self.causes = causes


def _read(table: Table[S], environ: Mapping[str, str]) -> S:
    try:
        found = _model(table)(given=(table, environ))
    except ValidationError as error:
        details = error.errors(include_url=False, include_input=False)
        raise _NotReadError(tuple(map(_cause, details))) from None
    return table.settings(**{field: getattr(found, field) for field in table.annotations})


@cache
def _model(table: Table[Any]) -> type[BaseSettings]:
    fields: Any = {
        field: (annotation, table.defaults[field])
        for field, annotation in table.annotations.items()
    }
    return create_model(table.settings.__name__, __base__=_Model, **fields)


class _Variables(PydanticBaseSettingsSource):
    """The variables of a mapping, by field."""

    def __init__(
        self, model: type[BaseSettings], table: Table[Any], environ: Mapping[str, str]
    ) -> None:
        super().__init__(model)
        self._table = table
        self._environ = environ

    def get_field_value(self, field: Any, field_name: str) -> tuple[Any, str, bool]:  # noqa: ARG002
        """What the field's parser takes, or None; the interface is pydantic-settings'."""
        return self().get(field_name), field_name, False

    def __call__(self) -> dict[str, Any]:
        """What is given for each field that is set."""
        return {
            field: self._table.described(field).given(text, self._environ)
            for field, text in self._table.set_in(self._environ)
        }


class _Model(BaseSettings):
    model_config = SettingsConfigDict(
        frozen=True, hide_input_in_errors=True, validate_default=False, extra="ignore"
    )

    @classmethod
    def settings_customise_sources(
        cls, settings_cls: type[BaseSettings], init_settings: Any, *_: Any, **_others: Any
    ) -> tuple[PydanticBaseSettingsSource, ...]:
        """The mapping that is ``given`` with its table is the only source."""
        return (_Variables(settings_cls, *init_settings.init_kwargs["given"]),)


def _cause(detail: Any) -> tuple[str, Refused]:
    cause = detail["ctx"]["error"]
    return str(detail["loc"][0]), cause if isinstance(cause, Refused) else Refused(str(cause))


def _failure(problems: list[str], later: list[str]) -> SettingInvalid | None:
    if problems:
        count = len(problems) + len(later)
        what = "a setting cannot be used" if count == 1 else f"{count} settings cannot be used"
        return SettingInvalid(what, why=[*problems, *later])
    if later:
        what = "this version does not implement what a setting asks for"
        return SettingNotImplemented(what, why=later)
    return None
