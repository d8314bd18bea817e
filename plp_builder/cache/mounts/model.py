"""Cache mounts: which directory of the daemon's a `RUN --mount=type=cache` means."""

from __future__ import annotations

import hashlib
import json
import posixpath
import re
from collections.abc import Iterator, Mapping

from plp_builder.cache.mounts import instructions
from plp_builder.cache.mounts.expansion import UnresolvedError, Variables, expand
from plp_builder.cache.mounts.instructions import Instruction
from plp_builder.tuples import NamedTuple

_LENGTH = 40
_SHARING = frozenset({"shared", "private", "locked"})
_MAY_BE_CACHE = re.compile(r"type[^,]*cache", re.IGNORECASE)
_DIGITS = re.compile(r"[0-9]{1,12}")
_TARGETS = frozenset({"target", "dst", "destination"})


class Mount(NamedTuple):
    """The options that tell cache mounts apart (dockerfile2llb/convert_runmount.go of BuildKit).

    ``uid``, ``gid`` and ``mode`` are all None, or none is: then the mount begins as a directory of
    that kind. ``source`` is what else it would begin with, "" if nothing.
    """

    id: str
    uid: int | None = None
    gid: int | None = None
    mode: int | None = None
    source: str = ""
    sharing: str = ""

    def key(self, namespace: str) -> str:
        """A name for files: the same for the same directory, another for any other."""
        parts = [namespace, *self._replace(sharing="")]
        return hashlib.sha256(json.dumps(parts).encode()).hexdigest()[:_LENGTH]


class Found(NamedTuple):
    """The cache mounts of a Dockerfile, and a sentence for each that cannot be told."""

    mounts: tuple[Mount, ...] = ()
    problems: tuple[str, ...] = ()


def find(
    dockerfile: bytes,
    build_args: Mapping[str, str],
    platforms: tuple[Mapping[str, str], ...],
) -> Found:
    """All cache mounts in a Dockerfile; what is no Dockerfile has none. Raises nothing.

    ``platforms`` has BuildKit's own arguments (TARGETARCH and so on), once for each platform.
    """
    try:
        parsed = instructions.parse(dockerfile.decode())
    except UnicodeDecodeError:
        return Found()
    mounts: dict[Mount, None] = {}
    problems: dict[str, None] = {}
    for platform in platforms:
        for each in _Reader(parsed.escape, build_args, platform).mounts(parsed.found):
            if isinstance(each, Mount):
                mounts[each] = None
            else:
                problems[each] = None
    unique = {mount.key(""): mount for mount in reversed(mounts)}
    return Found(tuple(reversed(unique.values())), tuple(problems))


class _Reader:
    """Goes through the instructions from top to bottom and keeps track of variables."""

    def __init__(
        self, escape: str, build_args: Mapping[str, str], platform: Mapping[str, str]
    ) -> None:
        self._escape = escape
        self._build_args = build_args
        self._globals = Variables(platform, closed=True)
        self._variables = self._globals
        self._stages: dict[str, Variables] = {}
        self._in_stage = False

    def mounts(self, found: tuple[Instruction, ...]) -> Iterator[Mount | str]:
        for instruction in found:
            if instruction.keyword == "FROM":
                self._from(instruction)
            elif instruction.keyword == "ARG":
                self._arg(instruction)
            elif instruction.keyword == "ENV" and self._in_stage:
                self._env(instruction)
            elif instruction.keyword == "RUN" and self._in_stage:
                for flag in instruction.flags:
                    if flag.startswith("--mount="):
                        yield from self._mount(flag.removeprefix("--mount="))

    def _from(self, instruction: Instruction) -> None:
        words = instruction.rest.split()
        try:
            base = expand(words[0], self._globals, self._escape) if words else ""
        except UnresolvedError:
            base = ""
        known = self._stages.get(base.lower())
        closed = base == "scratch"
        self._variables = known.copy() if known else Variables({}, closed=closed)
        self._in_stage = True
        if len(words) == 3 and words[1].upper() == "AS":
            self._stages[words[2].lower()] = self._variables

    def _arg(self, instruction: Instruction) -> None:
        for word in instructions.words(instruction.rest, self._escape):
            name, given, default = word.partition("=")
            if name in self._build_args:
                self._variables.give(name, self._build_args[name])
            elif given:
                self._variables.set(name, default, self._escape)
            elif self._in_stage:
                try:
                    value = self._globals.get(name)
                except UnresolvedError:
                    self._variables.forget(name)
                else:
                    if value is not None:
                        self._variables.give(name, value)

    def _env(self, instruction: Instruction) -> None:
        pairs = instructions.words(instruction.rest, self._escape)
        if pairs and "=" not in pairs[0]:
            name, _, value = instruction.rest.partition(" ")
            self._variables.set(name, value.strip(), self._escape)
            return
        before = self._variables.copy()
        for pair in pairs:
            name, _, word = pair.partition("=")
            try:
                self._variables.give(name, expand(word, before, self._escape))
            except UnresolvedError:
                self._variables.forget(name)

    def _mount(self, text: str) -> Iterator[Mount | str]:
        given = {}
        for field in _csv(text):
            key, has_value, word = field.partition("=")
            if not has_value:
                continue
            try:
                given[key.lower()] = expand(word, self._variables, self._escape)
            except UnresolvedError as error:
                if _MAY_BE_CACHE.search(text):
                    yield f"{text}: {error}"
                return
        if given.get("type", "").lower() != "cache":
            return
        target = next((given[key] for key in reversed(given) if key in _TARGETS), "")
        try:
            yield _made(given, target)
        except ValueError as error:
            yield f"{text}: {error}"


def _made(given: Mapping[str, str], target: str) -> Mount:
    origin = given.get("from", "")
    source = posixpath.normpath("/" + (given.get("source") or given.get("src") or ""))
    sharing = given.get("sharing", "").lower()
    if sharing and sharing not in _SHARING:
        raise ValueError(f"there is no sharing={sharing}")
    uid, gid, mode = None, None, None
    if given.keys() & {"uid", "gid", "mode"}:
        uid, gid = (_number(given.get(key, "0"), 10) for key in ("uid", "gid"))
        mode = _number(given.get("mode", "0755"), 8) & 0o777
    begins_with = "" if origin in {"", "scratch"} else origin
    if source.strip("/"):
        begins_with += source
    name = given.get("id") or _clean(target)
    if not name.isascii():
        # BuildKit takes each byte of a flag for a character, but not those of a variable.
        raise ValueError("an id with characters beyond ASCII")
    return Mount(name, uid, gid, mode, begins_with, sharing)


def _number(text: str, base: int) -> int:
    if not _DIGITS.fullmatch(text):
        raise ValueError(f"{text!r} is no number")
    return int(text, base)


def _clean(target: str) -> str:
    """As Go's path.Clean."""
    cleaned = posixpath.normpath(target or ".")
    return "/" + cleaned.lstrip("/") if cleaned.startswith("/") else cleaned


def _csv(text: str) -> tuple[str, ...]:
    from plp_builder.syntax.csv_record import parse_csv_fields
    from plp_builder.values import Refused

    try:
        return parse_csv_fields(text)
    except Refused:
        return ()
