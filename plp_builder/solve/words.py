"""SolveRequest → the words and the environment of one call of buildctl.

How each flag is read: cmd/buildctl/build/*.go, BuildKit v0.21 to v0.32.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping
from typing import TYPE_CHECKING

from plp_builder.solve.csv import record
from plp_builder.solve.model import RegistryCache

if TYPE_CHECKING:
    from plp_builder.solve.model import CacheExport, CacheImport, SolveRequest
    from plp_builder.values import Secret, Ssh

_KEPT = frozenset({
    "PATH", "HOME", "USER", "LOGNAME", "LANG", "LC_ALL", "TMPDIR",
    "XDG_RUNTIME_DIR", "XDG_CONFIG_HOME", "XDG_DATA_HOME",
    "DOCKER_CONFIG", "DOCKER_AUTH_CONFIG", "REGISTRY_AUTH_FILE", "PASSWORD_STORE_DIR", "GNUPGHOME",
    "SSH_AUTH_SOCK", "SSL_CERT_FILE", "SSL_CERT_DIR",
    "HTTP_PROXY", "HTTPS_PROXY", "ALL_PROXY", "NO_PROXY",
})  # fmt: skip
_HELPER_PREFIXES = ("AWS_", "AZURE_", "GOOGLE_", "CLOUDSDK_", "GCLOUD_", "ECR_", "ACR_", "OCI_CLI_")
"""Of the credential helpers of the large registries."""


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
        yield "--output", (record(*((pair.key, pair.value) for pair in request.output)),)


def _secret(number: int, secret: Secret) -> str:
    if secret.path is not None:
        return record(("id", secret.id), ("src", secret.path))
    return record(("id", secret.id), ("env", _secret_variable(number)))


def _secret_variable(number: int) -> str:
    return f"PLP_SECRET_{number}"


def _ssh(ssh: Ssh) -> str:
    return f"{ssh.id}={','.join(map(str, ssh.paths))}" if ssh.paths else ssh.id


def _cache_import(cache: CacheImport) -> str:
    if isinstance(cache, RegistryCache):
        return record(("type", "registry"), ("ref", cache.reference))
    return record(("type", "local"), ("src", cache.path), ("digest", cache.digest))


def _cache_export(export: CacheExport, compression: str) -> str:
    pairs: list[tuple[str, object]] = [
        ("type", "local"),
        ("dest", export.path),
        ("tag", export.tag),
        ("mode", export.mode),
        ("ignore-error", "true"),
    ]
    if compression:
        # Otherwise every layer would be compressed twice, and those of base images that are not
        # compressed in this way once more in each build that takes them from the cache.
        pairs += [("compression", compression), ("force-compression", "true")]
    return record(*pairs)
