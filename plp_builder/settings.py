"""Environment → frozen ``Settings``: the only place that knows the names of variables.

Nothing here reads ``os.environ``: whoever calls passes a mapping in. ``load`` names every problem
of an environment at once. A variable is one line of ``Settings``: its type, what it means, the
function that parses it, its default.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Annotated, Any, Final

from plp_builder import lazy
from plp_builder.errors import SettingInvalid, SettingNotImplemented
from plp_builder.syntax import mounts, pairs, references, results, steps
from plp_builder.syntax.conflicts import conflicts
from plp_builder.syntax.results import NotImplementedYet
from plp_builder.values import (
    AddHost,
    BuildContext,
    KeyValue,
    Mirror,
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

# Fields whose variable does not begin with PLP_: names that other tools have given.
_OWN_NAMES: Final = {
    "git_repository_url": "GIT_REPOSITORY_URL",
    "git_sha": "GIT_SHA",
    "source_date_epoch": "SOURCE_DATE_EPOCH",
}
ALIASES: Final = {"PLP_BUILDKITD_FLAGS": "BUILDKITD_FLAGS"}

# Variables of the contract for later versions, and the values of them that ask for nothing.
NOT_IMPLEMENTED: Final[Mapping[str, tuple[str, ...]]] = {
    "PLP_PROVENANCE": ("off", "false", "0", "no"),
    "PLP_SBOM": ("off", "false", "0", "no"),
    "PLP_CACHE_FROM": (),
    "PLP_CACHE_TO": (),
    "PLP_CACHE_INLINE": ("off", "false", "0", "no"),
    "PLP_BUILDKIT_ADDRESS": (),
    "PLP_BUILDKIT_TLS_PATH": (),
    "PLP_RESULT_FILE": (),
    "PLP_REPORT_FILE": (),
}

# Variables of the sibling image, which one CI job often sets beside ours.
_PUBLISHER: Final = frozenset(
    (
        "PLP_ARTIFACT_PATH",
        "PLP_IMAGE_REPOSITORY",
        "PLP_COMMIT_SHA",
        "PLP_BRANCH",
        "PLP_TAG",
        "PLP_PULL_REQUEST_NUMBER",
        "PLP_MERGE_REQUEST_NUMBER",
        "PLP_IS_DEFAULT_BRANCH",
        "PLP_EXTRA_TAGS",
        "PLP_REGISTRY_USERNAME",
        "PLP_REGISTRY_PASSWORD",
        "PLP_REGISTRY_TOKEN",
        "PLP_REGISTRY_INSECURE",
        "PLP_REGISTRY_CA_PATH",
        "PLP_PUSH_RETRIES",
        "PLP_DRY_RUN",
    )
)


@dataclass(frozen=True, slots=True)
class Variable:
    """What a field of ``Settings`` is made from: part of its annotation.

    ``parse`` takes the text of the variable; with ``environ`` true, a pair of text and environment.
    ``default`` is how the help text writes the default, where the value itself does not show it.
    """

    group: str
    meaning: str
    parse: Callable[[Any], object]
    default: str = ""
    environ: bool = False

    def __get_pydantic_core_schema__(self, _source: object, _handler: object) -> Any:
        from pydantic_core import core_schema

        return core_schema.no_info_plain_validator_function(self.parse)


class _Environment(PydanticBaseSettingsSource):
    """The variables of a mapping, by field. An empty one is not set."""

    def __init__(self, settings: type[BaseSettings], environ: Mapping[str, str]) -> None:
        super().__init__(settings)
        self._environ = environ

    def get_field_value(self, field: Any, field_name: str) -> tuple[Any, str, bool]:
        """The text of a field's variable, or None; the interface of pydantic-settings."""
        name = variable_name(field_name)
        text = self._environ.get(name) or self._environ.get(ALIASES.get(name, ""), "")
        if any(mark.environ for mark in field.metadata if isinstance(mark, Variable)):
            return (text, self._environ) if text else None, field_name, False
        return text or None, field_name, False

    def __call__(self) -> dict[str, Any]:
        """The raw values of all fields that are set."""
        raw = {
            name: self.get_field_value(field, name)[0]
            for name, field in self.settings_cls.model_fields.items()
        }
        return {name: value for name, value in raw.items() if value is not None}


