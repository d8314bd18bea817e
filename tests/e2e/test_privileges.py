"""Who starts it, what the engine allows, whose the directories are: it works, or says what to do.

The table of what each combination ended with stands at the end of the run, and in docs/images.md.
"""

from __future__ import annotations

import json
import shutil
from collections.abc import Mapping
from typing import Any

import pytest

from tests.e2e.conftest import MakePlaces, Outcomes
from tests.support import image
from tests.support.containers import PRIVILEGED, UNCONFINED, UNMASKED, Containers

RIGHTS: Mapping[str, Mapping[str, Any]] = {
    "privileged": PRIVILEGED,
    "unconfined": UNCONFINED,
    "unmasked": UNMASKED,
    "none": {},
}
OWNERS = {"": ("0", "1001", "4321", "missing"), "1000": ("1000", "0"), "1001:1001": ("1001",)}
ROWS = [(user, rights, owner) for user in OWNERS for rights in RIGHTS for owner in OWNERS[user]]
NOT_PERMITTED = "rootless-not-permitted"
FLAGS = ("--privileged", "--security-opt seccomp=unconfined --security-opt apparmor=unconfined")


def expected(user: str, rights: str, owner: str) -> str:
    """The failure's stable name, "" for success."""
    if user == "1000" and owner == "0":
        return "build-path-not-writable"
    return NOT_PERMITTED if user == "1001:1001" or rights == "none" else ""


@pytest.mark.parametrize(("user", "rights", "owner"), ROWS)
def test_a_combination_works_or_says_what_to_do(
    user: str,
    rights: str,
    owner: str,
    start: Containers,
    places: MakePlaces,
    outcomes: Outcomes,
) -> None:
    place = places(uid=0 if owner == "missing" else int(owner))
    if owner == "missing":
        shutil.rmtree(place.workspace.build)
        shutil.rmtree(place.workspace.cache)
    options: dict[str, Any] = {**RIGHTS[rights], **({"user": user} if user else {})}
    ended = start.run(place.mounts, {"PLP_LOG_FORMAT": "json"}, network_mode="none", **options)
    events = [json.loads(line) for line in ended.log.splitlines()]
    ready: dict[str, Any] = next(
        (event for event in events if event["event"] == "daemon ready"), {}
    )
    told = events[-1]
    outcomes.add(user or "root", rights, owner, told.get("error") or ready["sandbox"])

    assert told.get("error", "") == expected(user, rights, owner), ended.log
    if "error" not in told:
        assert ended.code == 0
        assert ready["user"] == "plp"
        assert ready["sandbox"] == (
            "no process sandbox" if rights == "unconfined" else "process sandbox"
        )
        uid = 0 if owner == "missing" else int(owner)
        assert place.files() == {"container-image.tar": (uid, 0o644)}
        assert image.read(place.workspace.archive).manifest["layers"]
        assert (place.workspace.cache / "buildkit/index.json").exists()
        return
    assert ended.code == 1
    assert place.files() == {}
    if told["error"] == NOT_PERMITTED:
        assert "operation not permitted" in told["what"]
        if user == "1001:1001":
            assert "Run as root or with --user 1000" in told["hint"]
            assert "give the uid an entry and subordinate ids" in told["hint"]
        else:
            assert all(flag in told["hint"] for flag in FLAGS)
