"""Environment → frozen ``Settings``: the only place that knows the variables.

Nothing here reads ``os.environ``: whoever calls passes a mapping in. ``load`` names every problem
of an environment at once. A field of ``Settings`` says all about its variable: the type, what it
means, the function that parses it, the default.
"""

from __future__ import annotations

from collections.abc import Mapping
from contextlib import suppress
from functools import partial
from pathlib import Path
from typing import Annotated, Final

from plp_builder.syntax import mounts, names, pairs, references, results, steps
from plp_builder.syntax.conflicts import conflicts
from plp_builder.syntax.names import ALIASES, NAMES, NOT_IMPLEMENTED
from plp_builder.tuples import NamedTuple
from plp_builder.values import (
    AddHost,
    BuildContext,
    KeyValue,
    Mirror,
    Refused,
    Secret,
    Ssh,
    Ulimit,
    parse_boolean,
    parse_duration,
    parse_integer,
    parse_size,
)
from plp_builder.variables import Table, Usable, Variable, in_group, one_of

__all__ = [
    "ALIASES",
    "NOT_IMPLEMENTED",
    "TABLE",
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
    "warnings",
]

_PATHS, _SOURCE, _BUILD = in_group("Paths"), in_group("Source"), in_group("Build")
_RESULT, _CACHE, _DAEMON = in_group("Result"), in_group("Cache"), in_group("Daemon")
_RUN = in_group("Run")


class Settings(NamedTuple):
    """Everything that the environment asks for, parsed, complete and frozen.

    Unset is the default shown, or None, "" or (). No field holds the value of a secret.
    """

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
        str, _RESULT("auto, docker or oci", one_of("auto", "docker", "oci"))] = "auto"
    image: Annotated[
        tuple[str, ...],
        _RESULT("name(s) inside the archive, comma list", references.parse_images)] = ()
    compression: Annotated[
        str, _RESULT("gzip, zstd, uncompressed or estargz",
                     one_of("gzip", "zstd", "uncompressed", "estargz"))] = "gzip"
    compression_level: Annotated[
        int | None, _RESULT("gzip and estargz 0 to 9, zstd 0 to 22",
                            partial(parse_integer, low=0, high=22))] = None
    source_date_epoch: Annotated[
        int | None,
        _RESULT("seconds since 1970: a reproducible build", results.parse_epoch)] = None

    cache_strategy: Annotated[
        str, _CACHE("auto, state, portable or off",
                    one_of("auto", "state", "portable", "off"))] = "auto"
    cache_mode: Annotated[
        str, _CACHE("keep the result's layers (min) or all (max)", one_of("min", "max"))] = "max"
    cache_max_size: Annotated[
        int, _CACHE("bound on what is kept, for each of the two", parse_size, default="10GB"),
    ] = 10_000_000_000
    cache_lock_timeout: Annotated[
        float, _CACHE("wait for a state that another build uses; 0: do not wait",
                      partial(parse_duration, zero=True), default="10m")] = 600.0
    cache_mounts: Annotated[
        tuple[str, ...],
        _CACHE("ids of cache mounts for the portable cache, or all",
               mounts.parse_cache_mounts)] = ()
    verify: Annotated[
        str, _CACHE("layers: new ones once (new), or all in every build (full)",
                    one_of("new", "full"))] = "new"

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
                  one_of("auto", "plain", "quiet", "rawjson"))] = "auto"
    log_format: Annotated[
        str, _RUN("console or json", one_of("console", "json"))] = "console"
    log_level: Annotated[
        str, _RUN("debug, info, warning or error",
                  one_of("debug", "info", "warning", "error"))] = "info"
    debug: Annotated[
        bool, _RUN("tell more, also of the daemon", parse_boolean)] = False
    # fmt: on

    def __repr__(self) -> str:
        """Of build arguments and contexts no more than the names, and no password."""
        shown = dict(TABLE.shown(self))
        shown["build_args"] = tuple(argument.key for argument in self.build_args)
        shown["build_contexts"] = tuple(context.name for context in self.build_contexts)
        return f"Settings({', '.join(f'{name}={value!r}' for name, value in shown.items())})"


TABLE: Final = Table(Settings, NAMES)
VARIABLES: Final[Mapping[str, str]] = TABLE.by_name
"""The field behind each variable, in the order of the contract."""


def described(field: str) -> Variable:
    """What ``Settings`` says about the variable of a field."""
    return TABLE.described(field)


def default(field: str) -> object:
    """The value of a field whose variable is not set."""
    return TABLE.defaults[field]


def load(environ: Mapping[str, str]) -> Settings:
    """The settings that ``environ`` asks for.

    Raises SettingInvalid, whose ``why`` has a line for every problem of every variable, or
    SettingNotImplemented when all problems are variables or values of later versions.
    """
    read = load_usable(environ)
    if read.failure:
        raise read.failure
    return read.settings


def load_usable(environ: Mapping[str, str]) -> Usable[Settings]:
    """The settings as far as they can be used, and what `load` would raise. Raises nothing.

    The library that says all that is wrong takes as long as everything else until the daemon is
    ready. Where nothing is set but what is simple, it is not needed unless something is wrong.
    """
    if names.is_simple(environ):
        with suppress(Refused):
            found = TABLE.parsed(environ)
            if not conflicts(found, frozenset()):
                return Usable(found, frozenset(), None)
    from plp_builder.reading import load_usable as read

    return read(TABLE, environ, conflicts, names.not_implemented(environ))


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
