"""The names of variables: ours, those of other tools, those of later versions and of the sibling.

A field of ``Settings`` bears its variable's name in lower case without ``PLP_``.
"""

from __future__ import annotations

import re
from collections.abc import Iterable, Iterator, Mapping
from typing import TYPE_CHECKING

from plp_builder import naming

if TYPE_CHECKING:
    from typing import Final

NAMES: Final = naming.Names(
    own={
        "git_repository_url": "GIT_REPOSITORY_URL",
        "git_sha": "GIT_SHA",
        "source_date_epoch": "SOURCE_DATE_EPOCH",
    },
    aliases={"PLP_BUILDKITD_FLAGS": "BUILDKITD_FLAGS"},
)
ALIASES: Final = NAMES.aliases

_OFF: Final = ("off", "false", "0", "no")
NOT_IMPLEMENTED: Final[Mapping[str, tuple[str, ...]]] = {
    "PLP_PROVENANCE": _OFF,
    "PLP_SBOM": _OFF,
    "PLP_CACHE_FROM": (),
    "PLP_CACHE_TO": (),
    "PLP_CACHE_INLINE": _OFF,
    "PLP_BUILDKIT_ADDRESS": (),
    "PLP_BUILDKIT_TLS_PATH": (),
    "PLP_RESULT_FILE": (),
    "PLP_REPORT_FILE": (),
}
"""Variables of the contract for later versions, with the values that ask for nothing."""

OF_PUBLISHER: Final = frozenset(
    (
        "PLP_ARTIFACT_PATH",
        "PLP_BRANCH",
        "PLP_COMMIT_SHA",
        "PLP_DRY_RUN",
        "PLP_EXTRA_TAGS",
        "PLP_IMAGE_REPOSITORY",
        "PLP_IS_DEFAULT_BRANCH",
        "PLP_MERGE_REQUEST_NUMBER",
        "PLP_PULL_REQUEST_NUMBER",
        "PLP_PUSH_RETRIES",
        "PLP_REGISTRY_CA_PATH",
        "PLP_REGISTRY_INSECURE",
        "PLP_REGISTRY_PASSWORD",
        "PLP_REGISTRY_TOKEN",
        "PLP_REGISTRY_USERNAME",
        "PLP_RESULT_IMAGE_DIGEST_FILE",
        "PLP_RESULT_IMAGE_URL_FILE",
        "PLP_STALL_TIMEOUT",
        "PLP_TAG",
    )
)
"""Variables of the sibling image, which one CI job often sets beside ours."""

_TEXTS: Final = frozenset(
    {"PLP_SOURCE_PATH", "PLP_BUILD_PATH", "PLP_CACHE_PATH", "PLP_CONTEXT", "PLP_DOCKERFILE"}
    | {"GIT_REPOSITORY_URL", "GIT_SHA"}
)
_WORDS: Final = {
    "PLP_CACHE_STRATEGY": ("auto", "state", "portable", "off"),
    "PLP_LOG_FORMAT": ("console", "json"),
    "PLP_LOG_LEVEL": ("debug", "info", "warning", "error"),
    "PLP_PROGRESS": ("auto", "plain", "quiet", "rawjson"),
}
_IMAGE: Final = "PLP_IMAGE"
_PART: Final = "[a-z0-9]+(?:[.-][a-z0-9]+)*"
SIMPLE_IMAGE: Final = rf"(?=.{{1,63}}$){_PART}(?:/{_PART}){{0,3}}(?::\w[\w.-]*)?"
"""Some of the names that are accepted, those that most projects have: an ASCII pattern."""
_PLAIN_LENGTH: Final = 1000
TAKEN_OR_REFUSED: Final = frozenset(
    {"PLP_BUILD_ARGS", "PLP_LABELS", "PLP_TARGET", "PLP_PLATFORMS"}
    | {"PLP_REGISTRY_MIRRORS", "PLP_INSECURE_REGISTRIES"}
)
"""Variables of which nothing but the text's own parser, and its encoding, says what is wrong."""
_WITHOUT_PREFIX: Final = frozenset({*NAMES.own.values(), *NAMES.aliases.values()})

_MEANT: Final = {"PLP_TAGS": "PLP_IMAGE"}
"""Names that suggest themselves, but look like others."""


def is_plain(environ: Mapping[str, str]) -> bool:
    """Whether nothing is set but what asks nothing of the daemon and in which nothing can be wrong.

    Where the daemon keeps its state depends on two of them, PLP_CACHE_PATH and PLP_CACHE_STRATEGY.
    """
    return all(_is_plain(name, text) for name, text in _ours(environ))


def is_simple(environ: Mapping[str, str]) -> bool:
    """Whether nothing is set but what is plain, or ASCII that its parser takes or refuses."""
    return all(
        (name in TAKEN_OR_REFUSED and text.isascii()) or _is_plain(name, text)
        for name, text in _ours(environ)
    )


def _ours(environ: Mapping[str, str]) -> Iterator[tuple[str, str]]:
    """The variables that are set and may be the builder's."""
    for name, text in environ.items():
        has_name = name.startswith(naming.PREFIX) or name in _WITHOUT_PREFIX
        if text and has_name and name not in OF_PUBLISHER:
            yield name, text


def _is_plain(name: str, text: str) -> bool:
    if name in _TEXTS:
        return len(text) <= _PLAIN_LENGTH and text.isprintable()
    if name == _IMAGE:
        return re.fullmatch(SIMPLE_IMAGE, text, re.ASCII) is not None
    return text in _WORDS.get(name, ())


def not_implemented(environ: Mapping[str, str]) -> list[str]:
    """A sentence for each variable of a later version that asks for something."""
    return [
        f"{name} is not implemented in this version"
        for name, harmless in NOT_IMPLEMENTED.items()
        if environ.get(name, "").strip().lower() not in {"", *harmless}
    ]


def unknown(environ: Mapping[str, str], known: Iterable[str]) -> tuple[str, ...]:
    """A sentence for each PLP_ variable that no program of this project knows."""
    return naming.unknown(environ, {*known, *NOT_IMPLEMENTED}, OF_PUBLISHER, _MEANT)
