"""The inputs besides the source: secrets, SSH agents and named build contexts."""

from __future__ import annotations

import os
import re
import stat
from pathlib import Path
from typing import TYPE_CHECKING

from plp_builder.errors import BuildContextNotUsable, Failure, SecretNotUsable, SshNotUsable
from plp_builder.preflight.finding import open_regular, reason, show
from plp_builder.tuples import NamedTuple

if TYPE_CHECKING:
    from plp_builder.settings import Settings
    from plp_builder.values import BuildContext, Secret, Ssh

MAX_SECRET_SIZE = 500 * 1024
"""Bytes: session/secrets/secretsprovider, MaxSecretSize."""

MAX_KEY_SIZE = 100 * 1024
"""Bytes that BuildKit reads of a key: session/sshforward/sshprovider."""

_REMOTE = re.compile(r"(docker-image|https?|git|ssh)://.|git@.", re.IGNORECASE)
_LAYOUT = "oci-layout://"


class NamedContext(NamedTuple):
    """A named build context, ready for BuildKit.

    ``source`` is the frontend's own notation (`docker-image://…`, `https://…`) and then
    ``path`` is None; or ``path`` is a directory, or, with a ``digest``, an OCI layout.
    """

    name: str
    source: str = ""
    path: Path | None = None
    digest: str = ""


def check_inputs(settings: Settings) -> tuple[NamedContext, ...]:
    """Check that secrets, SSH agents and named contexts can be used; contexts come resolved.

    Raises `SecretNotUsable`, `SshNotUsable` or `BuildContextNotUsable` with all that is
    wrong with that kind. A secret's content is neither read nor shown.
    """
    _raise_all(SecretNotUsable, [_secret_problem(secret) for secret in settings.secrets])
    _raise_all(SshNotUsable, [_ssh_problem(ssh) for ssh in settings.ssh])
    return tuple(
        resolve_context(context, Path(settings.source_path)) for context in settings.build_contexts
    )


def resolve_context(context: BuildContext, source: Path) -> NamedContext:
    """A named context as BuildKit takes it; a relative directory starts from ``source``.

    `oci-layout://PATH[:TAG][@DIGEST]` becomes the layout's directory and the digest of one
    manifest or index in it. Raises `BuildContextNotUsable`.
    """
    if _REMOTE.match(context.source):
        return NamedContext(context.name, source=_lower_scheme(context.source))
    if context.source.lower().startswith(_LAYOUT):
        # Few builds use one, and its parsers cost every build's start.
        from plp_builder.preflight import layouts

        path, digest = layouts.resolve(
            context.source[len(_LAYOUT) :],
            source,
            lambda text, hint: _unusable(context, text, hint),
        )
        return NamedContext(context.name, path=path, digest=digest)
    scheme = re.match(r"([a-z][a-z0-9+.-]*)://", context.source, re.IGNORECASE)
    if scheme:
        raise _unusable(
            context,
            f"{scheme[1]}:// is not known",
            "Use a directory, docker-image://, oci-layout://, https://, http:// or git://.",
        )
    return NamedContext(context.name, path=_directory(context, source / context.source))


def _directory(context: BuildContext, path: Path) -> Path:
    try:
        if not stat.S_ISDIR(path.stat().st_mode):
            raise _unusable(context, f"{show(path)} is not a directory", "")
        with os.scandir(path):
            pass
    except OSError as error:
        hint = "Mount the directory there; a relative path starts from PLP_SOURCE_PATH."
        raise _unusable(context, f"{show(path)}: {reason(error)}", hint) from None
    return Path(os.path.realpath(path))


def _unusable(context: BuildContext, text: str, hint: str) -> BuildContextNotUsable:
    return BuildContextNotUsable(f"the build context {show(context.name)}: {text}", hint=hint)


def _lower_scheme(source: str) -> str:
    scheme, separator, rest = source.partition("://")
    return scheme.lower() + separator + rest if separator else source


def _secret_problem(secret: Secret) -> str:
    if secret.path is None:
        return ""
    name = f"the secret {show(secret.id)}: {show(secret.path)}"
    try:
        status = secret.path.stat()
    except OSError as error:
        return f"{name}: {reason(error)}"
    if not stat.S_ISREG(status.st_mode):
        return f"{name} is not a regular file"
    if status.st_size > MAX_SECRET_SIZE:
        return f"{name} is larger than 500 KiB, which is BuildKit's limit"
    if not os.access(secret.path, os.R_OK):
        return f"{name} cannot be read by uid {os.geteuid()}"
    return ""


def _ssh_problem(ssh: Ssh) -> str:
    name = f"the SSH agent {show(ssh.id)}"
    kinds = set()
    for path in ssh.paths:
        try:
            mode = path.stat().st_mode
        except OSError as error:
            return f"{name}: {show(path)}: {reason(error)}"
        kinds.add("socket" if stat.S_ISSOCK(mode) else "key")
        if stat.S_ISREG(mode):
            problem = _key_problem(path)
        else:
            problem = "" if stat.S_ISSOCK(mode) else "is neither a socket nor a key file"
        if problem:
            return f"{name}: {show(path)} {problem}"
        if not os.access(path, os.R_OK if stat.S_ISREG(mode) else os.R_OK | os.W_OK):
            return f"{name}: {show(path)} cannot be opened by uid {os.geteuid()}"
    if "socket" in kinds and len(ssh.paths) > 1:
        return f"{name}: one socket or several keys, not both"
    return ""


def _key_problem(path: Path) -> str:
    try:
        with open_regular(path) as file:
            content = file.read(MAX_KEY_SIZE + 1)
    except OSError as error:
        return f"cannot be read ({reason(error)})"
    if len(content) > MAX_KEY_SIZE:
        return "is larger than 100 KiB, so it is no key"
    if b"PRIVATE KEY-----" not in content:
        is_public = content.startswith((b"ssh-", b"ecdsa-", b"sk-"))
        what = "is a public key" if is_public else "is no key"
        return f"{what}: a private key in PEM or OpenSSH format is needed"
    if _is_encrypted(content):
        return "is protected by a passphrase, which BuildKit cannot ask for: use an agent's socket"
    return ""


def _is_encrypted(content: bytes) -> bool:
    """PEM says it in words (RFC 1421, RFC 5958); OpenSSH in the first fields (PROTOCOL.key)."""
    if b"BEGIN ENCRYPTED PRIVATE KEY" in content or b"Proc-Type: 4,ENCRYPTED" in content:
        return True
    begin, end = b"-----BEGIN OPENSSH PRIVATE KEY-----", b"-----END"
    _, found, rest = content.partition(begin)
    if not found:
        return False
    import binascii

    try:
        blob = binascii.a2b_base64(rest.partition(end)[0])
    except binascii.Error:
        return False
    head, cipher = b"openssh-key-v1\0", b"\0\0\0\x04none"
    return blob.startswith(head) and not blob.startswith(head + cipher)


def _raise_all(failure: type[Failure], problems: list[str]) -> None:
    found = [problem for problem in problems if problem]
    if not found:
        return
    hint = {
        SecretNotUsable: "Mount the file there, or correct PLP_SECRETS.",
        SshNotUsable: "Mount the agent's socket or the key there, or correct PLP_SSH.",
    }[failure]
    raise failure(found[0], why=found[1:], hint=hint)
