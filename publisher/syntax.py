"""The syntax of single variables: text in, value out, or ``Refused`` with what is accepted.

A text that is blank means what an empty one does: not set.
"""

from __future__ import annotations

import re
from pathlib import Path

from plp_builder.oci import reference
from plp_builder.values import Refused, control_character, parse_items, shown

_COMMIT = re.compile(r"[0-9a-fA-F]{7,64}")
_NUMBER = re.compile(r"[0-9]{1,18}")
_SCHEME = re.compile(r"[a-zA-Z][a-zA-Z0-9+.-]*://")
_HOST_ALONE = re.compile(r"(?:localhost|[^/:]*\.[^/:]*)(?::[0-9]+)?")
_USER_INFO = re.compile(r"[^/]*@(?![a-z0-9]+:[0-9a-fA-F]{32})")


def parse_repository(text: str) -> str:
    """``registry/name``, complete: ``me/app`` is ``docker.io/me/app``.

    What people paste beside it (a scheme, a tag, a digest, upper case) is refused with the
    corrected name: silently dropped, it would be missed.
    """
    given = text.strip()
    if not given:
        return ""
    name = _SCHEME.sub("", given, count=1)
    if _USER_INFO.match(name):
        raise Refused(
            "holds what looks like a user name or a password; give those to "
            "PLP_REGISTRY_USERNAME and PLP_REGISTRY_PASSWORD"
        )
    if _HOST_ALONE.fullmatch(name.rstrip("/")):
        example = shown(f"{name.rstrip('/').lower()}/NAME")
        raise Refused(f"{shown(given)} is a registry alone; add a name: {example}")
    superfluous = ["a scheme"] if name != given else []
    if name.endswith("/"):
        superfluous.append("a slash at its end")
    name, more = _bare(name.rstrip("/"))
    superfluous += more
    try:
        complete = reference.parse(name).name
    except ValueError as error:
        raise Refused(f"{shown(given)} is no repository: {error}") from None
    if superfluous:
        raise Refused(f"{shown(given)} has {' and '.join(superfluous)}; use {name}")
    return complete


def _bare(name: str) -> tuple[str, list[str]]:
    """``name`` without tag and digest, in lower case, and what of these it had."""
    superfluous = []
    repository, at, _ = name.partition("@")
    parent, slash, last = repository.rpartition("/")
    last, colon, _ = last.partition(":")
    if colon:
        superfluous.append("a tag")
    if at:
        superfluous.append("a digest")
    repository = parent + slash + last
    if repository != repository.lower():
        superfluous.append("upper-case letters")
    return repository.lower(), superfluous


def parse_commit(text: str) -> str:
    """A commit's id, in lower case, whole or shortened: 7 to 64 hexadecimal digits."""
    given = text.strip()
    if given and not _COMMIT.fullmatch(given):
        raise Refused(f"{shown(text)} is no commit; use its 7 to 64 hexadecimal digits")
    return given.lower()


def parse_branch(text: str) -> str:
    """The name of a branch; ``refs/heads/`` is taken off."""
    return text.strip().removeprefix("refs/heads/")


def parse_tag(text: str) -> str:
    """The name of a git tag; ``refs/tags/`` is taken off, and other references are refused."""
    tag = text.strip().removeprefix("refs/tags/")
    if tag.startswith("refs/"):
        raise Refused(f"{shown(text)} is no tag; set it for tags alone, to the tag's name")
    return tag


def parse_number(text: str) -> int | None:
    """A pull request's number; None for ``false``, which Buildkite gives where there is none."""
    given = text.strip()
    if given.lower() in {"", "false"}:
        return None
    if not _NUMBER.fullmatch(given) or int(given) == 0:
        raise Refused(f"{shown(text)} is no number of a pull request; use 1, 2, 3 …")
    return int(given)


def parse_extra_tags(text: str) -> tuple[str, ...]:
    """Tags by comma or line, each once."""
    return tuple(dict.fromkeys(parse_items(text.replace("\r\n", "\n"))))


def parse_username(text: str) -> str:
    """A user's name as HTTP's Basic scheme can send it (RFC 7617): without colon and controls."""
    name = text.strip()
    if ":" in name:
        raise Refused("holds a colon, which no user name at a registry can; give the name alone")
    return _without_controls(name)


def parse_password(text: str) -> str:
    """A password or token; an end of line behind it, as files have, is taken off."""
    return _without_controls(text.rstrip("\r\n"))


def _without_controls(text: str) -> str:
    if control_character(text):
        raise Refused("holds a control character, which cannot be sent; check how it is set")
    return text


def parse_path(text: str) -> Path:
    """A path; a NUL, which no path can hold, is refused."""
    if "\0" in text:
        raise Refused(f"{shown(text)} is no path")
    return Path(text)
