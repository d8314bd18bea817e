"""The order of a push, and what is tried again: with a registry that is a dictionary."""

from __future__ import annotations

import hashlib
import json
from collections import deque
from collections.abc import Callable, Sequence
from pathlib import Path
from types import SimpleNamespace
from typing import Any, cast

import pytest

from plp_builder.errors import (
    ArchiveInvalid,
    AuthenticationFailed,
    DigestDiffers,
    Failure,
    PushFailed,
    RegistryNotReachable,
    RegistryRefused,
    ResourcesExhausted,
)
from plp_builder.oci.artifact import Artifact, Blob
from plp_builder.oci.model import INDEX_TYPE, MANIFEST_TYPE, Descriptor, Digest
from publisher import publish
from publisher.faults import Fault, Kind
from publisher.push import Push
from publisher.run import Run
from publisher.skopeo import Ended, Registry
from publisher.tags import Plan, Tag

OURS = json.dumps({"schemaVersion": 2, "config": {"digest": "ours"}}).encode()
FOREIGN = json.dumps({"schemaVersion": 2, "config": {"digest": "theirs"}}).encode()
DAMAGED = OURS.replace(b" ", b"\t", 1)
REGISTRY = Registry("r.example/app", "/proc/self/fd/5", "", False, (5,))


def digest_of(data: bytes) -> str:
    return f"sha256:{hashlib.sha256(data).hexdigest()}"


def nobody(_name: str) -> None:
    """Is told what has been set."""


class World:
    """A registry, the skopeo that speaks with it, and a clock: all of them play along.

    ``said`` is what skopeo was asked, in order: ``look TAG``, ``content``, ``set TAG``. ``faults``
    are the answers to come for such a line; None lets it succeed. ``stored`` are bytes that the
    registry keeps instead of ours.
    """

    def __init__(self) -> None:
        self.registry = REGISTRY
        self.tags: dict[str, bytes] = {}
        self.said: list[str] = []
        self.faults: dict[str, deque[Fault | None]] = {}
        self.stored: dict[str, deque[bytes | None]] = {}
        self.waited: list[float] = []
        self.index_only: set[bool] = set()
        self.changed = False
        self.short = False
        self.lack: ResourcesExhausted | None = None

    def fail(self, line: str, *kinds: Kind | None) -> None:
        self.faults[line] = deque(Fault(kind, ("said",)) if kind else None for kind in kinds)

    # As publisher.skopeo.Runner
    def run(self, arguments: Sequence[str]) -> Ended:
        target = arguments[-1].removeprefix("docker://r.example/app")
        tag = target.removeprefix(":")
        verb = "look" if "inspect" in arguments else "set" if target.startswith(":") else "content"
        line = verb if verb == "content" else f"{verb} {tag}"
        self.said.append(line)
        waiting = self.faults.get(line)
        if waiting and (fault := waiting.popleft()):
            return Ended(b"", fault)
        if verb == "look":
            found = self.tags.get(tag)
            return Ended(found, None) if found else Ended(b"", Fault(Kind.ABSENT))
        if verb == "set":
            self.index_only.add("index-only" in arguments)
            kept = self.stored.get(tag)
            self.tags[tag] = (kept.popleft() if kept else None) or OURS
        return Ended(b"", None)

    def run_all(self, commands: Sequence[Sequence[str]]) -> list[Ended]:
        return [self.run(arguments) for arguments in commands]

    # As publisher.source.Source
    def reference(self, digest: str) -> str:
        return f"docker://127.0.0.1:1/archive@{digest}"

    # As plp_builder.process.Watch
    def until(self, _done: Callable[[], bool], *, seconds: float) -> bool:
        self.waited.append(seconds)
        return False

    def push(self, *, retries: int = 2, media_type: str = MANIFEST_TYPE) -> Push:
        top = Descriptor(media_type, Digest(digest_of(OURS)), len(OURS))
        artifact = Artifact(0, "oci", top, {top.digest: Blob(top, 0, OURS)}, (), ())
        verified = SimpleNamespace(
            artifact=artifact, path=Path("a.tar"), changed=lambda: self.changed, top=lambda: OURS
        )
        me = cast(Any, self)
        return Push(me, cast(Any, verified), me, me, retries=retries, origin="PLP_REGISTRY_TOKEN")

    def publish(self, *tags: Tag, retries: int = 2) -> dict[str, str]:
        """The whole story of publish.py; what became of each tag."""
        run = Run(0.0)
        try:
            publish._push(self.push(retries=retries), Plan(tags, ()), run)
        finally:
            self.done = run._done
        return run._done


@pytest.fixture
def world() -> World:
    return World()


V, MAJOR, MAIN, LATEST = (
    Tag("1.2.3", False, ()),
    Tag("1", True, ()),
    Tag("main", True, ()),
    Tag("latest", True, ()),
)
TAGS = (V, MAJOR, MAIN, LATEST)


