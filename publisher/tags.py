"""Settings → the tags that the image gets, in the order in which they are pushed.

| given | immutable | moving |
|---|---|---|
| branch | ``{branch}-{sha7}`` | ``{branch}``; ``latest`` for the default branch |
| pull request | ``pr-{n}-{sha7}`` | ``pr-{n}`` |
| tag ``v1.2.3`` | ``1.2.3`` | ``1.2``, ``1``; not for a pre-release |
| another tag | the tag itself | |
| none of these | ``{sha7}``, the commit | |
| extra tags | | as they are |

What is pushed first can be relied on when something moves to it: immutable tags come before moving
ones, and ``latest`` is the last. What a tag may look like is distribution-spec's, "Pulling
manifests": every other character becomes ``-``.
"""

from __future__ import annotations

import re
from collections.abc import Iterator
from typing import NamedTuple

from plp_builder.errors import SettingInvalid
from plp_builder.values import shown
from publisher.names import NAMES
from publisher.settings import Settings

LATEST = "latest"
MAX_LENGTH = 128
_SHORT = 7

_ILLEGAL = re.compile(r"[^A-Za-z0-9_.-]")
_NUMBER = r"(?:0|[1-9][0-9]*)"
_IDENTIFIER = rf"(?:{_NUMBER}|[0-9]*[A-Za-z-][0-9A-Za-z-]*)"
# Semantic Versioning 2.0.0, §§ 2, 9 and 10; the v before it is git's custom.
_VERSION = re.compile(
    rf"v?(?P<major>{_NUMBER})\.(?P<minor>{_NUMBER})\.{_NUMBER}"
    rf"(?P<pre>-{_IDENTIFIER}(?:\.{_IDENTIFIER})*)?(?:\+[0-9A-Za-z-]+(?:\.[0-9A-Za-z-]+)*)?"
)


class Tag(NamedTuple):
    """A tag; ``moving`` if later runs give it to other images. ``origins`` names variables."""

    name: str
    moving: bool
    origins: tuple[str, ...]


class Plan(NamedTuple):
    """The tags in the order of pushing, and a sentence for everything that is not as given."""

    tags: tuple[Tag, ...]
    notes: tuple[str, ...]


class _Wish(NamedTuple):
    """What a variable asks for: ``{text}{suffix}``; the suffix is ours and stays whole."""

    text: str
    moving: bool
    field: str
    suffix: str = ""


def plan(settings: Settings) -> Plan:
    """The tags that the image gets.

    Raises SettingInvalid when nothing that is given makes a legal tag.
    """
    notes = _ignored(settings)
    tags: dict[str, Tag] = {}
    for wish in _wishes(settings):
        name = _legal(wish.text, wish.suffix)
        origin = NAMES.variable(wish.field)
        _note(notes, wish, name, origin)
        if not name:
            continue
        before = tags.get(name)
        tags[name] = Tag(name, wish.moving or name == LATEST, (origin,))
        if before:
            moving = (before.moving and wish.moving) or name == LATEST
            tags[name] = Tag(name, moving, tuple(dict.fromkeys((*before.origins, origin))))
            if origin not in before.origins:
                others = " and ".join(before.origins)
                notes.append(f"{origin} makes the tag {name}, and so does {others}: it is one tag")
            elif wish.field == "extra_tags":
                notes.append(f"{origin} makes the tag {name} more than once: it is one tag")
    if not tags:
        raise SettingInvalid(
            "no tag is left to push",
            why=notes,
            hint="A tag has letters of ASCII, digits, '_', '.' and '-': set PLP_COMMIT_SHA, or "
            "name a tag in PLP_EXTRA_TAGS.",
        )
    ordered = sorted(tags.values(), key=lambda tag: (tag.name == LATEST, tag.moving))
    return Plan(tuple(ordered), tuple(dict.fromkeys(notes)))


def _wishes(settings: Settings) -> Iterator[_Wish]:
    """Every tag that the settings ask for, as the table above has it."""
    suffix = f"-{settings.commit_sha[:_SHORT]}" if settings.commit_sha else ""
    if settings.pull_request_number is not None:
        yield from _source(f"pr-{settings.pull_request_number}", suffix, "pull_request_number")
    else:
        if settings.tag:
            yield from _of_tag(settings.tag)
        if settings.branch:
            yield from _source(settings.branch, suffix, "branch")
            if settings.is_default_branch:
                yield _Wish(LATEST, True, "is_default_branch")
        if not settings.tag and not settings.branch:
            yield _Wish(settings.commit_sha[:_SHORT], False, "commit_sha")
            yield _Wish(settings.commit_sha, False, "commit_sha")
    for extra in settings.extra_tags:
        yield _Wish(extra, True, "extra_tags")


def _source(text: str, suffix: str, field: str) -> Iterator[_Wish]:
    yield _Wish(text, True, field)
    if suffix:
        yield _Wish(text, False, field, suffix)


def _of_tag(tag: str) -> Iterator[_Wish]:
    version = _VERSION.fullmatch(tag)
    if version is None:
        yield _Wish(tag, False, "tag")
        return
    yield _Wish(tag.removeprefix("v"), False, "tag")
    if not version["pre"]:
        yield _Wish(f"{version['major']}.{version['minor']}", True, "tag")
        yield _Wish(version["major"], True, "tag")


def _legal(text: str, suffix: str) -> str:
    """``text`` as a tag that ends with ``suffix``; without the suffix "" if nothing is left."""
    name = _ILLEGAL.sub("-", text).lstrip(".-")[: MAX_LENGTH - len(suffix)]
    return name + suffix if name else suffix.lstrip("-")


def _note(notes: list[str], wish: _Wish, name: str, origin: str) -> None:
    """Tell what became of a text; of one that makes two tags, once."""
    given = f"{origin} {shown(wish.text)}"
    if wish.suffix:
        if len(wish.text) <= MAX_LENGTH < len(wish.text + wish.suffix):
            notes.append(f"{given} is shortened, so that {wish.suffix} fits behind it: {name}")
    elif not name:
        notes.append(f"{given} has no character that a tag can have: it makes no tag")
    elif len(wish.text) > MAX_LENGTH:
        notes.append(f"{given} is longer than the {MAX_LENGTH} characters of a tag: shortened")
    elif name != wish.text:
        notes.append(f"{given} makes the tag {name}: a tag cannot have all of its characters")


def _ignored(settings: Settings) -> list[str]:
    """A sentence for each variable that has no say because of another one."""
    if settings.pull_request_number is None:
        if settings.is_default_branch and not settings.branch:
            return ["PLP_IS_DEFAULT_BRANCH makes no tag: PLP_BRANCH is not set"]
        return []
    return [
        f"{NAMES.variable(field)} makes no tag: this is the pull request "
        f"{settings.pull_request_number}, which must not move what others rely on"
        for field in ("branch", "tag", "is_default_branch")
        if getattr(settings, field)
    ]
