"""What the words of skopeo mean: whether to try again, and how the failure is told if not.

The words are those of skopeo 1.9.3 and 1.18.0, met by answering every request of a push with every
fault. Names that a user or a registry chose stand in the middle of them (a repository may be called
``denied``), so only what follows a colon and a space, which no name holds, is looked at.
"""

from __future__ import annotations

import json
import re
from collections.abc import Sequence
from enum import Enum
from typing import NamedTuple

from plp_builder.errors import (
    ArchiveInvalid,
    AuthenticationFailed,
    DigestDiffers,
    Failure,
    PushFailed,
    RegistryNotReachable,
    RegistryRefused,
    RepositoryNotFound,
)
from plp_builder.terminal import shorten

SHOWN = 600
"""Characters of a registry's answer that are worth telling: some answer with a web page."""


class Kind(Enum):
    """What a fault is, as far as it matters for what to do next."""

    BUSY = "the registry asks for fewer requests"
    FAILING = "the registry has a problem of its own"
    CONNECTION = "the connection to the registry does not hold"
    STALLED = "nothing moves"
    DIFFERS = "the registry shows something else than was pushed"
    LOGIN = "the registry does not accept the user name, password or token"
    DENIED = "the registry does not allow this with these credentials"
    ABSENT = "the registry has no such manifest"
    REPOSITORY = "the registry has no such repository"
    NO_NAME = "the registry's host name is not known"
    CERTIFICATE = "the registry's certificate is not trusted"
    PLAIN_HTTP = "the registry does not speak TLS"
    NO_REGISTRY = "there is no registry"
    IMMUTABLE = "the registry does not let the tag be changed"
    REFUSED = "the registry refuses this"
    ARCHIVE = "the archive is not what it was"
    UNKNOWN = "skopeo failed"


PASSING = frozenset({Kind.BUSY, Kind.FAILING, Kind.CONNECTION, Kind.STALLED, Kind.DIFFERS})
"""Faults that may be gone at the next attempt."""


class Fault(NamedTuple):
    """Why skopeo ended without success; ``said`` is its own word for it, a line or two."""

    kind: Kind
    said: tuple[str, ...] = ()

    @property
    def passing(self) -> bool:
        """Whether to try again."""
        return self.kind in PASSING


_QUERY = re.compile(r"(?<=://)(?P<url>[^\s\"?]+)\?[^\s\"]*?(?=:?(?:[\s\"]|$))")
"""Of an upload's address: long, of no use to a reader, and with some registries signed."""
_MESSAGE = re.compile(r'level=fatal msg=("(?:[^"\\]|\\.)*")')
_STATUS = re.compile(
    r"(?:StatusCode: |status code from registry |HTTP status: |: (?=\d{3} \())([1-5]\d\d)\b"
)
_ABOUT_LOGIN = re.compile(
    r"unable to retrieve auth token|[Rr]equesting bearer token|: getting auth"
)
_NO_REGISTRY = re.compile(r"pinging container registry")
_IMMUTABLE = re.compile(
    r": (?:tag invalid|denied|unknown|unsupported|StatusCode: 4\d\d)[:,] "
    r".*(?i:immutable|cannot be overwritten|protected)"
)

# In this order, after what a status says. What distribution's error codes mean is in the
# distribution specification ("Error Codes"); skopeo writes them in lower case, with spaces.
_WORDS: tuple[tuple[Kind, re.Pattern[str]], ...] = tuple(
    (kind, re.compile(pattern))
    for kind, pattern in (
        (Kind.CERTIFICATE, r"x509: |tls: failed to verify|certificate is not (?:trusted|valid)"),
        (
            Kind.PLAIN_HTTP,
            r"tls: first record does not look like|server gave HTTP response to HTTPS",
        ),
        (Kind.ARCHIVE, r"Digest did not match|does not match provided manifest digest"),
        (Kind.ARCHIVE, r"Download config\.json digest \S+ does not match"),
        (Kind.NO_NAME, r": no such host"),
        (Kind.BUSY, r": toomanyrequests|: too many requests"),
        (Kind.LOGIN, r"invalid username/password|incorrect username or password"),
        (Kind.DENIED, r": (?:unauthorized|denied|no basic auth credentials)\b"),
        (Kind.DENIED, r": authentication required|: access forbidden"),
        (Kind.REPOSITORY, r": name unknown|: repository name not known"),
        (Kind.FAILING, r": (?:blob unknown|manifest blob unknown|blob upload \w+|unavailable)\b"),
        (Kind.FAILING, r": (?:digest invalid|size invalid)\b|no Location header|returned an empty"),
        (Kind.ABSENT, r": (?:manifest unknown|tag unknown|not found)\b"),
        (Kind.REFUSED, r": (?:name|manifest|tag) invalid\b|: unsupported\b"),
        (Kind.CONNECTION, r": EOF\b|unexpected EOF|connection re(?:set|fused)|broken pipe"),
        (Kind.CONNECTION, r"i/o timeout|timeout awaiting|handshake timeout|deadline exceeded"),
        (Kind.CONNECTION, r"Client\.Timeout exceeded|malformed HTTP|connection broken|http2: "),
        (Kind.CONNECTION, r"stream error|closed network connection|closed idle connection"),
        (Kind.CONNECTION, r"network is unreachable|no route to host|server misbehaving"),
        (Kind.CONNECTION, r"[Tt]emporary failure in name resolution|connection timed out"),
        (Kind.CONNECTION, r"remote error: tls|proxyconnect tcp: "),
        (Kind.FAILING, r": (?:Service Unavailable|Bad Gateway|Gateway Time-?[Oo]ut)$"),
    )
)