def _choice(*choices: str) -> Callable[[str], str]:
    return partial(parse_choice, choices=choices)


def _path(text: str) -> Path:
    return Path(text)


def _build_args(given: tuple[str, Mapping[str, str]]) -> tuple[KeyValue, ...]:
    return pairs.parse_build_args(*given)


def _secrets(given: tuple[str, Mapping[str, str]]) -> tuple[Secret, ...]:
    return mounts.parse_secrets(*given)


def _ssh(given: tuple[str, Mapping[str, str]]) -> tuple[Ssh, ...]:
    return mounts.parse_ssh(*given)


_V = Variable


class Settings(BaseSettings):
    """Everything that the environment asks for, parsed, complete and frozen.

    A field bears its variable's name in lower case without ``PLP_``. Unset is the default shown,
    or None, "" or (). No field holds the value of a secret.
    """

    model_config = SettingsConfigDict(
        frozen=True,
        hide_input_in_errors=True,
        env_ignore_empty=True,
        validate_default=False,
        extra="ignore",
    )

    source_path: Annotated[
        Path, _V("Paths", "absolute path of the source; may be read-only", _path)
    ] = Path("/source")
    build_path: Annotated[
        Path, _V("Paths", "absolute path of the directory that gets the archive", _path)
    ] = Path("/build")
    cache_path: Annotated[
        Path, _V("Paths", "absolute path of the cache; made if missing", _path)
    ] = Path("/tmp/cache")  # noqa: S108 - the contract's default

    git_repository_url: Annotated[
        str, _V("Source", "annotation org.opencontainers.image.source", results.parse_plain_text)
    ] = ""
    git_sha: Annotated[
        str, _V("Source", "annotation org.opencontainers.image.revision", results.parse_plain_text)
    ] = ""

    context: Annotated[Path, _V("Build", "context, relative to the source path", _path)] = Path()
    dockerfile: Annotated[Path, _V("Build", "Dockerfile, relative to the context", _path)] = Path(
        "Dockerfile"
    )
    target: Annotated[str, _V("Build", "stage to build", references.parse_target)] = ""
    platforms: Annotated[
        tuple[str, ...], _V("Build", "os/arch[/variant], comma list", steps.parse_platforms)
    ] = ()
    build_args: Annotated[
        tuple[KeyValue, ...],
        _V("Build", "KEY=value a line; bare KEY: from the environment", _build_args, environ=True),
    ] = ()
    labels: Annotated[
        tuple[KeyValue, ...], _V("Build", "KEY=value a line", pairs.parse_labels)
    ] = ()
    annotations: Annotated[
        tuple[KeyValue, ...], _V("Build", "KEY=value a line", pairs.parse_annotations)
    ] = ()
    secrets: Annotated[
        tuple[Secret, ...],
        _V("Build", "id=npm,env=NPM_TOKEN or id=npm,src=/path a line", _secrets, environ=True),
    ] = ()
    ssh: Annotated[
        tuple[Ssh, ...],
        _V("Build", "default, or id=/path of a socket or keys, a line", _ssh, environ=True),
    ] = ()
    build_contexts: Annotated[
        tuple[BuildContext, ...],
        _V("Build", "name=/path, oci-layout:// or docker-image:// a line",
           mounts.parse_build_contexts),
    ] = ()  # fmt: skip
    no_cache: Annotated[bool, _V("Build", "build from nothing", parse_boolean)] = False
    pull: Annotated[bool, _V("Build", "resolve base images again", parse_boolean)] = False
    offline: Annotated[bool, _V("Build", "no network for build steps", parse_boolean)] = False
    network: Annotated[
        str, _V("Build", "of build steps: default, none, host or sandbox", steps.parse_network)
    ] = ""
    add_hosts: Annotated[
        tuple[AddHost, ...], _V("Build", "host:address, comma or line", steps.parse_add_hosts)
    ] = ()
    shm_size: Annotated[
        int | None,
        _V("Build", "size of /dev/shm, as docker build: 64m", partial(parse_size, base=1024)),
    ] = None
    ulimits: Annotated[
        tuple[Ulimit, ...], _V("Build", "name=soft[:hard], comma or line", steps.parse_ulimits)
    ] = ()
    frontend: Annotated[
        str, _V("Build", "or an image reference: docker/dockerfile:1", references.parse_frontend)
    ] = "dockerfile.v0"

    outputs: Annotated[tuple[str, ...], _V("Result", "archive or none", results.parse_outputs)] = (
        "archive",
    )
    archive_name: Annotated[
        str, _V("Result", "name of the file in the build path", results.parse_archive_name)
    ] = "container-image.tar"
    archive_format: Annotated[
        str, _V("Result", "auto, docker or oci", _choice("auto", "docker", "oci"))
    ] = "auto"
    image: Annotated[
        tuple[str, ...],
        _V("Result", "name(s) inside the archive, comma list", references.parse_images),
    ] = ()
    compression: Annotated[
        str,
        _V("Result", "gzip, zstd, uncompressed or estargz",
           _choice("gzip", "zstd", "uncompressed", "estargz")),
    ] = "gzip"  # fmt: skip
    compression_level: Annotated[
        int | None,
        _V("Result", "gzip and estargz 0-9, zstd 0-22", partial(parse_integer, low=0, high=22)),
    ] = None
    source_date_epoch: Annotated[
        int | None, _V("Result", "seconds; makes the build reproducible", results.parse_epoch)
    ] = None

    cache_strategy: Annotated[
        str, _V("Cache", "auto, portable or off", results.parse_cache_strategy)
    ] = "auto"
    cache_mode: Annotated[
        str, _V("Cache", "what is kept: min (result) or max (all stages)", _choice("min", "max"))
    ] = "max"
    cache_max_size: Annotated[
        int, _V("Cache", "bound on the portable cache", parse_size, default="10GB")
    ] = 10_000_000_000

    buildkitd_flags: Annotated[
        tuple[str, ...],
        _V("Daemon", "flags for buildkitd, quoted as in a shell", steps.parse_buildkitd_flags),
    ] = ()
    buildkitd_config: Annotated[Path | None, _V("Daemon", "path of a buildkitd.toml", _path)] = None
    registry_mirrors: Annotated[
        tuple[Mirror, ...],
        _V("Daemon", "registry=mirror, comma or line", references.parse_mirrors),
    ] = ()
    insecure_registries: Annotated[
        tuple[str, ...],
        _V("Daemon", "host[:port] of plain HTTP registries", references.parse_registries),
    ] = ()

    timeout: Annotated[float | None, _V("Run", "of the whole build: 30m", parse_duration)] = None
    start_timeout: Annotated[
        float, _V("Run", "of the daemon's start", parse_duration, default="60s")
    ] = 60.0
    progress: Annotated[
        str,
        _V("Run", "auto, plain, quiet or rawjson", _choice("auto", "plain", "quiet", "rawjson")),
    ] = "auto"
    log_format: Annotated[str, _V("Run", "console or json", _choice("console", "json"))] = "console"
    log_level: Annotated[
        str,
        _V("Run", "debug, info, warning or error", _choice("debug", "info", "warning", "error")),
    ] = "info"
    debug: Annotated[bool, _V("Run", "tell everything, also the daemon's log", parse_boolean)] = (
        False
    )

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
            else:
                yield name, hide_user_info(value) if isinstance(value, str) else value