def test_content_comes_first_then_tags_that_stay_then_moving_ones_then_latest(world: World) -> None:
    done = world.publish(*TAGS)
    looked = [f"look {tag.name}" for tag in TAGS]
    assert world.said == [
        *looked,
        "content",
        *("set 1.2.3", "look 1.2.3"),
        *("set 1", "set main", "look 1", "look main"),
        *("set latest", "look latest"),
    ]
    assert done == dict.fromkeys(("1.2.3", "1", "main", "latest"), "pushed")
    assert set(world.tags.values()) == {OURS}
    assert world.waited == []


def test_what_is_there_already_is_not_sent(world: World) -> None:
    world.tags = {tag.name: OURS for tag in TAGS}
    assert set(world.publish(*TAGS).values()) == {"unchanged"}
    assert world.said == [f"look {tag.name}" for tag in TAGS]


def test_a_second_run_completes_the_first(world: World) -> None:
    world.tags = {"1.2.3": OURS, "latest": FOREIGN}
    done = world.publish(*TAGS)
    assert "set 1.2.3" not in world.said
    assert done == {"1.2.3": "unchanged", "1": "pushed", "main": "pushed", "latest": "pushed"}


def test_only_an_index_is_copied_without_its_images(world: World) -> None:
    world.push().tag(["a"], {}, nobody, moving=False)
    assert world.index_only == {False}
    world.index_only.clear()
    world.push(media_type=INDEX_TYPE).tag(["b"], {}, nobody, moving=False)
    assert world.index_only == {True}


LINES = ("look 1.2.3", "look main", "content", "set 1.2.3", "set main", "set latest")


@pytest.mark.parametrize("line", LINES)
@pytest.mark.parametrize("kind", [Kind.BUSY, Kind.FAILING, Kind.CONNECTION, Kind.STALLED])
def test_faults_that_pass_are_waited_for(world: World, line: str, kind: Kind) -> None:
    world.fail(line, kind, kind)
    world.publish(*TAGS)
    assert {name: digest_of(data) for name, data in world.tags.items()} == dict.fromkeys(
        ("1.2.3", "1", "main", "latest"), digest_of(OURS)
    )
    assert len(world.waited) == 2


@pytest.mark.parametrize("line", LINES)
def test_one_fault_more_than_retries_ends_the_run(world: World, line: str) -> None:
    world.fail(line, *[Kind.FAILING] * 3)
    with pytest.raises(PushFailed, match="after 3 attempts"):
        world.publish(*TAGS)
    assert "latest" not in world.tags
    if line != "set latest":
        assert "set latest" not in world.said


@pytest.mark.parametrize("line", ["content", "set 1.2.3", "set main", "set latest"])
@pytest.mark.parametrize(
    ("kind", "expected"),
    [(Kind.DENIED, AuthenticationFailed), (Kind.REFUSED, RegistryRefused)],
)
def test_what_does_not_pass_is_not_tried_again(
    world: World, line: str, kind: Kind, expected: type[Failure]
) -> None:
    world.fail(line, kind)
    with pytest.raises(expected):
        world.publish(*TAGS)
    assert world.said.count(line) == 1
    assert world.waited == []
    assert "latest" not in world.tags


def test_latest_is_not_touched_when_a_tag_before_it_fails(world: World) -> None:
    world.tags["latest"] = FOREIGN
    world.fail("set main", Kind.REFUSED)
    with pytest.raises(RegistryRefused):
        world.publish(*TAGS)
    assert world.tags["latest"] == FOREIGN
    assert world.tags["1.2.3"] == OURS
    assert world.done == {"1.2.3": "pushed"}


def test_a_wrong_password_is_tried_only_once(world: World) -> None:
    world.fail("look 1.2.3", Kind.LOGIN)
    with pytest.raises(AuthenticationFailed):
        world.publish(*TAGS)
    assert world.said == ["look 1.2.3"]


def test_who_may_not_look_before_may_push_all_the_same(world: World) -> None:
    """Docker Hub, for example, lets nobody read a repository that is not there yet."""
    world.fail("look 1.2.3", Kind.DENIED)
    world.publish(*TAGS)
    assert world.said[:2] == ["look 1.2.3", "content"]
    assert len(world.tags) == len(TAGS)


def test_who_may_never_look_is_told(world: World) -> None:
    world.fail("look 1.2.3", Kind.DENIED, Kind.DENIED)
    with pytest.raises(AuthenticationFailed, match=r"check the tag 1\.2\.3"):
        world.publish(*TAGS)


@pytest.mark.parametrize("tag", TAGS)
@pytest.mark.parametrize("data", [DAMAGED, b"no manifest", b"[]"])
def test_damaged_content_is_sent_again(world: World, tag: Tag, data: bytes) -> None:
    world.stored[tag.name] = deque([data, data])
    world.publish(*TAGS)
    assert set(world.tags.values()) == {OURS}
    assert world.said.count(f"set {tag.name}") == 3


