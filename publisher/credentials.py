"""Which credentials go to the registry, and how skopeo gets them.

The first source that has some for this registry wins:

1. ``PLP_REGISTRY_USERNAME`` and ``PLP_REGISTRY_PASSWORD``, or ``PLP_REGISTRY_TOKEN``;
2. the file of ``REGISTRY_AUTH_FILE``, then that of ``DOCKER_CONFIG``;
3. only where neither is set: ``auth.json`` of podman and skopeo, then ``~/.docker/config.json``.

Of a file only the entry for this registry is used. Nothing is written to a disk.
"""

from __future__ import annotations

import json
from collections.abc import Iterator, Mapping
from fnmatch import fnmatchcase
from pathlib import Path
from typing import TYPE_CHECKING, NamedTuple

from plp_builder import log
from plp_builder.errors import CredentialsNotUsable
from plp_builder.oci import reference
from plp_builder.terminal import printable
from publisher import credential_helper, docker_config, hiding
from publisher.memory_file import MemoryFile

if TYPE_CHECKING:
    from plp_builder.oci.reference import Reference
    from publisher.credential_helper import RunHelper
    from publisher.docker_config import Config, Entry
    from publisher.settings import Settings


class TokenUser(NamedTuple):
    """The user name that a registry wants to see beside a token."""

    registries: str
    name: str


TOKEN_USERS = (
    # Azure's "Authenticate with an Azure container registry", az acr login --expose-token:
    # learn.microsoft.com/azure/container-registry/container-registry-authentication
    TokenUser("*.azurecr.io", "00000000-0000-0000-0000-000000000000"),
    TokenUser("*.azurecr.cn", "00000000-0000-0000-0000-000000000000"),
    TokenUser("*.azurecr.us", "00000000-0000-0000-0000-000000000000"),
    # cloud.google.com/artifact-registry/docs/docker/authentication (access token)
    TokenUser("*-docker.pkg.dev", "oauth2accesstoken"),
    TokenUser("docker.pkg.dev", "oauth2accesstoken"),
    TokenUser("gcr.io", "oauth2accesstoken"),
    TokenUser("*.gcr.io", "oauth2accesstoken"),
    # docs.aws.amazon.com/AmazonECR/latest/userguide/registry_auth.html
    TokenUser("*.dkr.ecr.*", "AWS"),
    TokenUser("*.dkr-ecr.*", "AWS"),
    TokenUser("public.ecr.aws", "AWS"),
    # docs.quay.io; docs.nvidia.com/ngc: the word itself, not a variable
    TokenUser("quay.io", "$oauthtoken"),
    TokenUser("nvcr.io", "$oauthtoken"),
    # docs.gitlab.com/ci/jobs/ci_job_token: job tokens need it, for all others it does not matter
    TokenUser("*gitlab*", "gitlab-ci-token"),
    # Whatever checks the token alone, as ghcr.io does.
    TokenUser("*", "token"),
)


class Credentials(NamedTuple):
    """Who we are to a registry. ``origin`` says where from, and may be shown; nothing else may."""

    username: str
    password: str
    identity_token: str = ""
    origin: str = ""

    def __repr__(self) -> str:
        return f"Credentials(origin={self.origin!r})"

    def secrets(self) -> tuple[str, ...]:
        """What no log may show."""
        return hiding.secrets(self.username, self.password, self.identity_token)


class AuthFile(MemoryFile):
    """skopeo's ``--authfile`` (containers-auth.json(5)) with these entries, by registry."""

    def __init__(self, entries: Mapping[str, Credentials]) -> None:
        auths = {key: _entry(credentials) for key, credentials in entries.items()}
        super().__init__("authfile", json.dumps({"auths": auths}).encode())


def find(
    settings: Settings, environ: Mapping[str, str], run_helper: RunHelper
) -> Credentials | None:
    """The credentials for the repository of ``settings``; None where there are none at all.

    ``environ`` tells where files lie by default; ``run_helper`` is made by
    :func:`publisher.credential_helper.runner`. Raises CredentialsNotUsable for what was named and
    cannot be used; what is wrong with a file that nobody has named is a warning. Whoever logs has
    to learn :meth:`Credentials.secrets`.
    """
    name = reference.parse(settings.image_repository)
    if settings.registry_password or settings.registry_token:
        return _given(settings, name.registry)
    named = _files(settings)
    for variable, path in named:
        if (found := _named(variable, path, name, run_helper)) is not None:
            return found
    if named:
        log.warning(
            "no credentials for this registry",
            registry=name.registry,
            looked_in=", ".join(f"{variable}={printable(str(path))}" for variable, path in named),
            hint="pushing without any; add an entry for the registry, or set "
            "PLP_REGISTRY_USERNAME and PLP_REGISTRY_PASSWORD",
        )
        return None
    for path in _default_files(environ):
        if (found := _by_default(path, name, run_helper)) is not None:
            return found
    return None


def check(settings: Settings) -> None:
    """Raise what :func:`find` would, as far as that can be known without asking a helper."""
    if settings.registry_password or settings.registry_token:
        _given(settings, reference.parse(settings.image_repository).registry)
        return
    for variable, path in _files(settings):
        try:
            _config(variable, path)
        except CredentialsNotUsable as error:
            raise _about(variable, error) from None


