"""Secrets, SSH agents, cache mounts, contexts: what ``RUN --mount`` and ``FROM`` can reach.

Sources: cmd/buildctl/build/{secret,ssh}.go, session/secrets/secretsprovider,
session/sshforward/sshprovider and frontend/dockerui/{config,namedcontext}.go of BuildKit.
"""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path

from plp_builder.syntax.csv_record import parse_csv_fields
from plp_builder.syntax.references import parse_reference
from plp_builder.values import (
    BuildContext,
    Refused,
    Secret,
    Ssh,
    control_character,
    parse_items,
    parse_lines,
    shown,
)

MAX_SECRET = 500 * 1024
MAX_CACHE_ID = 4096
ALL_CACHE_MOUNTS = "all"
_EXAMPLE = "use id=npm,env=NPM_TOKEN or id=npm,src=/run/npm-token"
_SECRET_KEYS = {"id": "id", "type": "type", "env": "env", "src": "src", "source": "src"}


def parse_secrets(text: str, environ: Mapping[str, str]) -> tuple[Secret, ...]:
    """BuildKit's ``id=…,env=NAME`` or ``id=…,src=/path``, one a line.

    Without ``env`` and ``src`` the id names a variable or, where none is set, a file. A relative
    path starts at the source path. A variable that is unset or empty is an error, because
    BuildKit would go on with an empty secret. No error shows the line: somebody may have put the
    secret itself into it.
    """
    secrets: dict[str, Secret] = {}
    problems: list[str] = []
    for number, line in parse_lines(text):
        try:
            secret = _secret(parse_csv_fields(line), environ)
            if secret.id in secrets:
                raise Refused(f"the id {shown(secret.id)} is given twice")
            secrets[secret.id] = secret
        except Refused as refused:
            problems += [f"line {number}: {problem}" for problem in refused.problems]
    if problems:
        raise Refused(*problems)
    return tuple(secrets.values())


def _secret(fields: tuple[str, ...], environ: Mapping[str, str]) -> Secret:
    options: dict[str, str] = {}
    for position, field in enumerate(fields, 1):
        key, equals, value = field.partition("=")
        name = _SECRET_KEYS.get(key.lower())
        if not equals or name is None:
            raise Refused(f"field {position} is none of id=, env=, src= or type=; {_EXAMPLE}")
        if name in options:
            raise Refused(f"{name}= is given twice")
        if not value:
            raise Refused(f"{name}= is empty")
        options[name] = value
    identifier = options.get("id")
    if identifier is None:
        raise Refused(f"id= is missing; {_EXAMPLE}")
    if control_character("".join(options.values())):
        raise Refused("a field holds a control character")
    env, path = _secret_source(identifier, options, environ)
    if env is not None:
        _check_secret_variable(env, environ)
        return Secret(identifier, env, None)
    return Secret(identifier, None, _from_source(str(path), environ))


def _secret_source(
    identifier: str, options: Mapping[str, str], environ: Mapping[str, str]
) -> tuple[str | None, str | None]:
    kind, env, path = options.get("type", ""), options.get("env"), options.get("src")
    if kind not in {"", "env", "file"}:
        raise Refused("type= is neither env nor file")
    if kind == "env" and env is None:
        env, path = path or identifier, None
    if env is not None and (path is not None or kind == "file"):
        raise Refused("both a variable and a file are given; use env= or src=")
    if env is None and path is None:
        return (
            (None, identifier)
            if kind == "file" or identifier not in environ
            else (identifier, None)
        )
    return env, path


def _check_secret_variable(env: str, environ: Mapping[str, str]) -> None:
    value = environ.get(env)
    if not value:
        raise Refused(f"the variable {shown(env)} is {'not set' if value is None else 'empty'}")
    if len(value.encode("utf-8", "surrogateescape")) > MAX_SECRET:
        raise Refused(f"the variable {shown(env)} is longer than 500 KiB, BuildKit's limit")


def parse_ssh(text: str, environ: Mapping[str, str]) -> tuple[Ssh, ...]:
    """``id``, ``id=/agent.sock`` or ``id=/key,/key``, one a line.

    A bare id stands for the agent of ``SSH_AUTH_SOCK``. A relative path starts at the source path.
    """
    agents: dict[str, Ssh] = {}
    problems: list[str] = []
    for number, line in parse_lines(text):
        try:
            agent = _ssh(line.rstrip(), environ)
            if agent.id in agents:
                raise Refused(f"the id {shown(agent.id)} is given twice")
            agents[agent.id] = agent
        except Refused as refused:
            problems += [f"line {number}: {problem}" for problem in refused.problems]
    if problems:
        raise Refused(*problems)
    return tuple(agents.values())


