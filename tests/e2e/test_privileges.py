"""Who starts it × what the engine allows × whose the directories are: works, or says what to do.

What each row ended with is printed; run with ``-rP`` to see it.
"""

from __future__ import annotations

import itertools
import shutil
from collections.abc import Mapping
from typing import Any

import pytest

from tests.e2e.conftest import MakePlaces
from tests.support.containers import PRIVILEGED, UNCONFINED, UNMASKED, Containers

USERS = ("", "1000", "1001:1001")
RIGHTS: Mapping[str, Mapping[str, Any]] = {
    "privileged": PRIVILEGED,
    "unconfined": UNCONFINED,
    "unmasked": UNMASKED,
    "none": {},
}
OWNERS = ("root", "1001", "4321", "missing")
UIDS = {"root": 0, "missing": 0}
FLAGS = (
    "--privileged",
    "--security-opt seccomp=unconfined",
    "--security-opt apparmor=unconfined",
)


def expected(user: str, rights: str, owner: str) -> str:
    """The stable name of the failure that a combination must end with; empty: it works."""
    if user == "1001:1001":
        return "rootless-not-permitted"
    if user == "1000" and owner != "own":
        return "build-path-not-writable"
    if rights == "none":
        return "rootless-not-permitted"
    return ""


@pytest.mark.parametrize(
    ("user", "rights", "owner"), list(itertools.product(USERS, RIGHTS, OWNERS))
)
def test_outcome(user: str, rights: str, owner: str, start: Containers, places: MakePlaces) -> None:
    place = places(uid=UIDS.get(owner) or (0 if owner in UIDS else int(owner)))
    if owner == "missing":
        shutil.rmtree(place.workspace.build)
        shutil.rmtree(place.workspace.cache)
    options = dict(RIGHTS[rights])
    if user:
        options["user"] = user
    ended = start.run(place.mounts, {"PLP_LOG_FORMAT": "json"}, **options)
    print(f"user={user or 'root'} {rights} {owner} -> {ended.code}")
    print(ended.log)
