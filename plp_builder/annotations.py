"""The annotations that every image gets: where its source is, which revision, made when."""

from __future__ import annotations

import re
from datetime import UTC, datetime
from typing import TYPE_CHECKING

from plp_builder.values import KeyValue

if TYPE_CHECKING:
    from plp_builder.settings import Settings

SOURCE = "org.opencontainers.image.source"
REVISION = "org.opencontainers.image.revision"
CREATED = "org.opencontainers.image.created"

_CREDENTIAL = re.compile(
    r"token|secret|passw|pwd|credential|signature|jwt|oauth|authorization|api-?_?key"
    r"|private-?_?key|^(auth|key|sig|pat)$",
    re.IGNORECASE,
)


def image_annotations(settings: Settings, now: datetime) -> tuple[KeyValue, ...]:
    """Source, revision and creation time, then what the user gave; the user's value wins.

    Keys: OCI image-spec, annotations.md. ``created`` is SOURCE_DATE_EPOCH when that is set,
    else ``now``, in UTC and RFC 3339 without fractions.
    """
    created = now.astimezone(UTC)
    if settings.source_date_epoch is not None:
        created = datetime.fromtimestamp(settings.source_date_epoch, UTC)
    ours = (
        KeyValue(SOURCE, public_url(settings.git_repository_url)),
        KeyValue(REVISION, settings.git_sha),
        KeyValue(CREATED, created.strftime("%Y-%m-%dT%H:%M:%SZ").zfill(20)),
    )
    given = {annotation.key for annotation in settings.annotations}
    kept = tuple(pair for pair in ours if pair.value and pair.key not in given)
    return kept + settings.annotations


def public_url(url: str) -> str:
    """``url`` without user info and without credentials among its query parameters.

    `git@host:path` (scp-like, gitremote syntax) keeps its user, which is no secret there.
    """
    scheme, separator, rest = url.strip().partition("://")
    if not separator:
        return _without_credentials(_scp_like(scheme))
    end = re.search(r"[/?#\\]|$", rest)
    authority_end = end.start() if end else len(rest)
    authority, tail = rest[:authority_end], rest[authority_end:]
    if "@" in tail and not re.fullmatch(r"(\[[^]]*\]|[^:@]+)(:\d+)?", authority):
        # User info with a `/`, `?` or `#` in it: that is no valid URL, but no host either has
        # repositories with an @ in their path, and a password must not end up in an image.
        authority, tail = "", tail.rpartition("@")[2]
    authority = authority.rpartition("@")[2]
    return f"{scheme}://{authority}{_without_credentials(tail)}"


def _scp_like(url: str) -> str:
    user, at, rest = url.partition("@")
    return rest if at and ":" in user and "/" not in user.partition(":")[0] else url


def _without_credentials(tail: str) -> str:
    tail, mark, fragment = tail.partition("#")
    path, question, query = tail.partition("?")
    if question:
        parameters = [part for part in query.split("&") if not _is_credential(part)]
        query = "&".join(parameters)
        path = f"{path}?{query}" if query else path
    if mark and not _is_credential(fragment):
        path = f"{path}#{fragment}"
    return path


def _is_credential(parameter: str) -> bool:
    name, equals, _ = parameter.partition("=")
    return bool(equals) and _CREDENTIAL.search(name) is not None
