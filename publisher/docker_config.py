"""Files that hold registry credentials: Docker's config.json and its relatives.

The same format has several names: ``config.json`` (docker), ``auth.json`` (podman, skopeo; see
containers-auth.json(5)), ``.dockerconfigjson`` (a Kubernetes secret's key); ``.dockercfg`` is the
oldest form, its ``auths`` alone. How an entry is found follows github.com/containers/image
(v5.29, pkg/docker/config) and github.com/docker/cli (v28, cli/config).

What a file holds is hostile until checked, and no message repeats any of it but names of keys.
"""

from __future__ import annotations

import base64
import binascii
import json
import stat
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import NamedTuple

from plp_builder.errors import CredentialsNotUsable
from plp_builder.terminal import printable
from plp_builder.values import shown
from publisher import small_file
from publisher.small_file import NotReadable, not_readable

MAX_BYTES = 1 << 20
NAMES = ("config.json", ".dockerconfigjson", "config.json/.dockerconfigjson", ".dockercfg")
_HUB = frozenset({"docker.io", "index.docker.io", "registry-1.docker.io"})
_ECHO_HINT = "`echo` appends a line break: use `printf %s` when such a value is made."


class Entry(NamedTuple):
    """Credentials as a file or a helper gives them; its text never shows them."""

    username: str
    password: str
    identity_token: str = ""

    def __repr__(self) -> str:
        return "Entry(hidden)"


class Config(NamedTuple):
    """A file's content, of which only the outermost forms have been checked."""

    path: Path
    auths: Mapping[str, object]
    helpers: Mapping[str, object]
    store: object

    def __repr__(self) -> str:
        return f"Config({str(self.path)!r})"


def locate(path: Path) -> Path | None:
    """The file that DOCKER_CONFIG means: itself, or the first known name in the directory.

    None where the directory is there and holds none. Raises CredentialsNotUsable for a path that
    does not exist or cannot be entered.
    """
    try:
        if not stat.S_ISDIR(path.stat().st_mode):
            return path
        for name in NAMES:
            candidate = path / name
            if candidate.exists() and not candidate.is_dir():
                return candidate
    except OSError as error:
        raise _unusable(path, not_readable(error)) from None
    return None


def read(path: Path) -> Config:
    """Read a file. Raises CredentialsNotUsable if it is not there, too large or malformed."""
    try:
        content = _parse(path, small_file.read(path, MAX_BYTES))
    except NotReadable as error:
        raise _unusable(path, error) from None
    if path.name == ".dockercfg" and "auths" not in content:
        content = {"auths": content}
    return Config(
        path,
        _object(path, content, "auths"),
        _object(path, content, "credHelpers"),
        content.get("credsStore"),
    )


def entry(config: Config, registry: str, repository: str) -> Entry | None:
    """The credentials for ``registry/repository`` that the file itself holds.

    The longest key wins: ``registry/team/app``, ``registry/team``, ``registry``; only after those
    the forms that others have written, such as ``https://registry/v1/``. An entry without content
    marks that a helper has it, and counts as none. Raises CredentialsNotUsable.
    """
    for key in _matching(config.auths, registry, repository):
        if (found := _decode(config.path, key, config.auths[key])) is not None:
            return found
    return None


def helper(config: Config, registry: str) -> str:
    """The helper that the file names for this registry alone, "" for none."""
    for key in _matching(config.helpers, registry, ""):
        return _helper_name(config.path, f"credHelpers[{shown(key)}]", config.helpers[key])
    return ""


def store(config: Config) -> str:
    """The helper that the file names for all registries, "" for none."""
    return _helper_name(config.path, "credsStore", config.store)


def server_name(registry: str) -> str:
    """What credential helpers call a registry: its host, except for Docker Hub."""
    return "https://index.docker.io/v1/" if registry in _HUB else registry


def flaw(username: str, password: str) -> str:
    """Why HTTP's Basic scheme (RFC 7617, section 2) cannot carry these; "" if it can."""
    for what, text in (("user name", username), ("password", password)):
        if "\n" in text or "\r" in text:
            return f"the {what} holds a line break"
        if any(ord(character) < 0x20 or ord(character) == 0x7F for character in text):
            return f"the {what} holds a control character"
    if ":" in username:
        return "the user name holds a colon"
    return ""