def _ssh(line: str, environ: Mapping[str, str]) -> Ssh:
    identifier, equals, given = line.partition("=")
    if not identifier or identifier.strip() != identifier or control_character(line):
        raise Refused(f"{shown(line)} is not accepted; use id, id=/agent.sock or id=/key")
    if not equals or not given:
        given = environ.get("SSH_AUTH_SOCK", "")
        if not given:
            raise Refused(f"{shown(identifier)} names no path, and SSH_AUTH_SOCK is not set")
        if "," in given or "=" in given:
            raise Refused("SSH_AUTH_SOCK holds a comma or =, which BuildKit's syntax cannot carry")
    paths = given.split(",")
    if any(path.partition("=")[0] == "raw" for path in paths):
        raise Refused("raw= is not implemented; give an agent socket or key files")
    if not all(paths):
        raise Refused(f"{shown(given)} holds an empty path")
    return Ssh(identifier, tuple(_from_source(path, environ) for path in paths))


def _from_source(path: str, environ: Mapping[str, str]) -> Path:
    return Path(environ.get("PLP_SOURCE_PATH") or "/source", path)


_CONTEXT_SCHEMES = ("docker-image://", "oci-layout://", "https://", "http://", "git://", "git@")


def parse_build_contexts(text: str) -> tuple[BuildContext, ...]:
    """``name=source``, one a line.

    The name is what ``FROM`` or ``--from`` says, in its short form. The source is a directory
    (``/path``, or relative to the source path), ``docker-image://reference``,
    ``oci-layout:///path[:tag][@digest]``, or a git or HTTP address.
    """
    contexts: dict[str, BuildContext] = {}
    problems: list[str] = []
    for number, line in parse_lines(text):
        try:
            context = _build_context(line.rstrip())
            if context.name in contexts:
                raise Refused(f"the name {shown(context.name)} is given twice")
            contexts[context.name] = context
        except Refused as refused:
            problems += [f"line {number}: {problem}" for problem in refused.problems]
    if problems:
        raise Refused(*problems)
    return tuple(contexts.values())


def _build_context(line: str) -> BuildContext:
    name, equals, source = line.partition("=")
    if not equals or not name or not source:
        raise Refused(f"{shown(line)} is no name=source")
    if control_character(line):
        raise Refused(f"{shown(line)} holds a control character")
    short = _familiar(name)
    if source.startswith("docker-image://"):
        reference = source.removeprefix("docker-image://")
        if reference != "scratch":
            parse_reference(reference)
    elif not source.startswith(_CONTEXT_SCHEMES) and _scheme(source):
        raise Refused(
            f"{shown(source)} is not accepted; use a directory, docker-image://, oci-layout://, "
            "https:// or git@"
        )
    if source in _CONTEXT_SCHEMES:
        raise Refused(f"{shown(source)} names nothing")
    return BuildContext(short, source)


def _scheme(source: str) -> bool:
    head, separator, _ = source.partition("://")
    return bool(separator) and head.replace("-", "").replace("+", "").isalnum()


def _familiar(name: str) -> str:
    """The form in which BuildKit's frontend looks a name up: without docker.io and ``:latest``."""
    text = parse_reference(name)
    for prefix in ("docker.io/library/", "docker.io/", "index.docker.io/library/"):
        text = text.removeprefix(prefix)
    return text.removesuffix(":latest")


def parse_cache_mounts(text: str) -> tuple[str, ...]:
    """Ids of cache mounts by comma or line, or ``all`` alone, in lower case."""
    ids = tuple(dict.fromkeys(parse_items(text)))
    if ALL_CACHE_MOUNTS in map(str.lower, ids):
        if len(ids) > 1:
            raise Refused(f'"{ALL_CACHE_MOUNTS}" stands alone; use it, or ids of cache mounts')
        return (ALL_CACHE_MOUNTS,)
    problems = []
    for each in ids:
        if escaped := control_character(each):
            problems.append(f"{shown(each)} holds the control character {escaped}")
        elif len(each.encode("utf-8", "surrogateescape")) > MAX_CACHE_ID:
            problems.append(f"{shown(each)} is longer than {MAX_CACHE_ID} bytes")
    if problems:
        raise Refused(*problems)
    return ids
