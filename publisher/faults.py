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

from plp_builder import log
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
    NO_CONNECTION = "there is no connection to the registry"
    CONNECTION = "the connection to the registry does not hold"
    STALLED = "nothing moves"
    DIFFERS = "the registry shows something else than was pushed"
    MOVED = "another publication has moved it meanwhile"
    LOGIN = "the registry does not accept the user name, password or token"
    DENIED = "the registry does not allow this with these credentials"
    ABSENT = "the registry has no such manifest"
    REPOSITORY = "the registry has no such repository"
    NO_NAME = "the registry's host name is not known"
    CERTIFICATE = "the registry's certificate is not trusted"
    EXPIRED = "the registry's certificate is not valid at this time"
    OTHER_NAME = "the registry's certificate is for another name"
    PLAIN_HTTP = "the registry does not speak TLS"
    NO_REGISTRY = "there is no registry"
    IMMUTABLE = "the registry does not let the tag be changed"
    REFUSED = "the registry refuses this"
    ARCHIVE = "the archive is not what it was"
    UNKNOWN = "skopeo failed"


PASSING = frozenset(
    {Kind.BUSY, Kind.FAILING, Kind.NO_CONNECTION, Kind.CONNECTION, Kind.STALLED, Kind.DIFFERS}
)
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
_LEAD = re.compile(
    r'^(?:time="[^"]*" level=\w+ (?:msg=)?)?'
    r'(?:Error parsing image name "[^"]*": |trying to reuse blob \S+ at destination: )*'
)
"""What skopeo says first and does not help: the name of the image is as it should be."""
_DIGEST = re.compile(r"\b(?P<short>sha256:[0-9a-f]{12})[0-9a-f]{52}\b")
_DIAL = re.compile(
    r'pinging container registry (?P<host>\S+): \w+ "[^"]*": (?P<proxy>proxyconnect tcp: )?'
    r"dial tcp(?: (?P<address>\S+))?: (?:lookup (?P<name>\S+)(?: on \S+)?: )?"
    r"(?:connect: )?(?P<reason>.+)"
)
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
        (Kind.EXPIRED, r"x509: certificate has expired or is not yet valid"),
        (Kind.OTHER_NAME, r"x509: certificate is (?:not )?valid for |x509: cannot validate cert"),
        (Kind.OTHER_NAME, r"x509: certificate relies on legacy Common Name"),
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
        # A status that skopeo does not tell, with the error code UNKNOWN: a time-out (408), say.
        (Kind.FAILING, r": unknown: unknown(?: error)?$"),
        (Kind.ABSENT, r": (?:manifest unknown|tag unknown|not found)\b"),
        (Kind.REFUSED, r": (?:name|manifest|tag) invalid\b|: unsupported\b"),
        (Kind.NO_CONNECTION, r": dial tcp\b"),
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
        last = (shorten(log.hide(line), SHOWN) for line in lines[-2:])
        return Fault(Kind.UNKNOWN, (f"skopeo was ended by signal {-code}", *last))
    text = message(lines)
    # Before anything is cut: half a password is no longer known for one.
    said = shorten(_readable(log.hide(text)), SHOWN)
    return Fault(_kind(text), (said,) if said else (f"exit code {code}",))


def message(lines: Sequence[str]) -> str:
    """skopeo's last word: the text of its fatal line, else its last line."""
    for line in reversed(lines):
        if found := _MESSAGE.search(line):
            return _unquoted(found[1])
    return next((line for line in reversed(lines) if line.strip()), "")


def _readable(text: str) -> str:
    """What skopeo says, without what only gets in the way of reading it."""
    text = _LEAD.sub("", text)
    if found := _DIAL.fullmatch(text):
        return _no_connection(found)
    return _DIGEST.sub(r"\g<short>…", _QUERY.sub(r"\g<url>", text))


def _no_connection(found: re.Match[str]) -> str:
    host, address, name = found["host"], found["address"], found["name"]
    to = "the proxy" if found["proxy"] else host
    if (address or name or host) not in {host, host.partition(":")[0]}:
        to += f" ({address or name})"
    return f"no connection to {to}: {found['reason']}"


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
_GIVE = (
    "Set PLP_REGISTRY_USERNAME and PLP_REGISTRY_PASSWORD, PLP_REGISTRY_TOKEN, DOCKER_CONFIG or "
    "REGISTRY_AUTH_FILE."
)
_ADD = (
    "Add an entry for the registry there, or set PLP_REGISTRY_USERNAME and PLP_REGISTRY_PASSWORD, "
    "or PLP_REGISTRY_TOKEN."
)
_RISK = (
    "For a test registry only, PLP_REGISTRY_INSECURE=true goes without: whoever is in between can "
    "then read the password and change the image."
)
_CLASSES: dict[Kind, tuple[type[Failure], str | None]] = {
    Kind.BUSY: (PushFailed, "Publish again later, or raise PLP_PUSH_RETRIES."),
    Kind.FAILING: (PushFailed, "Look at the registry's state, and publish again."),
    Kind.NO_CONNECTION: (
        RegistryNotReachable,
        "Check that the registry runs, its name and port in PLP_IMAGE_REPOSITORY, the network, and "
        "HTTPS_PROXY and NO_PROXY.",
    ),
    Kind.CONNECTION: (
        RegistryNotReachable,
        "Check the registry's name and port, the network, and HTTPS_PROXY and NO_PROXY.",
    ),
    Kind.STALLED: (
        RegistryNotReachable,
        "Check the network and the registry, or raise PLP_STALL_TIMEOUT.",
    ),
    Kind.DIFFERS: (DigestDiffers, "Another job may push the same tag at the same time."),
    Kind.MOVED: (
        DigestDiffers,
        "If this image is the newer one, publish it again; else the tag is where it belongs.",
    ),
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
        f"Give the certificate of the CA that signed it in PLP_REGISTRY_CA_PATH. {_RISK}",
    ),
    Kind.EXPIRED: (
        RegistryNotReachable,
        f"Renew the registry's certificate, or set this machine's clock right. {_RISK}",
    ),
    Kind.OTHER_NAME: (
        RegistryNotReachable,
        "Use a name in PLP_IMAGE_REPOSITORY that is in the certificate, or have this one added to "
        f"it. {_RISK}",
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


def failure(
    fault: Fault, doing: str, attempts: int, origin: str, looked: Sequence[str] = ()
) -> Failure:
    """The fault as a failure: ``doing`` says what could not be done (``push tag 1.2``).

    ``origin`` is where the credentials come from. Where it is empty there are none, and ``looked``
    has a sentence for each place where they were looked for.
    """
    kind, hint = _CLASSES[fault.kind]
    reason, why = fault.kind.value, [*fault.said]
    if kind is AuthenticationFailed and origin:
        why.append(f"credentials: {origin}")
        hint = _PERMISSION
    elif kind is AuthenticationFailed:
        reason = "the registry does not allow this without credentials"
        why += looked or ["no credentials were given"]
        hint = _ADD if looked else _GIVE
    times = f", after {attempts} attempts" if attempts > 1 else ""
    return kind(f"could not {doing}: {reason}{times}", why=why, hint=hint)