def _parse(path: Path, content: bytes) -> Mapping[str, object]:
    try:
        parsed = json.loads(content.decode(), parse_constant=_no_constant)
    except (ValueError, RecursionError) as error:
        # Of the error only the place is told: its text may quote what is there.
        line = getattr(error, "lineno", 0)
        where = f" (line {line})" if line else ""
        raise CredentialsNotUsable(f"{_shown(path)} is no JSON{where}") from None
    if not isinstance(parsed, dict):
        raise CredentialsNotUsable(f"{_shown(path)} holds no JSON object")
    return parsed


def _no_constant(_name: str) -> object:
    raise ValueError("no constant of JSON")


def _object(path: Path, content: Mapping[str, object], name: str) -> Mapping[str, object]:
    value = content.get(name)
    if value is None:
        return {}
    if not isinstance(value, dict):
        raise CredentialsNotUsable(f"{_shown(path)}: {name} is no JSON object")
    return value


def _matching(keys: Mapping[str, object], registry: str, repository: str) -> Iterator[str]:
    """The keys that mean this repository, the most exact first."""
    registry = registry.lower()
    exact: dict[str, list[str]] = {}
    loose = []
    for key in keys:
        host, slash, path = key.partition("/")
        exact.setdefault(host.lower() + slash + path, []).append(key)
        if _host(key) == _unified(registry):
            loose.append(key)
    parts = repository.split("/") if repository else []
    wanted = ["/".join((registry, *parts[:count])) for count in range(len(parts), -1, -1)]
    found = [key for name in wanted for key in exact.get(name, ())]
    yield from dict.fromkeys((*found, *loose))


def _host(key: str) -> str:
    """The registry that a key means as a whole, "" for a key that means part of one."""
    bare = key
    for scheme in ("https://", "http://"):
        bare = bare.removeprefix(scheme)
    host, _, path = bare.partition("/")
    if bare == key and path.strip("/") not in {"", "v1", "v2"}:
        return ""
    return _unified(host.lower())


def _unified(registry: str) -> str:
    return "docker.io" if registry in _HUB else registry


def _decode(path: Path, key: str, value: object) -> Entry | None:
    where = f"{_shown(path)}: the entry {shown(key)}"
    if not isinstance(value, dict):
        raise CredentialsNotUsable(f"{where} is no JSON object")
    texts = {}
    for name in ("auth", "username", "password", "identitytoken", "registrytoken"):
        text = value.get(name)
        if text is not None and not isinstance(text, str):
            raise CredentialsNotUsable(f"{where}: {name} is no text")
        texts[name] = text or ""
    username, password = texts["username"], texts["password"]
    if texts["auth"]:
        username, password = _pair(where, texts["auth"])
    token = texts["identitytoken"]
    if texts["registrytoken"] and not (username or token):
        raise CredentialsNotUsable(
            f"{where} holds a registrytoken, which skopeo cannot use",
            hint="Log in again, or set PLP_REGISTRY_TOKEN to a token that is used as a password.",
        )
    if not (username or password or token):
        return None
    if not username and not token:
        raise CredentialsNotUsable(f"{where} has a password without a user name")
    if problem := flaw(username, password) or flaw("", token):
        raise CredentialsNotUsable(
            f"{where}: {problem}", hint=_ECHO_HINT if "line break" in problem else ""
        )
    return Entry(username, password, token)


def _pair(where: str, auth: str) -> tuple[str, str]:
    try:
        decoded = base64.b64decode("".join(auth.split()), validate=True).decode()
    except (binascii.Error, ValueError):
        raise CredentialsNotUsable(
            f"{where}: auth is no base64 of USER:PASSWORD",
            hint="Make it with `printf %s USER:PASSWORD | base64 -w0`, or log in again.",
        ) from None
    username, colon, password = decoded.partition(":")
    if not colon:
        raise CredentialsNotUsable(f"{where}: auth holds no colon between user and password")
    # Docker has padded passwords with NUL, and takes them off again.
    return username, password.rstrip("\0")


def _helper_name(path: Path, where: str, value: object) -> str:
    if value is None or value == "":
        return ""
    if not isinstance(value, str):
        raise CredentialsNotUsable(f"{_shown(path)}: {where} is no text")
    return value


def _unusable(path: Path, error: NotReadable) -> CredentialsNotUsable:
    return CredentialsNotUsable(f"{_shown(path)} {error}")


def _shown(path: Path) -> str:
    return printable(str(path))