def variable_name(field: str) -> str:
    """The variable behind a field of ``Settings``."""
    return _OWN_NAMES.get(field) or f"PLP_{field.upper()}"


VARIABLES: Final[Mapping[str, str]] = {variable_name(name): name for name in Settings.model_fields}


def load(environ: Mapping[str, str]) -> Settings:
    """The settings that ``environ`` asks for.

    Raises SettingInvalid, whose ``why`` has a line for every problem of every variable, or
    SettingNotImplemented when all problems are variables or values of later versions.
    """
    later = [
        f"{name} is not implemented in this version"
        for name, harmless in NOT_IMPLEMENTED.items()
        if environ.get(name, "").strip().lower() not in {"", *harmless}
    ]
    usable = dict(environ)
    problems = []
    bad: set[str] = set()
    for name, found in _unreadable(environ):
        problems.append(found)
        bad.add(VARIABLES[name])
        usable.pop(name)
    try:
        settings = Settings(environ=usable)
    except ValidationError as error:
        for field, cause in _causes(error):
            bad.add(field)
            lines = [f"{_given_name(field, environ)}: {problem}" for problem in cause.problems]
            (later if isinstance(cause, NotImplementedYet) else problems).extend(lines)
        dropped = {variable_name(field) for field in bad}
        dropped |= {ALIASES[name] for name in dropped if name in ALIASES}
        settings = Settings(environ={k: v for k, v in usable.items() if k not in dropped})
    problems += _both_names(environ) + conflicts(settings, frozenset(bad))
    _raise(problems, later)
    return settings


