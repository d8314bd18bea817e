"""Environment → a frozen settings model, whose fields say all about their variables.

Builder and publisher each have such a model, a subclass of ``Model``. Nothing here reads
``os.environ``: whoever calls passes a mapping in. All problems of an environment are told at once.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from functools import partial
from typing import Any, ClassVar, Generic, NamedTuple, TypeVar

from plp_builder import lazy
from plp_builder.errors import SettingInvalid, SettingNotImplemented
from plp_builder.naming import Names
from plp_builder.values import (
    NotImplementedYet,
    Refused,
    check_utf8,
    hide_user_info,
    parse_choice,
)

lazy.before_pydantic()

from pydantic import ValidationError  # noqa: E402
from pydantic_settings import (  # noqa: E402
    BaseSettings,
    PydanticBaseSettingsSource,
    SettingsConfigDict,
)

HIDDEN = "<hidden>"


class Variable(NamedTuple):
    """What a field of a model is made from: part of its annotation.

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

    def _parsed(self, given: tuple[Any, ...]) -> object:
        return self.parse(*given)


def in_group(group: str) -> Callable[..., Variable]:
    """What makes the variables of one group of --help."""
    return partial(Variable, group)


def one_of(*choices: str) -> Callable[[str], str]:
    """A parser that takes one of some words."""
    return partial(parse_choice, choices=choices)


class _Environment(PydanticBaseSettingsSource):
    """The variables of a mapping, by field. An empty one is not set."""

    def __init__(self, settings: type[BaseSettings], names: Names, environ: Any) -> None:
        super().__init__(settings)
        self._names = names
        self._environ = environ

    def get_field_value(self, field: Any, field_name: str) -> tuple[Any, str, bool]:
        """What the field's parser takes, or None; the interface is pydantic-settings'."""
        text = self._environ.get(self._names.given(field_name, self._environ))
        if not text:
            return None, field_name, False
        given = (text, self._environ) if _variable(field).environ else (text,)
        return given, field_name, False

    def __call__(self) -> dict[str, Any]:
        """What is given for each field that is set."""
        given = {
            name: self.get_field_value(field, name)[0]
            for name, field in self.settings_cls.model_fields.items()
        }
        return {name: value for name, value in given.items() if value is not None}


def _variable(field: Any) -> Variable:
    return next(mark for mark in field.metadata if isinstance(mark, Variable))


class Model(BaseSettings):
    """Everything that an environment asks for, parsed, complete and frozen."""

    model_config = SettingsConfigDict(
        frozen=True, hide_input_in_errors=True, validate_default=False, extra="ignore"
    )
    names: ClassVar[Names]

    @classmethod
    def settings_customise_sources(
        cls, settings_cls: type[BaseSettings], init_settings: Any, *_: Any, **_others: Any
    ) -> tuple[PydanticBaseSettingsSource, ...]:
        """The mapping that is given as ``environ`` is the only source."""
        return (_Environment(settings_cls, cls.names, init_settings.init_kwargs["environ"]),)

    def __repr_args__(self) -> Iterable[tuple[str | None, Any]]:
        """What ``repr`` shows: no secrets, no passwords in addresses."""
        for name, value in super().__repr_args__():
            if name is not None and value and described(type(self), name).secret:
                yield name, HIDDEN
            else:
                yield name, hide_user_info(value) if isinstance(value, str) else value


M = TypeVar("M", bound=Model)


def by_name(model: type[Model]) -> dict[str, str]:
    """The field behind each variable, in the order of the contract."""
    return {model.names.variable(name): name for name in model.model_fields}


def described(model: type[Model], field: str) -> Variable:
    """What ``model`` says about the variable of a field."""
    return _variable(model.model_fields[field])


def default(model: type[Model], field: str) -> object:
    """The value of a field whose variable is not set."""
    return model.model_fields[field].default


class Usable(NamedTuple, Generic[M]):
    """What can be used of an environment; the fields in ``bad`` have their default instead."""

    settings: M
    bad: frozenset[str]
    failure: SettingInvalid | None


def load_usable(
    model: type[M],
    environ: Mapping[str, str],
    conflicts: Callable[[M, frozenset[str]], list[str]],
    not_implemented: Sequence[str] = (),
) -> Usable[M]:
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
    fields = {name: field for field in model.model_fields for name in model.names.all_of(field)}
    for name, field in fields.items():
        try:
            check_utf8(environ.get(name, ""))
        except Refused as refused:
            problems.append(f"{name} {refused}")
            usable.pop(name)
            bad.add(field)
    try:
        settings = model(environ=usable)
    except ValidationError as error:
        for field, cause in _causes(error):
            bad.add(field)
            lines = [f"{model.names.given(field, usable)}: {text}" for text in cause.problems]
            (later if isinstance(cause, NotImplementedYet) else problems).extend(lines)
            for name in model.names.all_of(field):
                usable.pop(name, None)
        settings = model(environ=usable)
    problems += model.names.differing(environ) + conflicts(settings, frozenset(bad))
    return Usable(settings, frozenset(bad), _failure(problems, later))


def _failure(problems: list[str], later: list[str]) -> SettingInvalid | None:
    if problems:
        count = len(problems) + len(later)
        what = "a setting cannot be used" if count == 1 else f"{count} settings cannot be used"
        return SettingInvalid(what, why=[*problems, *later])
    if later:
        what = "this version does not implement what a setting asks for"
        return SettingNotImplemented(what, why=later)
    return None


def _causes(error: ValidationError) -> Iterator[tuple[str, Refused]]:
    for detail in error.errors(include_url=False, include_input=False):
        cause = detail["ctx"]["error"]
        yield str(detail["loc"][0]), cause if isinstance(cause, Refused) else Refused(str(cause))
