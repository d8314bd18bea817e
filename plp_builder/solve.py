"""Settings → SolveRequest → the argument list of `buildctl`: pure functions over frozen values.

What a value may hold is decided where it is parsed; here every value gets the form in which it
reaches BuildKit as it is. Sources: cmd/buildctl/build/*.go (how each flag is read) and
frontend/dockerui/{config,attr,namedcontext}.go (what the options mean), BuildKit v0.21 to v0.32.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, NamedTuple

from plp_builder.annotations import image_annotations
from plp_builder.values import KeyValue, Secret, Ssh

if TYPE_CHECKING:
    from datetime import datetime

    from plp_builder.preflight.inputs import NamedContext
    from plp_builder.preflight.paths import Paths
    from plp_builder.settings import Settings

BUILT_IN_FRONTEND = "dockerfile.v0"
GATEWAY_FRONTEND = "gateway.v0"
_OFFICIAL_SYNTAX = ("docker/dockerfile", "docker/dockerfile-upstream")
_TRUE = ("1", "t", "T", "TRUE", "true", "True")  # strconv.ParseBool


class LocalCache(NamedTuple):
    """A cache to import: an OCI layout directory and the digest of the entry in it."""

    path: Path
    digest: str


class CacheExport(NamedTuple):
    """Where the cache goes: an OCI layout directory, the entry's tag, and `min` or `max`."""

    path: Path
    tag: str
    mode: str


@dataclass(frozen=True, slots=True)
class SolveRequest:
    """All that one call of `buildctl build` needs to know, except the daemon's address.

    ``options`` are the frontend's, ``output`` the exporter's attributes beginning with its
    `type`, empty when nothing is to be written. Secrets are named, never held.
    """

    frontend: str
    options: tuple[KeyValue, ...]
    locals: tuple[tuple[str, Path], ...]
    layouts: tuple[tuple[str, Path], ...] = ()
    output: tuple[KeyValue, ...] = ()
    secrets: tuple[Secret, ...] = ()
    ssh: tuple[Ssh, ...] = ()
    entitlements: tuple[str, ...] = ()
    no_cache: bool = False
    cache_imports: tuple[LocalCache, ...] = ()
    cache_export: CacheExport | None = None
    cache_compression: str = ""
    metadata_file: Path | None = None


def request(
    settings: Settings,
    paths: Paths,
    *,
    now: datetime,
    contexts: tuple[NamedContext, ...] = (),
    cache_imports: tuple[LocalCache, ...] = (),
    cache_export: CacheExport | None = None,
    metadata_file: Path | None = None,
) -> SolveRequest:
    """What to ask of BuildKit.

    ``paths`` and ``contexts`` come from the preflight checks; ``now`` becomes the image's
    creation time unless SOURCE_DATE_EPOCH is set.
    """
    named, local_paths, layouts = _named_contexts(contexts)
    return SolveRequest(
        frontend=(
            BUILT_IN_FRONTEND if settings.frontend == BUILT_IN_FRONTEND else GATEWAY_FRONTEND
        ),
        options=(*_options(settings, paths), *named),
        locals=(("context", paths.context), ("dockerfile", paths.dockerfile_dir), *local_paths),
        layouts=layouts,
        output=_output(settings, now) if "archive" in settings.outputs else (),
        secrets=settings.secrets,
        ssh=settings.ssh,
        entitlements=("network.host",) if settings.network == "host" else (),
        no_cache=settings.no_cache,
        cache_imports=() if settings.no_cache else cache_imports,
        cache_export=cache_export,
        cache_compression="" if settings.compression == "gzip" else settings.compression,
        metadata_file=metadata_file,
    )


def arguments(request: SolveRequest) -> tuple[str, ...]:
    """The words behind `buildctl --addr ADDRESS`. The archive goes to its standard output.

    A flag and its value are two words: BuildKit 0.32's parser cuts white space off the end
    of a word that begins with a dash, and with it off the value in `--opt=KEY=value `.
    """
    words = ["build", "--progress", "rawjson", "--frontend", request.frontend]
    for flag, values in _flags(request):
        for value in values:
            words += [flag, value]
    if request.no_cache:
        words.append("--no-cache")
    return tuple(words)


