"""The names of variables: ours, those of other tools, those of later versions and of the sibling.

A field of ``Settings`` bears its variable's name in lower case without ``PLP_``.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from typing import Final

# Names that other tools have given.
_OWN_NAMES: Final = {
    "git_repository_url": "GIT_REPOSITORY_URL",
    "git_sha": "GIT_SHA",
    "source_date_epoch": "SOURCE_DATE_EPOCH",
}
ALIASES: Final[Mapping[str, str]] = {"PLP_BUILDKITD_FLAGS": "BUILDKITD_FLAGS"}

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

_PUBLISHER: Final = frozenset(
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
        "PLP_TAG",
    )
)
"""Variables of the sibling image, which one CI job often sets beside ours."""

_MEANT: Final = {"PLP_TAGS": "PLP_IMAGE"}
"""Names that suggest themselves, but look like others."""


def variable_name(field: str) -> str:
    """The variable behind a field of ``Settings``."""
    return _OWN_NAMES.get(field) or f"PLP_{field.upper()}"


def given_name(field: str, environ: Mapping[str, str]) -> str:
    """The name under which ``environ`` gives the field: the variable's own, or its alias."""
    name = variable_name(field)
    return ALIASES.get(name, name) if not environ.get(name) else name


def not_implemented(environ: Mapping[str, str]) -> list[str]:
    """A sentence for each variable of a later version that asks for something."""
    return [
        f"{name} is not implemented in this version"
        for name, harmless in NOT_IMPLEMENTED.items()
        if environ.get(name, "").strip().lower() not in {"", *harmless}
    ]


def differing_aliases(environ: Mapping[str, str]) -> list[str]:
    """A sentence for each variable that is given under two names with two values."""
    return [
        f"{name} and {alias} are both set, and differ; set one of them"
        for name, alias in ALIASES.items()
        if environ.get(name) and environ.get(alias) and environ[name] != environ[alias]
    ]


def unknown(environ: Mapping[str, str], known: Iterable[str]) -> tuple[str, ...]:
    """A sentence for each PLP_ variable that no program of this project knows."""
    names = {*known, *NOT_IMPLEMENTED}
    strange = [name for name in sorted(environ) if name.startswith("PLP_")]
    strange = [name for name in strange if name not in names and name not in _PUBLISHER]
    if not strange:
        return ()
    from difflib import get_close_matches

    sentences = []
    for name in strange:
        meant = _MEANT.get(name)
        near = [meant] if meant else get_close_matches(name, sorted(names), n=1, cutoff=0.75)
        question = f"; did you mean {near[0]}?" if near else ""
        sentences.append(f"{ascii(name)[1:-1]} is unknown{question}")
    return tuple(sentences)
