"""Settings → the tags that the image gets, in the order in which they are pushed.

| given | immutable | moving |
|---|---|---|
| branch | ``{branch}-{sha7}`` | ``{branch}``; ``latest`` for the default branch |
| pull request | ``pr-{n}-{sha7}`` | ``pr-{n}`` |
| tag ``v1.2.3`` | ``1.2.3`` | ``1.2``, ``1``; not for a pre-release |
| another tag | the tag itself | |
| none of these | ``{sha7}``, the commit | |
| extra tags, not for a pull request | | as they are |

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
_SERIES = re.compile(rf"{_NUMBER}(?:\.{_NUMBER})?")
_PULL_REQUEST = re.compile(r"pr-[0-9]+")


class Tag(NamedTuple):
    """A tag; ``moving`` if later runs give it to other images. ``origins`` names variables."""

    name: str
    moving: bool
    origins: tuple[str, ...]


class Plan(NamedTuple):
    """The tags in the order of pushing, and a sentence for everything that is not as given.

    ``notes`` tell of names that are spelt another way, ``warnings`` of tags that were asked for and
    are not there or are not alone.
    """

    tags: tuple[Tag, ...]
    notes: tuple[str, ...] = ()
    warnings: tuple[str, ...] = ()


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
    notes: list[str] = []
    warnings = _ignored(settings)
    tags: dict[str, Tag] = {}
    for wish in _wishes(settings):
        name = _legal(wish.text, wish.suffix)
        origin = NAMES.variable(wish.field)
        if not name:
            warnings.append(f"{_given(wish)} has no character that a tag can have: it makes no tag")
            continue
        notes += _spelling(wish, name)
        before = tags.get(name)
        if not before:
            warnings += _crossing(wish, name, settings)
        tags[name] = Tag(name, wish.moving or name == LATEST, (origin,))
        if before:
            moving = (before.moving and wish.moving) or name == LATEST
            tags[name] = Tag(name, moving, tuple(dict.fromkeys((*before.origins, origin))))
            if origin not in before.origins:
                others = " and ".join(before.origins)
                warnings.append(
                    f"{origin} makes the tag {name}, and so does {others}: it is one tag"
                )
            elif wish.field == "extra_tags":
                warnings.append(f"{origin} makes the tag {name} more than once: it is one tag")
    if not tags:
        raise SettingInvalid(
            "no tag is left to push",
            why=warnings,
            hint="A tag has letters of ASCII, digits, '_', '.' and '-': set PLP_COMMIT_SHA, or "
            "name a tag in PLP_EXTRA_TAGS.",
        )
    ordered = sorted(tags.values(), key=lambda tag: (tag.name == LATEST, tag.moving))
    return Plan(tuple(ordered), tuple(dict.fromkeys(notes)), tuple(dict.fromkeys(warnings)))


def _wishes(settings: Settings) -> Iterator[_Wish]:
    """Every tag that the settings ask for, as the table above has it."""
    suffix = f"-{settings.commit_sha[:_SHORT]}" if settings.commit_sha else ""
    if settings.pull_request_number is not None:
        yield from _source(f"pr-{settings.pull_request_number}", suffix, "pull_request_number")
        return
    if settings.tag:
        yield from _of_tag(settings.tag)
    if settings.branch:
        yield from _source(settings.branch, suffix, "branch")
        if settings.is_default_branch:
            yield _Wish(LATEST, True, "is_default_branch")
    if settings.commit_sha and not (_legal(settings.tag) or _legal(settings.branch)):
        yield _Wish(settings.commit_sha[:_SHORT], False, "commit_sha")
        yield _Wish(settings.commit_sha, False, "commit_sha")
    for extra in settings.extra_tags:
        yield _Wish(extra, True, "extra_tags")


def _source(text: str, suffix: str, field: str) -> Iterator[_Wish]:
    yield _Wish(text, True, field)
    if suffix and _legal(text):
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


def _legal(text: str, suffix: str = "") -> str:
    """``text`` as a tag that ends with ``suffix``; "" if nothing of it is left."""
    name = _ILLEGAL.sub("-", text).lstrip(".-")[: MAX_LENGTH - len(suffix)]
    return name and name + suffix


def _given(wish: _Wish) -> str:
    return f"{NAMES.variable(wish.field)} {shown(wish.text)}"


def _spelling(wish: _Wish, name: str) -> list[str]:
    """What became of a text, if it is not as given; of one that makes two tags, once."""
    if wish.suffix:
        if len(wish.text) <= MAX_LENGTH < len(wish.text + wish.suffix):
            return [f"{_given(wish)} is shortened, so that {wish.suffix} fits behind it: {name}"]
    elif len(wish.text) > MAX_LENGTH:
        return [f"{_given(wish)} is longer than the {MAX_LENGTH} characters of a tag: shortened"]
    elif name != wish.text:
        return [f"{_given(wish)} makes the tag {name}: a tag cannot have all of its characters"]
    return []


def _crossing(wish: _Wish, name: str, settings: Settings) -> list[str]:
    """A warning where a branch or tag is called what another rule makes of something else."""
    if wish.field not in {"branch", "tag"}:
        return []
    if wish.field == "tag" and _VERSION.fullmatch(settings.tag):
        return []
    if name == LATEST and not settings.is_default_branch:
        owner = "the default branch"
    elif _SERIES.fullmatch(name) or (name[0] != "v" and _VERSION.fullmatch(name)):
        owner = "a version"
    elif _PULL_REQUEST.fullmatch(name):
        owner = "a pull request"
    else:
        return []
    return [
        f"{_given(wish)} makes the tag {name}, as {owner} does elsewhere: "
        "it will show what was published last"
    ]


def _ignored(settings: Settings) -> list[str]:
    """A sentence for each variable that would have made a tag, were it not for another one."""
    number = settings.pull_request_number
    if number is None:
        if settings.is_default_branch and not settings.branch:
            return ["PLP_IS_DEFAULT_BRANCH makes no tag: PLP_BRANCH is not set"]
        return []
    # What hosts call the branch of a pull request (7/merge on GitHub) is no other branch.
    branch = settings.branch and not re.fullmatch(
        rf"(?:(?:refs/)?(?:pull|pull-requests|merge-requests)/)?{number}/(?:merge|head|from)",
        settings.branch,
    )
    withheld = {
        "branch": branch,
        "tag": settings.tag,
        "is_default_branch": branch and settings.is_default_branch,
        "extra_tags": settings.extra_tags,
    }
    return [
        f"{NAMES.variable(field)} makes no tag: this is the pull request {number}, which must not "
        "move what others rely on"
        for field, is_given in withheld.items()
        if is_given
    ]