def _raise(problems: list[str], later: list[str]) -> None:
    if problems:
        count = len(problems) + len(later)
        what = "a setting cannot be used" if count == 1 else f"{count} settings cannot be used"
        raise SettingInvalid(what, why=[*problems, *later])
    if later:
        what = "this version does not implement what a setting asks for"
        raise SettingNotImplemented(what, why=later)


def _unreadable(environ: Mapping[str, str]) -> Iterable[tuple[str, str]]:
    for name in [*VARIABLES, *ALIASES.values()]:
        try:
            check_utf8(environ.get(name, ""))
        except Refused as refused:
            yield name, f"{name} {refused}"


def _causes(error: ValidationError) -> Iterable[tuple[str, Refused]]:
    for detail in error.errors(include_url=False, include_input=False):
        cause = detail["ctx"]["error"]
        yield str(detail["loc"][0]), cause if isinstance(cause, Refused) else Refused(str(cause))


def _given_name(field: str, environ: Mapping[str, str]) -> str:
    name = variable_name(field)
    return name if environ.get(name) else ALIASES.get(name, name)


def _both_names(environ: Mapping[str, str]) -> list[str]:
    return [
        f"{name} and {alias} are both set, and differ; set one of them"
        for name, alias in ALIASES.items()
        if environ.get(name) and environ.get(alias) and environ[name] != environ[alias]
    ]


def warnings(environ: Mapping[str, str]) -> tuple[str, ...]:
    """What is odd about ``environ`` without being an error: a sentence each."""
    text = environ.get("PLP_BUILD_ARGS", "")
    unset = tuple(
        f"PLP_BUILD_ARGS names {key}, which is not set: the build argument is left out"
        for key in pairs.unset_build_args(text, environ)
    )
    return (*unknown_variables(environ), *unset)


def unknown_variables(environ: Mapping[str, str]) -> tuple[str, ...]:
    """A sentence for each PLP_ variable that no program of this project knows."""
    known = (*VARIABLES, *NOT_IMPLEMENTED)
    unknown = [
        name
        for name in sorted(environ)
        if name.startswith("PLP_") and name not in known and name not in _PUBLISHER
    ]
    if not unknown:
        return ()
    from difflib import get_close_matches

    texts = []
    for name in unknown:
        near = get_close_matches(name, known, n=1, cutoff=0.75)
        texts.append(
            f"{ascii(name)[1:-1]} is unknown" + (f"; did you mean {near[0]}?" if near else "")
        )
    return tuple(texts)


def secret_values(settings: Settings, environ: Mapping[str, str]) -> tuple[str, ...]:
    """The values of secrets that come from variables: what no log may show."""
    values = (environ.get(secret.env, "") for secret in settings.secrets if secret.env is not None)
    return tuple(dict.fromkeys(value for value in values if value))