def classify(code: int, lines: Sequence[str]) -> Fault:
    """What went wrong, from skopeo's exit code and the lines of its standard error."""
    if code < 0:
        return Fault(Kind.UNKNOWN, (f"skopeo was ended by signal {-code}", *lines[-2:]))
    text = message(lines)
    said = shorten(_QUERY.sub(r"\g<url>", text), SHOWN)
    return Fault(_kind(text), (said,) if said else (f"exit code {code}",))


def message(lines: Sequence[str]) -> str:
    """skopeo's last word: the text of its fatal line, else its last line."""
    for line in reversed(lines):
        if found := _MESSAGE.search(line):
            return _unquoted(found[1])
    return next((line for line in reversed(lines) if line.strip()), "")


def _unquoted(text: str) -> str:
    """A string as Go's %q writes it, which is nearly JSON's way."""
    try:
        value = json.loads(text)
    except ValueError:
        return text[1:-1]
    return str(value)


def _kind(text: str) -> Kind:
    if found := _STATUS.search(text):
        kind = _by_status(int(found[1]), bool(_ABOUT_LOGIN.search(text)))
    else:
        kind = next((kind for kind, words in _WORDS if words.search(text)), Kind.UNKNOWN)
    if kind in {Kind.DENIED, Kind.REFUSED, Kind.UNKNOWN} and _IMMUTABLE.search(text):
        return Kind.IMMUTABLE
    if kind in {Kind.ABSENT, Kind.REPOSITORY} and _NO_REGISTRY.search(text):
        return Kind.NO_REGISTRY
    return kind


def _by_status(status: int, about_login: bool) -> Kind:
    if status == 429:
        return Kind.BUSY
    if status == 408 or status >= 500 or status < 400:
        return Kind.FAILING
    if status in {401, 403}:
        return Kind.LOGIN if about_login else Kind.DENIED
    return Kind.REPOSITORY if status == 404 and not about_login else Kind.REFUSED


_PERMISSION = "Check that these credentials may push to this repository, and that they are current."
_NO_CREDENTIALS = (
    "No credentials were given: set PLP_REGISTRY_USERNAME and PLP_REGISTRY_PASSWORD, "
    "PLP_REGISTRY_TOKEN, DOCKER_CONFIG or REGISTRY_AUTH_FILE."
)
_CLASSES: dict[Kind, tuple[type[Failure], str | None]] = {
    Kind.BUSY: (PushFailed, "Publish again later, or raise PLP_PUSH_RETRIES."),
    Kind.FAILING: (PushFailed, "Look at the registry's state, and publish again."),
    Kind.CONNECTION: (
        RegistryNotReachable,
        "Check the registry's name and port, the network, and HTTPS_PROXY and NO_PROXY.",
    ),
    Kind.STALLED: (
        RegistryNotReachable,
        "Check the network and the registry, or raise PLP_STALL_TIMEOUT.",
    ),
    Kind.DIFFERS: (DigestDiffers, "Another job may push the same tag at the same time."),
    Kind.LOGIN: (AuthenticationFailed, None),
    Kind.DENIED: (AuthenticationFailed, None),
    Kind.ABSENT: (PushFailed, None),
    Kind.REPOSITORY: (
        RepositoryNotFound,
        "Create the repository, or correct PLP_IMAGE_REPOSITORY.",
    ),
    Kind.NO_NAME: (RegistryNotReachable, "Correct the registry in PLP_IMAGE_REPOSITORY."),
    Kind.CERTIFICATE: (
        RegistryNotReachable,
        "Give the CA that signed it in PLP_REGISTRY_CA_PATH; for a test registry, "
        "PLP_REGISTRY_INSECURE=true goes without.",
    ),
    Kind.PLAIN_HTTP: (
        RegistryNotReachable,
        "If this registry is meant to be used without TLS, set PLP_REGISTRY_INSECURE=true.",
    ),
    Kind.NO_REGISTRY: (RegistryNotReachable, "Correct the registry in PLP_IMAGE_REPOSITORY."),
    Kind.IMMUTABLE: (
        RegistryRefused,
        "A tag of this name exists and the registry keeps it as it is: publish under another one.",
    ),
    Kind.REFUSED: (RegistryRefused, "Read what the registry says above."),
    Kind.ARCHIVE: (ArchiveInvalid, "Nothing may write to the archive while it is published."),
    Kind.UNKNOWN: (PushFailed, None),
}


def failure(fault: Fault, doing: str, attempts: int, origin: str) -> Failure:
    """The fault as a failure: ``doing`` says what could not be done (``push tag 1.2``).

    ``origin`` is where the credentials come from, empty if there are none.
    """
    kind, hint = _CLASSES[fault.kind]
    if kind is AuthenticationFailed:
        hint = _PERMISSION if origin else _NO_CREDENTIALS
    times = f", after {attempts} attempts" if attempts > 1 else ""
    why = [*fault.said]
    if kind is AuthenticationFailed and origin:
        why.append(f"credentials: {origin}")
    return kind(f"could not {doing}: {fault.kind.value}{times}", why=why, hint=hint)
