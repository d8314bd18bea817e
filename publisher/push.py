"""The steps of a push: look at tags, send the content, set tags and read them back.

Each step is tried again after a fault that may pass, and none is begun before the one before it has
succeeded. A fault that does not pass is raised as a failure.
"""

from __future__ import annotations

import hashlib
import json
import random
from collections.abc import Callable, Iterable, Mapping, Sequence
from typing import TYPE_CHECKING, NamedTuple

from plp_builder import log
from plp_builder.errors import ArchiveInvalid
from plp_builder.oci.model import INDEX_TYPES
from publisher import skopeo
from publisher.faults import Fault, Kind, failure
from publisher.retries import pause

if TYPE_CHECKING:
    from plp_builder.process import Watch
    from publisher.skopeo import Runner
    from publisher.source import Source
    from publisher.verification import Verified

NOT_THERE = frozenset({Kind.ABSENT, Kind.REPOSITORY})


class Seen(NamedTuple):
    """What a tag points to in the registry: a digest, or "" for nothing; or why nobody knows.

    ``document`` is the manifest itself, None if it is no JSON.
    """

    digest: str = ""
    fault: Fault | None = None
    document: object = None


class Push:
    """One archive on its way into one repository.

    ``retries`` is how often a step is tried again; ``origin`` where the credentials come from,
    and ``looked`` where they were looked for in vain.
    """

    def __init__(
        self,
        runner: Runner,
        verified: Verified,
        source: Source,
        watch: Watch,
        *,
        retries: int,
        origin: str,
        looked: Sequence[str] = (),
    ) -> None:
        self.retried = 0
        self.digest = str(verified.artifact.top.digest)
        self._index = verified.artifact.top.media_type in INDEX_TYPES
        self._runner = runner
        self._verified = verified
        self._source = source
        self._watch = watch
        self._retries = retries
        self._origin = origin
        self._looked = tuple(looked)

    def look(self, tags: Iterable[str]) -> dict[str, str]:
        """The digest that each tag has now, "" for none; without those that nobody may see.

        The first tag is asked for alone, so that wrong credentials are tried only once. A registry
        may not let us read what is not there yet: then the push itself will tell.
        """
        found: dict[str, str] = {}
        first, *others = tags

        def attempt(names: list[str]) -> Fault | None:
            for name, seen in self._see([name for name in names if name not in found]):
                if seen.fault is None:
                    found[name] = seen.digest
                elif seen.fault.kind is not Kind.DENIED:
                    return seen.fault
            return None

        self._tried("look at the tags", lambda: attempt([first]))
        if first in found and others:
            self._tried("look at the tags", lambda: attempt(others))
        return found

    def content(self) -> None:
        """Send what the registry does not have yet: blobs, manifests, the index; no tag."""
        registry, digest = self._runner.registry, self._verified.artifact.top.digest
        command = skopeo.copy(registry, self._source.reference(digest), registry.digest(digest))
        self._tried("push the image", lambda: self._runner.run(command).fault)

    def tag(
        self,
        tags: Iterable[str],
        before: Mapping[str, str],
        done: Callable[[str], None],
        *,
        moving: bool,
    ) -> None:
        """Let the tags point to the content, and read them back; ``done`` is told each that does.

        ``before`` is what they pointed to. Raises DigestDiffers where one shows something else.
        """
        left = list(tags)
        for name in left:
            self._tried(f"push the tag {name}", self._setting(name))
        again: list[str] = []
        moved: list[str] = []

        def attempt() -> Fault | None:
            for name in again:
                if fault := self._set(name):
                    return fault
            again.clear()
            worst = None
            for name, seen in self._see(left):
                if seen.fault is None and seen.digest == self.digest:
                    left.remove(name)
                    done(name)
                    continue
                fault = seen.fault or self._differs(name, seen.digest)
                # Another job may have moved a moving tag since: it is not ours to move back.
                foreign = moving and seen.digest != before.get(name) and self._is_foreign(seen)
                if foreign and name in before:
                    left.remove(name)
                    moved.append(f"another publication has moved the tag {name} to {seen.digest}")
                    continue
                if fault.kind is Kind.DIFFERS and not foreign:
                    again.append(name)
                worst = fault if worst is None or worst.passing else worst
            return worst

        self._tried("check the tags" if len(left) > 1 else f"check the tag {left[0]}", attempt)
        if moved:
            rest = "what this publication has set besides is right; nothing is set after it"
            fault = Fault(Kind.MOVED, (*moved, rest))
            raise failure(fault, "keep a moving tag", 1, self._origin)

    def _setting(self, name: str) -> Callable[[], Fault | None]:
        """What sets a tag; before another attempt it looks whether the last one has done it.

        A registry that keeps tags as they are would refuse what has succeeded already.
        """
        tried = False

        def attempt() -> Fault | None:
            nonlocal tried
            if tried and self._see([name])[0][1].digest == self.digest:
                return None
            tried = True
            return self._set(name)

        return attempt

    def _set(self, name: str) -> Fault | None:
        registry = self._runner.registry
        source = self._source.reference(self._verified.artifact.top.digest)
        command = skopeo.copy(registry, source, registry.tag(name), index_only=self._index)
        return self._runner.run(command).fault

    def _see(self, names: list[str]) -> list[tuple[str, Seen]]:
        registry = self._runner.registry
        commands = [skopeo.inspect(registry, registry.tag(name)) for name in names]
        return list(zip(names, map(_seen, self._runner.run_all(commands)), strict=True))

    def _is_foreign(self, seen: Seen) -> bool:
        """Whether this is a manifest of another image, and not ours with damaged bytes."""
        if not isinstance(seen.document, dict) or "schemaVersion" not in seen.document:
            return False
        return seen.document != _parsed(self._verified.top())

    def _differs(self, name: str, digest: str) -> Fault:
        shown = f"points to {digest}" if digest else "is not there"
        return Fault(Kind.DIFFERS, (f"the tag {name} {shown}", f"pushed was {self.digest}"))

    def _tried(self, doing: str, attempt: Callable[[], Fault | None]) -> None:
        """Make attempts until one has no fault. Raises what the last fault means."""
        number = 1
        self._source.lack = None
        while fault := attempt():
            self._check_archive(fault)
            if not fault.passing or number > self._retries:
                if fault.passing and self._source.lack:
                    raise self._source.lack
                raise failure(fault, doing, number, self._origin, self._looked)
            seconds = pause(fault, number, random.random)
            log.warning(
                "trying again",
                step=doing,
                reason=fault.kind.value,
                said="; ".join(fault.said),
                seconds=round(seconds, 1),
                attempt=f"{number + 1} of {self._retries + 1}",
            )
            self._watch.until(lambda: False, seconds=seconds)
            self._source.lack = None
            self.retried += 1
            number += 1

    def _check_archive(self, fault: Fault) -> None:
        """An archive that changed under our hands is the cause of whatever skopeo says."""
        if fault.kind is Kind.ARCHIVE or self._source.short or self._verified.changed():
            raise ArchiveInvalid(
                f"{self._verified.path} changed while it was pushed",
                why=fault.said,
                hint="Nothing may write to the archive while it is published.",
            )


def _seen(ended: skopeo.Ended) -> Seen:
    if ended.fault is not None:
        return Seen() if ended.fault.kind in NOT_THERE else Seen(fault=ended.fault)
    digest = f"sha256:{hashlib.sha256(ended.output).hexdigest()}"
    return Seen(digest, document=_parsed(ended.output))


def _parsed(data: bytes) -> object:
    try:
        return json.loads(data)
    except (ValueError, RecursionError):
        return None
