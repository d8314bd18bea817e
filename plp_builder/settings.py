"""Environment → frozen ``Settings``: the only place that knows the variables.

Nothing here reads ``os.environ``: whoever calls passes a mapping in. ``load`` names every problem
of an environment at once. A field of ``Settings`` says all about its variable: the type, what it
means, the function that parses it, the default.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Mapping
from functools import partial
from pathlib import Path
from typing import Annotated, Any, Final, NamedTuple

from plp_builder import lazy
from plp_builder.errors import SettingInvalid, SettingNotImplemented
from plp_builder.syntax import mounts, names, pairs, references, results, steps
from plp_builder.syntax.conflicts import conflicts
from plp_builder.syntax.names import ALIASES, NOT_IMPLEMENTED, variable_name
from plp_builder.values import (
    AddHost,
    BuildContext,
    KeyValue,
    Mirror,
    NotImplementedYet,
    Refused,
    Secret,
    Ssh,
    Ulimit,
    check_utf8,
    hide_user_info,
    parse_boolean,
    parse_choice,
    parse_duration,
    parse_integer,
    parse_size,
)

lazy.before_pydantic()

from pydantic import ValidationError  # noqa: E402
from pydantic_settings import (  # noqa: E402
    BaseSettings,
    PydanticBaseSettingsSource,
    SettingsConfigDict,
)

__all__ = [
    "ALIASES",
    "NOT_IMPLEMENTED",
    "VARIABLES",
    "Settings",
    "Usable",
    "Variable",
    "default",
    "described",
    "load",
    "load_usable",
    "secret_values",
    "unknown_variables",
    "variable_name",
    "warnings",
]


class Variable(NamedTuple):
    """What a field of ``Settings`` is made from: part of its annotation.

    ``parse`` takes the text of the variable or, when ``environ`` is true, the text and the
    environment. ``default`` is how --help writes a default that does not read well by itself.
    """

    group: str
    meaning: str
    parse: Callable[..., object]
    environ: bool = False
    default: str = ""

    def __get_pydantic_core_schema__(self, _source: object, _handler: object) -> Any:
        from pydantic_core import core_schema

        return core_schema.no_info_plain_validator_function(self._parsed)

    def _parsed(self, given: tuple[Any, ...]) -> object:
        return self.parse(*given)


class _Environment(PydanticBaseSettingsSource):
    """The variables of a mapping, by field. An empty one is not set."""

    def __init__(self, settings: type[BaseSettings], environ: Mapping[str, str]) -> None:
        super().__init__(settings)
        self._environ = environ

    def get_field_value(self, field: Any, field_name: str) -> tuple[Any, str, bool]:
        """What the field's parser takes, or None; the interface is pydantic-settings'."""
        text = self._environ.get(names.given_name(field_name, self._environ))
        if not text:
            return None, field_name, False
        given = (text, self._environ) if _described(field).environ else (text,)
        return given, field_name, False

    def __call__(self) -> dict[str, Any]:
        """What is given for each field that is set."""
        given = {
            name: self.get_field_value(field, name)[0]
            for name, field in self.settings_cls.model_fields.items()
        }
        return {name: value for name, value in given.items() if value is not None}


def _described(field: Any) -> Variable:
    return next(mark for mark in field.metadata if isinstance(mark, Variable))


def _one_of(*choices: str) -> Callable[[str], str]:
    return partial(parse_choice, choices=choices)


def _var(group: str) -> Callable[..., Variable]:
    return partial(Variable, group)


_PATHS, _SOURCE, _BUILD = _var("Paths"), _var("Source"), _var("Build")
_RESULT, _CACHE, _DAEMON, _RUN = _var("Result"), _var("Cache"), _var("Daemon"), _var("Run")


class Settings(BaseSettings):
    """Everything that the environment asks for, parsed, complete and frozen.

    Unset is the default shown, or None, "" or (). No field holds the value of a secret.
    """

    model_config = SettingsConfigDict(
        frozen=True, hide_input_in_errors=True, validate_default=False, extra="ignore"
    )

    # fmt: off
    source_path: Annotated[
        Path, _PATHS("absolute path of the source; may be read-only", Path)] = Path("/source")
    build_path: Annotated[
        Path, _PATHS("absolute path of the directory that gets the archive", Path)] = Path("/build")
    cache_path: Annotated[
        Path, _PATHS("absolute path of the cache; created if missing", Path),
    ] = Path("/tmp/cache")  # noqa: S108 - the contract's default

    git_repository_url: Annotated[
        str, _SOURCE("annotation org.opencontainers.image.source", results.parse_plain_text)] = ""
    git_sha: Annotated[
        str, _SOURCE("annotation org.opencontainers.image.revision", results.parse_plain_text)] = ""

    context: Annotated[
        Path, _BUILD("build context, relative to the source path", Path)] = Path()
    dockerfile: Annotated[
        Path, _BUILD("Dockerfile, relative to the context", Path)] = Path("Dockerfile")
    target: Annotated[
        str, _BUILD("stage to build; the last one if empty", references.parse_target)] = ""
    platforms: Annotated[
        tuple[str, ...], _BUILD("os/arch[/variant], comma list", steps.parse_platforms)] = ()
    build_args: Annotated[
        tuple[KeyValue, ...],
        _BUILD("KEY=value a line; a bare KEY: its value in the environment",
               pairs.parse_build_args, environ=True)] = ()
    labels: Annotated[
        tuple[KeyValue, ...], _BUILD("KEY=value a line", pairs.parse_labels)] = ()
    annotations: Annotated[
        tuple[KeyValue, ...],
        _BUILD("KEY=value a line, for the manifest", pairs.parse_annotations)] = ()
    secrets: Annotated[
        tuple[Secret, ...],
        _BUILD("id=NAME,env=VARIABLE or id=NAME,src=/file a line",
               mounts.parse_secrets, environ=True)] = ()
    ssh: Annotated[
        tuple[Ssh, ...],
        _BUILD("default, or NAME=/socket or NAME=/key a line",
               mounts.parse_ssh, environ=True)] = ()
    build_contexts: Annotated[
        tuple[BuildContext, ...],
        _BUILD("NAME=/path, oci-layout:///path or docker-image://ref a line",
               mounts.parse_build_contexts)] = ()
    no_cache: Annotated[
        bool, _BUILD("build from nothing", parse_boolean)] = False
    pull: Annotated[
        bool, _BUILD("resolve base images again", parse_boolean)] = False
    offline: Annotated[
        bool, _BUILD("no network for build steps", parse_boolean)] = False
    network: Annotated[
        str, _BUILD("of build steps: default, none, host or sandbox", steps.parse_network)] = ""
    add_hosts: Annotated[
        tuple[AddHost, ...], _BUILD("host:address by comma or line", steps.parse_add_hosts)] = ()
    shm_size: Annotated[
        int | None,
        _BUILD("size of /dev/shm in build steps: 64m", partial(parse_size, base=1024))] = None
    ulimits: Annotated[
        tuple[Ulimit, ...], _BUILD("name=soft[:hard] by comma or line", steps.parse_ulimits)] = ()
    frontend: Annotated[
        str, _BUILD("dockerfile.v0, or the reference of a frontend image",
                    references.parse_frontend)] = "dockerfile.v0"

    outputs: Annotated[
        tuple[str, ...],
        _RESULT("archive or none", results.parse_outputs, default="archive")] = ("archive",)
    archive_name: Annotated[
        str,
        _RESULT("file name in the build path", results.parse_archive_name)] = "container-image.tar"
    archive_format: Annotated[
        str, _RESULT("auto, docker or oci", _one_of("auto", "docker", "oci"))] = "auto"
    image: Annotated[
        tuple[str, ...],
        _RESULT("name(s) inside the archive, comma list", references.parse_images)] = ()
    compression: Annotated[
        str, _RESULT("gzip, zstd, uncompressed or estargz",
                     _one_of("gzip", "zstd", "uncompressed", "estargz"))] = "gzip"
    compression_level: Annotated[
        int | None, _RESULT("gzip and estargz 0 to 9, zstd 0 to 22",
                            partial(parse_integer, low=0, high=22))] = None
    source_date_epoch: Annotated[
        int | None,
        _RESULT("seconds since 1970: a reproducible build", results.parse_epoch)] = None

    cache_strategy: Annotated[
        str, _CACHE("auto, portable or off", results.parse_cache_strategy)] = "auto"
    cache_mode: Annotated[
        str, _CACHE("keep the result's layers (min) or all (max)", _one_of("min", "max"))] = "max"
    cache_max_size: Annotated[
        int, _CACHE("bound on what is kept", parse_size, default="10GB")] = 10_000_000_000

    buildkitd_flags: Annotated[
        tuple[str, ...],
        _DAEMON("flags for buildkitd, quoted as in a shell", steps.parse_buildkitd_flags)] = ()
    buildkitd_config: Annotated[
        Path | None, _DAEMON("path of a buildkitd.toml", Path)] = None
    registry_mirrors: Annotated[
        tuple[Mirror, ...],
        _DAEMON("registry=mirror, or a mirror of docker.io", references.parse_mirrors)] = ()
    insecure_registries: Annotated[
        tuple[str, ...],
        _DAEMON("host[:port] without verified TLS", references.parse_registries)] = ()

    timeout: Annotated[
        float | None, _RUN("of the whole build: 30m, 1h30m, 90", parse_duration)] = None
    start_timeout: Annotated[
        float, _RUN("of the daemon's start", parse_duration, default="60s")] = 60.0
    progress: Annotated[
        str, _RUN("auto, plain, quiet or rawjson",
                  _one_of("auto", "plain", "quiet", "rawjson"))] = "auto"
    log_format: Annotated[
        str, _RUN("console or json", _one_of("console", "json"))] = "console"
    log_level: Annotated[
        str, _RUN("debug, info, warning or error",
                  _one_of("debug", "info", "warning", "error"))] = "info"
    debug: Annotated[
        bool, _RUN("tell more, also of the daemon", parse_boolean)] = False
    # fmt: on

    @classmethod
    def settings_customise_sources(
        cls, settings_cls: type[BaseSettings], init_settings: Any, *_: Any, **_others: Any
    ) -> tuple[PydanticBaseSettingsSource, ...]:
        """The mapping that ``load`` was given is the only source."""
        return (_Environment(settings_cls, init_settings.init_kwargs["environ"]),)

    def __repr_args__(self) -> Iterable[tuple[str | None, Any]]:
        """What ``repr`` shows: no values of build arguments, no passwords in addresses."""
        for name, value in super().__repr_args__():
            if name == "build_args":
                yield name, tuple(argument.key for argument in self.build_args)
            elif name == "build_contexts":
                yield name, tuple(context.name for context in self.build_contexts)
            else:
                yield name, hide_user_info(value) if isinstance(value, str) else value


VARIABLES: Final[Mapping[str, str]] = {variable_name(name): name for name in Settings.model_fields}
"""The field behind each variable, in the order of the contract."""


def described(field: str) -> Variable:
    """What ``Settings`` says about the variable of a field."""
    return _described(Settings.model_fields[field])


def default(field: str) -> object:
    """The value of a field whose variable is not set."""
    return Settings.model_fields[field].default


def load(environ: Mapping[str, str]) -> Settings:
    """The settings that ``environ`` asks for.

    Raises SettingInvalid, whose ``why`` has a line for every problem of every variable, or
    SettingNotImplemented when all problems are variables or values of later versions.
    """
    read = load_usable(environ)
    if read.failure:
        raise read.failure
    return read.settings


class Usable(NamedTuple):
    """What can be used of an environment; the fields in ``bad`` have their default instead."""

    settings: Settings
    bad: frozenset[str]
    failure: SettingInvalid | None


def load_usable(environ: Mapping[str, str]) -> Usable:
    """The settings as far as they can be used, and what `load` would raise. Raises nothing."""
    usable = dict(environ)
    problems: list[str] = []
    later = names.not_implemented(environ)
    bad: set[str] = set()
    for name in (*VARIABLES, *ALIASES.values()):
        try:
            check_utf8(environ.get(name, ""))
        except Refused as refused:
            problems.append(f"{name} {refused}")
            usable.pop(name)
            bad.add(VARIABLES.get(name, ""))
    try:
        settings = Settings(environ=usable)
    except ValidationError as error:
        for field, cause in _causes(error):
            bad.add(field)
            lines = [f"{names.given_name(field, usable)}: {text}" for text in cause.problems]
            (later if isinstance(cause, NotImplementedYet) else problems).extend(lines)
            for name in (variable_name(field), ALIASES.get(variable_name(field), "")):
                usable.pop(name, None)
        settings = Settings(environ=usable)
    bad.discard("")
    problems += names.differing_aliases(environ) + conflicts(settings, frozenset(bad))
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


def warnings(environ: Mapping[str, str]) -> tuple[str, ...]:
    """What is odd about ``environ`` without being an error: a sentence each."""
    unset = tuple(
        f"PLP_BUILD_ARGS names {key}, which is not set: the build argument is left out"
        for key in pairs.unset_build_args(environ.get("PLP_BUILD_ARGS", ""), environ)
    )
    return (*unknown_variables(environ), *unset)


def unknown_variables(environ: Mapping[str, str]) -> tuple[str, ...]:
    """A sentence for each PLP_ variable that no program of this project knows."""
    return names.unknown(environ, VARIABLES)


def secret_values(settings: Settings, environ: Mapping[str, str]) -> tuple[str, ...]:
    """The values of secrets that come from variables: what no log may show."""
    values = (environ.get(secret.env, "") for secret in settings.secrets if secret.env is not None)
    return tuple(dict.fromkeys(value for value in values if value))