def test_content_that_stays_damaged_is_told(world: World) -> None:
    world.stored["1.2.3"] = deque([DAMAGED] * 3)
    with pytest.raises(DigestDiffers) as caught:
        world.publish(*TAGS)
    assert any(digest_of(DAMAGED) in line for line in caught.value.why)
    assert "latest" not in world.tags


def test_a_tag_that_did_not_move_is_set_again(world: World) -> None:
    world.tags["main"] = FOREIGN
    world.stored["main"] = deque([FOREIGN])
    world.publish(*TAGS)
    assert world.tags["main"] == OURS


def test_a_moving_tag_that_another_job_has_moved_stays_with_it(world: World) -> None:
    """It is told at once, the others are right and known as such, and nothing comes after them."""
    world.stored["1"] = deque([FOREIGN])
    world.stored["main"] = deque([DAMAGED])
    with pytest.raises(DigestDiffers) as caught:
        world.publish(*TAGS)
    assert caught.value.what == (
        "could not keep a moving tag: another publication has moved it meanwhile"
    )
    assert caught.value.why == (
        f"another publication has moved the tag 1 to {digest_of(FOREIGN)}",
        "what this publication has set besides is right; nothing is set after it",
    )
    assert world.tags == {"1.2.3": OURS, "1": FOREIGN, "main": OURS}
    assert world.said.count("set 1") == 1
    assert world.said.count("set main") == 2
    assert world.done == {"1.2.3": "pushed", "main": "pushed"}


def test_no_attempt_is_wasted_on_a_tag_that_another_job_has_moved(world: World) -> None:
    world.tags["main"] = DAMAGED
    world.stored["main"] = deque([FOREIGN])
    with pytest.raises(DigestDiffers):
        world.publish(*TAGS)
    assert world.waited == []


def test_a_tag_that_nobody_saw_before_may_show_its_old_image_for_a_while(world: World) -> None:
    world.fail("look main", Kind.DENIED)
    world.stored["main"] = deque([FOREIGN])
    with pytest.raises(DigestDiffers) as caught:
        world.publish(V, MAIN)
    assert "another publication" not in str(caught.value.why)
    assert len(world.waited) == 2


@pytest.mark.parametrize(
    ("kind", "failure"),
    [(Kind.CONNECTION, ResourcesExhausted), (Kind.DENIED, AuthenticationFailed)],
)
def test_a_client_that_had_to_be_turned_away_explains_a_lost_connection(
    world: World, kind: Kind, failure: type[Exception]
) -> None:
    world.fail("content", *[kind] * 3)
    original = world.run

    def run(arguments: Sequence[str]) -> Ended:
        ended = original(arguments)
        if world.said[-1] == "content":
            world.lack = ResourcesExhausted("the system gives us no more threads")
        return ended

    world.run = run  # type: ignore[method-assign]
    with pytest.raises(failure):
        world.publish(V)


def test_what_was_lacking_once_does_not_explain_what_comes_later(world: World) -> None:
    world.fail("content", *[Kind.CONNECTION] * 3)
    original = world.run

    def run(arguments: Sequence[str]) -> Ended:
        if world.said.count("content") == 1:
            world.lack = ResourcesExhausted("the system gives us no more threads")
        return original(arguments)

    world.run = run  # type: ignore[method-assign]
    with pytest.raises(RegistryNotReachable):
        world.publish(V)


def test_a_tag_whose_reply_got_lost_is_found_and_not_set_again(world: World) -> None:
    """A registry that keeps tags as they are would refuse the second time."""
    world.fail("set 1.2.3", Kind.CONNECTION, Kind.IMMUTABLE)
    push = world.push()
    original = world.run

    def run(arguments: Sequence[str]) -> Ended:
        ended = original(arguments)
        if world.said[-1] == "set 1.2.3":
            world.tags["1.2.3"] = OURS
        return ended

    world.run = run  # type: ignore[method-assign]
    push.tag(["1.2.3"], {}, nobody, moving=False)
    assert world.said == ["set 1.2.3", "look 1.2.3", "look 1.2.3"]


@pytest.mark.parametrize("attribute", ["changed", "short"])
@pytest.mark.parametrize("kind", [Kind.CONNECTION, Kind.UNKNOWN, Kind.REFUSED])
def test_an_archive_that_changed_is_the_cause_of_everything(
    world: World, attribute: str, kind: Kind
) -> None:
    setattr(world, attribute, True)
    world.fail("content", kind)
    with pytest.raises(ArchiveInvalid, match="changed while it was pushed"):
        world.publish(*TAGS)


def test_retries_are_counted_for_each_step(world: World) -> None:
    world.fail("content", Kind.FAILING, Kind.FAILING)
    world.fail("set 1.2.3", Kind.FAILING, Kind.FAILING)
    push = world.push()
    push.content()
    push.tag(["1.2.3"], {}, nobody, moving=False)
    assert push.retried == 4
    assert len(world.waited) == 4


def test_no_retries_means_none(world: World) -> None:
    world.fail("content", Kind.FAILING)
    with pytest.raises(PushFailed):
        world.publish(*TAGS, retries=0)
    assert world.waited == []