def environment(request: SolveRequest, environ: Mapping[str, str]) -> dict[str, str]:
    """The environment of `buildctl`: what it and the credential helpers it starts may need.

    Everything else stays out, above all what would change a build unasked:
    SOURCE_DATE_EPOCH (buildctl makes a build argument of it), BUILDKIT_*, OTEL_* and
    TRACEPARENT. A secret gets a name of our own, so that its variable cannot mean anything
    to buildctl. A secret's variable that is not in ``environ`` is left out.
    """
    kept = {
        name: value
        for name, value in environ.items()
        if name.upper() in _KEPT or name.startswith(_HELPER_PREFIXES)
    }
    for number, secret in enumerate(request.secrets):
        if secret.env is not None and secret.env in environ:
            kept[_secret_variable(number)] = environ[secret.env]
    return kept


def refusals(settings: Settings) -> tuple[str, ...]:
    """Sentences about values that buildctl's own notation cannot carry; empty when all can.

    These are the ids and paths in `--ssh`, which has no way to quote
    (cmd/buildctl/build/ssh.go); a path may get its comma from PLP_SOURCE_PATH.
    """
    problems = []
    for ssh in settings.ssh:
        if ssh.id.startswith("-"):
            problems.append(f"PLP_SSH: the id {ssh.id!r} begins with a dash")
        problems += [
            f"PLP_SSH: BuildKit cannot take the path {path!r}"
            for path in map(str, ssh.paths)
            if "," in path or path.startswith("raw=")
        ]
    return tuple(problems)


_KEPT = frozenset({
    "PATH", "HOME", "USER", "LOGNAME", "LANG", "LC_ALL", "TMPDIR",
    "XDG_RUNTIME_DIR", "XDG_CONFIG_HOME", "XDG_DATA_HOME",
    "DOCKER_CONFIG", "DOCKER_AUTH_CONFIG", "REGISTRY_AUTH_FILE", "PASSWORD_STORE_DIR", "GNUPGHOME",
    "SSH_AUTH_SOCK", "SSL_CERT_FILE", "SSL_CERT_DIR",
    "HTTP_PROXY", "HTTPS_PROXY", "ALL_PROXY", "NO_PROXY",
})  # fmt: skip
_HELPER_PREFIXES = ("AWS_", "AZURE_", "GOOGLE_", "CLOUDSDK_", "GCLOUD_", "ECR_", "ACR_", "OCI_CLI_")
"""Of the credential helpers of the large registries."""


def _flags(request: SolveRequest) -> Iterator[tuple[str, Iterable[str]]]:
    yield "--local", (f"{name}={path}" for name, path in request.locals)
    yield "--oci-layout", (f"{name}={path}" for name, path in request.layouts)
    yield "--opt", (f"{option.key}={option.value}" for option in request.options)
    yield "--secret", (_secret(*numbered) for numbered in enumerate(request.secrets))
    yield "--ssh", map(_ssh, request.ssh)
    yield "--allow", request.entitlements
    yield "--import-cache", map(_cache_import, request.cache_imports)
    if request.cache_export is not None:
        export = _cache_export(request.cache_export, request.cache_compression)
        yield "--export-cache", (export,)
    if request.output:
        yield "--output", (_csv(*((pair.key, pair.value) for pair in request.output)),)
    if request.metadata_file is not None:
        yield "--metadata-file", (str(request.metadata_file),)


def _is_multi_platform(settings: Settings) -> bool:
    """Whether BuildKit makes an image index; the build argument is dockerui/config.go's."""
    wanted = [pair.value for pair in settings.build_args if pair.key == "BUILDKIT_MULTI_PLATFORM"]
    return len(settings.platforms) > 1 or any(value in _TRUE for value in wanted)


def _options(settings: Settings, paths: Paths) -> tuple[KeyValue, ...]:
    options = [
        KeyValue("filename", paths.dockerfile_name),
        *_frontend(settings, paths.syntax),
        *_steps(settings),
    ]
    if settings.target:
        options.append(KeyValue("target", settings.target))
    if settings.platforms:
        options.append(KeyValue("platform", ",".join(settings.platforms)))
    if settings.pull:
        options.append(KeyValue("image-resolve-mode", "pull"))
    if settings.source_date_epoch is not None:
        epoch = str(settings.source_date_epoch)
        options.append(KeyValue("build-arg:SOURCE_DATE_EPOCH", epoch))
    options += [KeyValue(f"build-arg:{pair.key}", pair.value) for pair in settings.build_args]
    options += [KeyValue(f"label:{pair.key}", pair.value) for pair in settings.labels]
    return tuple(options)


