"""Image references: ``registry/repository:tag@digest``.

The grammar is the one of github.com/distribution/reference (v0.6), which Docker, BuildKit and
registries use, with Docker's familiar names: ``alpine`` is ``docker.io/library/alpine``.
"""

from __future__ import annotations

import re

from plp_builder.oci.model import Digest
from plp_builder.tuples import NamedTuple

DEFAULT_REGISTRY = "docker.io"
MAX_REPOSITORY_LENGTH = 255

_LEGACY_DEFAULT_REGISTRY = "index.docker.io"
_HOST_LABEL = r"(?:[a-zA-Z0-9](?:[a-zA-Z0-9-]*[a-zA-Z0-9])?)"
_REGISTRY = re.compile(rf"(?:{_HOST_LABEL}(?:\.{_HOST_LABEL})*|\[[a-fA-F0-9:]+\])(?::[0-9]+)?")
_PATH_COMPONENT = re.compile(r"[a-z0-9]+(?:(?:[._]|__|-+)[a-z0-9]+)*")
_TAG = re.compile(r"[A-Za-z0-9_][A-Za-z0-9_.-]{0,127}")
_IDENTIFIER = re.compile(r"[a-f0-9]{64}")


class Reference(NamedTuple):
    """A parsed reference; an absent tag or digest is "". ``str()`` is the canonical form."""

    registry: str
    repository: str
    tag: str = ""
    digest: str = ""

    @property
    def name(self) -> str:
        """``registry/repository``: what a tag or digest is looked up in."""
        return f"{self.registry}/{self.repository}"

    def __str__(self) -> str:
        tag = f":{self.tag}" if self.tag else ""
        digest = f"@{self.digest}" if self.digest else ""
        return f"{self.name}{tag}{digest}"

    @property
    def familiar(self) -> str:
        """As Docker shows it and manifest.json's RepoTags hold it: ``alpine:3``."""
        text = str(self).removeprefix(f"{DEFAULT_REGISTRY}/")
        short = text.removeprefix("library/")
        return text if "/" in short else short

    def with_default_tag(self) -> Reference:
        """The same reference; ``latest`` where there is neither tag nor digest."""
        return self if self.tag or self.digest else self._replace(tag="latest")


def parse(text: str) -> Reference:
    """The reference that ``text`` means, with familiar names completed.

    Raises ValueError with a sentence that says which part is wrong and what is accepted.
    """
    if not text:
        raise ValueError("an image reference cannot be empty")
    if _IDENTIFIER.fullmatch(text):
        raise ValueError("64 hexadecimal digits are an image's id, not a reference to it")
    rest, at, digest = text.partition("@")
    if at:
        digest = _digest(digest)
    registry, rest = _split_registry(rest)
    repository, colon, tag = rest.partition(":")
    if colon and not is_tag(tag):
        raise ValueError(
            f"the tag {tag!r} is not valid: 1 to 128 letters, digits, '_', '.' or '-', "
            "not beginning with '.' or '-'"
        )
    _check_registry(registry)
    _check_repository(repository)
    if registry == DEFAULT_REGISTRY and "/" not in repository:
        repository = f"library/{repository}"
    return Reference(registry, repository, tag, digest)


def is_tag(text: str) -> bool:
    """Whether ``text`` is a legal tag by itself."""
    return _TAG.fullmatch(text) is not None


def is_registry(text: str) -> bool:
    """Whether ``text`` is a legal registry: a host name or address, with a port if wanted."""
    return _REGISTRY.fullmatch(text) is not None


def _split_registry(name: str) -> tuple[str, str]:
    """Docker's rule: a first part is a registry if it cannot be a part of a repository."""
    first, slash, rest = name.partition("/")
    is_host = first == "localhost" or any(c in ".:" for c in first) or first.lower() != first
    if not slash or not is_host:
        return DEFAULT_REGISTRY, name
    if first == _LEGACY_DEFAULT_REGISTRY:
        return DEFAULT_REGISTRY, rest
    return first, rest


def _digest(text: str) -> str:
    try:
        return Digest(text)
    except ValueError as error:
        raise ValueError(f"the digest of an image reference is not valid: {error}") from None


def _check_registry(registry: str) -> None:
    if not is_registry(registry):
        raise ValueError(f"the registry {registry!r} is not a host name or address, like host:5000")


def _check_repository(repository: str) -> None:
    if repository.lower() != repository:
        raise ValueError(f"the repository {repository!r} must be in lower case")
    if not all(_PATH_COMPONENT.fullmatch(part) for part in repository.split("/")):
        raise ValueError(
            f"the repository {repository!r} is not valid: lower-case letters and digits, "
            "separated by '/', '.', '_', '__' or dashes"
        )
    if len(repository) > MAX_REPOSITORY_LENGTH:
        raise ValueError(f"the repository is longer than {MAX_REPOSITORY_LENGTH} characters")