def looked_in(settings: Settings) -> tuple[str, ...]:
    """A sentence for each file that ``settings`` name, for when :func:`find` has found nothing."""
    registry = reference.parse(settings.image_repository).registry
    return tuple(
        f"{variable}={printable(str(path))} has no entry for {registry}"
        for variable, path in _files(settings)
    )


def _files(settings: Settings) -> list[tuple[str, Path]]:
    """The files that variables name, in the order in which they are asked."""
    files = (
        ("REGISTRY_AUTH_FILE", settings.registry_auth_file),
        ("DOCKER_CONFIG", settings.docker_config),
    )
    return [(variable, path) for variable, path in files if path is not None]


def _given(settings: Settings, registry: str) -> Credentials:
    """Those of the variables."""
    variable, password = "PLP_REGISTRY_PASSWORD", settings.registry_password
    username = settings.registry_username
    if not password:
        variable, password = "PLP_REGISTRY_TOKEN", settings.registry_token
        username = username or _token_user(registry)
    if problem := docker_config.flaw(username, password):
        raise CredentialsNotUsable(
            f"PLP_REGISTRY_USERNAME and {variable} cannot be sent: {problem}",
            hint="Correct the variable: HTTP cannot carry such a value.",
        )
    return Credentials(username, password, origin=variable)


def _token_user(registry: str) -> str:
    if registry == reference.DEFAULT_REGISTRY:
        raise CredentialsNotUsable(
            "Docker Hub wants to know whose token PLP_REGISTRY_TOKEN is",
            hint="Set PLP_REGISTRY_USERNAME to the name of the account or organization.",
        )
    host = registry.lower().partition(":")[0]
    return next(user.name for user in TOKEN_USERS if fnmatchcase(host, user.registries))


def _named(variable: str, path: Path, name: Reference, run_helper: RunHelper) -> Credentials | None:
    """From a file that a variable names."""
    try:
        config = _config(variable, path)
        if config is None:
            return None
        return _from(config, name, run_helper) or _from_store(config, name, run_helper)
    except CredentialsNotUsable as error:
        raise _about(variable, error) from None


def _config(variable: str, path: Path) -> Config | None:
    file = docker_config.locate(path) if variable == "DOCKER_CONFIG" else path
    return None if file is None else docker_config.read(file)


def _about(variable: str, error: CredentialsNotUsable) -> CredentialsNotUsable:
    return CredentialsNotUsable(
        f"{variable} cannot be used: {error.what}",
        why=error.why,
        hint=error.hint or f"Correct what {variable} names, or unset it.",
    )


def _by_default(path: Path, name: Reference, run_helper: RunHelper) -> Credentials | None:
    """From a file that lies where tools keep it: often it is another tool's, made elsewhere."""
    try:
        config = docker_config.read(path)
    except CredentialsNotUsable as error:
        log.warning("credentials are not looked for", why=error.what)
        return None
    if (found := _from(config, name, run_helper)) is not None:
        return found
    try:
        return _from_store(config, name, run_helper)
    except CredentialsNotUsable as error:
        log.warning("a credential helper is not used", why=error.what, file=str(path))
        return None


def _from(config: Config, name: Reference, run_helper: RunHelper) -> Credentials | None:
    """What a file has for this very registry: a helper, or an entry."""
    if helper := docker_config.helper(config, name.registry):
        found = _ask(helper, config, name, run_helper)
        if found is not None:
            return found
    entry = docker_config.entry(config, name.registry, name.repository)
    return None if entry is None else _credentials(entry, str(config.path))


def _from_store(config: Config, name: Reference, run_helper: RunHelper) -> Credentials | None:
    """What the file's helper for all registries has."""
    helper = docker_config.store(config)
    return _ask(helper, config, name, run_helper) if helper else None


def _ask(helper: str, config: Config, name: Reference, run: RunHelper) -> Credentials | None:
    entry = credential_helper.ask(helper, docker_config.server_name(name.registry), run)
    if entry is None:
        log.info("a credential helper has nothing", helper=helper, registry=name.registry)
        return None
    return _credentials(entry, f"docker-credential-{helper} of {config.path}")


def _default_files(environ: Mapping[str, str]) -> Iterator[Path]:
    """Where podman, skopeo and docker keep theirs, as far as there is something."""
    home = environ.get("HOME", "")
    directories = (
        (environ.get("XDG_RUNTIME_DIR", ""), "containers/auth.json"),
        (environ.get("XDG_CONFIG_HOME") or (home and f"{home}/.config"), "containers/auth.json"),
        (home, ".docker/config.json"),
    )
    for directory, file in directories:
        path = Path(directory, file)
        try:
            if path.is_absolute() and path.is_file():
                yield path
        except OSError as error:
            log.warning("credentials are not looked for", file=str(path), why=error.strerror)


def _credentials(entry: Entry, origin: str) -> Credentials:
    return Credentials(entry.username, entry.password, entry.identity_token, printable(origin))


def _entry(credentials: Credentials) -> dict[str, str]:
    """One entry of an authfile. With an identity token skopeo wants a user name all the same."""
    token = credentials.identity_token
    username = credentials.username or ("<token>" if token else "")
    auth = {"auth": hiding.base64(f"{username}:{credentials.password}")}
    return {**auth, "identitytoken": token} if token else auth