def _frontend(settings: Settings, syntax: str) -> tuple[KeyValue, ...]:
    """Which frontend reads the Dockerfile: with `cmdline` set, its `# syntax=` is not asked.

    So PLP_FRONTEND is the last word; and without a network the frontend inside BuildKit
    takes the place of the official image, which could not be fetched.
    """
    if settings.frontend != BUILT_IN_FRONTEND:
        return (KeyValue("source", settings.frontend), KeyValue("cmdline", settings.frontend))
    if settings.offline and _repository(syntax) in _OFFICIAL_SYNTAX:
        return (KeyValue("cmdline", BUILT_IN_FRONTEND),)
    return ()


def _steps(settings: Settings) -> Iterator[KeyValue]:
    """How build steps run: frontend/dockerui/attr.go."""
    network = "none" if settings.offline else settings.network
    if network:
        yield KeyValue("force-network-mode", network)
    if settings.add_hosts:
        hosts = _csv(*((entry.host, entry.address) for entry in settings.add_hosts))
        yield KeyValue("add-hosts", hosts)
    if settings.shm_size is not None:
        yield KeyValue("shm-size", str(settings.shm_size))
    if settings.ulimits:
        limits = _csv(*((one.name, f"{one.soft}:{one.hard}") for one in settings.ulimits))
        yield KeyValue("ulimit", limits)


def _output(settings: Settings, now: datetime) -> tuple[KeyValue, ...]:
    """The exporter: `docker` adds the manifest.json that `docker load` wants, for one platform."""
    archive_format = settings.archive_format
    if archive_format == "auto":
        archive_format = "oci" if _is_multi_platform(settings) else "docker"
    pairs = [KeyValue("type", archive_format), KeyValue("oci-mediatypes", "true")]
    if settings.image:
        pairs.append(KeyValue("name", settings.image[0]))
    if settings.compression != "gzip":
        pairs.append(KeyValue("force-compression", "true"))
    pairs.append(KeyValue("compression", settings.compression))
    if settings.compression_level is not None:
        pairs.append(KeyValue("compression-level", str(settings.compression_level)))
    if settings.source_date_epoch is not None:
        pairs.append(KeyValue("rewrite-timestamp", "true"))
    pairs += [
        KeyValue(f"annotation.{pair.key}", pair.value) for pair in image_annotations(settings, now)
    ]
    return tuple(pairs)


def _named_contexts(
    contexts: tuple[NamedContext, ...],
) -> tuple[tuple[KeyValue, ...], tuple[tuple[str, Path], ...], tuple[tuple[str, Path], ...]]:
    """Options, local directories and OCI layouts; ids of our own, so that none can collide."""
    options, local_paths, layouts = [], [], []
    for number, context in enumerate(contexts):
        name = f"plp-context-{number}"
        source = context.source
        if context.path is not None and context.digest:
            layouts.append((name, context.path))
            source = f"oci-layout://{name}@{context.digest}"
        elif context.path is not None:
            local_paths.append((name, context.path))
            source = f"local:{name}"
        options.append(KeyValue(f"context:{context.name}", source))
    return tuple(options), tuple(local_paths), tuple(layouts)


def _repository(reference: str) -> str:
    """The short repository name of an image reference: no Docker Hub host, tag or digest."""
    name = reference.partition("@")[0]
    for host in ("docker.io/", "index.docker.io/", "registry-1.docker.io/"):
        name = name.removeprefix(host)
    return name.partition(":")[0]


def _secret(number: int, secret: Secret) -> str:
    if secret.path is not None:
        return _csv(("id", secret.id), ("src", secret.path))
    return _csv(("id", secret.id), ("env", _secret_variable(number)))


def _secret_variable(number: int) -> str:
    return f"PLP_SECRET_{number}"


def _ssh(ssh: Ssh) -> str:
    return f"{ssh.id}={','.join(map(str, ssh.paths))}" if ssh.paths else ssh.id


def _cache_import(cache: LocalCache) -> str:
    return _csv(("type", "local"), ("src", cache.path), ("digest", cache.digest))


def _cache_export(export: CacheExport, compression: str) -> str:
    pairs: list[tuple[str, object]] = [
        ("type", "local"),
        ("dest", export.path),
        ("tag", export.tag),
        ("mode", export.mode),
        ("ignore-error", "true"),
    ]
    if compression:
        # Otherwise every layer would be compressed twice.
        pairs.append(("compression", compression))
    return _csv(*pairs)


def _csv(*pairs: tuple[str, object]) -> str:
    """One CSV record of `key=value` fields as Go reads it; a field is quoted where it has to be."""
    return ",".join(_csv_field(f"{key}={value}") for key, value in pairs)


def _csv_field(field: str) -> str:
    if not any(character in field for character in '",\r\n'):
        return field
    return '"' + field.replace('"', '""') + '"'
