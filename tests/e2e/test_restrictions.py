"""What else an engine can take away from a container."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import pytest

from tests.e2e.conftest import MakePlaces
from tests.support.containers import PRIVILEGED, UNCONFINED, Containers

NEEDED = ["CHOWN", "DAC_OVERRIDE", "KILL", "SETGID", "SETUID"]
OFFLINE: Mapping[str, Any] = {"network_mode": "none"}
STEP = "FROM scratch\nCOPY busybox /bin/busybox\nRUN {step}\n"


def step(*words: str) -> str:
    """A Dockerfile with a step that runs busybox."""
    listed = ", ".join(f'"{word}"' for word in ("/bin/busybox", *words))
    return STEP.format(step=f"[{listed}]")


@pytest.mark.parametrize(
    ("rights", "needs"),
    [pytest.param(PRIVILEGED, False, id="privileged"), pytest.param(UNCONFINED, True, id="not")],
)
@pytest.mark.parametrize("user", ["0", "1000"])
def test_a_read_only_container_needs_a_tmp_where_rootlesskit_makes_the_room(
    rights: Mapping[str, Any], needs: bool, user: str, start: Containers, places: MakePlaces
) -> None:
    place = places("site", uid=int(user))
    mounts = {**place.mounts}
    del mounts[place.workspace.cache]
    env = {"PLP_SECRETS": "id=token,env=SITE_TOKEN", "SITE_TOKEN": "x" * 20}
    restricted: dict[str, Any] = {**rights, **OFFLINE, "user": user, "read_only": True}

    ended = start.run(mounts, env, **restricted, tmpfs={"/tmp": ""})
    assert ended.code == 0, ended.log
    assert place.files() == {"container-image.tar": (int(user), 0o644)}

    without = start.run(mounts, env, **restricted)
    assert without.code == int(needs), without.log
    assert ("--tmpfs /tmp" in without.log) == needs


def test_few_capabilities_are_enough(start: Containers, places: MakePlaces) -> None:
    place = places(uid=1001)
    few: dict[str, Any] = {"cap_drop": ["ALL"], "cap_add": NEEDED}
    ended = start.run(place.mounts, **UNCONFINED, **OFFLINE, **few)
    assert ended.code == 0, ended.log
    assert place.files() == {"container-image.tar": (1001, 0o644)}


@pytest.mark.parametrize("lacking", ["ALL", *NEEDED])
def test_a_capability_that_lacks_is_named(
    lacking: str, start: Containers, places: MakePlaces
) -> None:
    place = places()
    kept = [name for name in NEEDED if name != lacking] if lacking != "ALL" else []
    ended = start.run(place.mounts, **UNCONFINED, **OFFLINE, cap_drop=["ALL"], cap_add=kept)
    assert ended.code == 1
    assert "operation not permitted" in ended.log
    for name in NEEDED if lacking == "ALL" else [lacking]:
        assert f"--cap-add {name}" in ended.log


def test_an_ordinary_user_needs_two_capabilities_in_reach(
    start: Containers, places: MakePlaces
) -> None:
    place = places(uid=1000)
    given: dict[str, Any] = {**UNCONFINED, **OFFLINE, "user": "1000", "cap_drop": ["ALL"]}
    refused = start.run(place.mounts, **given)
    assert refused.code == 1
    assert "operation not permitted" in refused.log
    assert "--cap-add SETUID" in refused.log
    assert "--cap-add SETGID" in refused.log
    ended = start.run(place.mounts, **given, cap_add=["SETUID", "SETGID"])
    assert ended.code == 0, ended.log


@pytest.mark.parametrize("user", ["0", "1000"])
def test_no_new_privileges_is_named(user: str, start: Containers, places: MakePlaces) -> None:
    place = places(uid=int(user))
    words = [*UNCONFINED["security_opt"], "no-new-privileges"]
    ended = start.run(place.mounts, **OFFLINE, user=user, security_opt=words)
    assert ended.code == 1
    assert "operation not permitted" in ended.log
    assert "remove --security-opt no-new-privileges" in ended.log


def test_no_new_privileges_and_privileged_builds_with_a_daemon_of_root(
    start: Containers, places: MakePlaces
) -> None:
    place = places()
    ended = start.run(place.mounts, **PRIVILEGED, **OFFLINE, security_opt=["no-new-privileges"])
    assert ended.code == 0, ended.log
    assert "the daemon is not rootless" in ended.log


def test_a_container_without_network_builds_offline(start: Containers, places: MakePlaces) -> None:
    place = places("heredocs")
    ended = start.run(place.mounts, **PRIVILEGED, **OFFLINE)
    assert ended.code == 0, ended.log


def test_the_limit_of_memory_holds_for_steps_and_leaves_the_builder_alive(
    start: Containers, places: MakePlaces
) -> None:
    # What dd asks for at once is its own memory; 48 MiB more than a small build needs.
    greedy = step("dd", "if=/dev/zero", "of=/dev/null", "bs=512M", "count=1")
    place = places(files={"Dockerfile": greedy})
    limits: dict[str, Any] = {"mem_limit": "256m", "memswap_limit": "256m"}
    ended = start.run(place.mounts, **PRIVILEGED, **OFFLINE, **limits)
    assert ended.code == 1, ended.log
    assert "build-failed" in ended.log
    assert "137" in ended.log or "out of memory" in ended.log.lower()

    modest = places("site")
    env = {"PLP_SECRETS": "id=token,env=SITE_TOKEN", "SITE_TOKEN": "x" * 20}
    ended = start.run(modest.mounts, env, **PRIVILEGED, **OFFLINE, **limits)
    assert ended.code == 0, ended.log


def test_the_limit_of_processes_holds(start: Containers, places: MakePlaces) -> None:
    place = places("heredocs")
    ended = start.run(place.mounts, **PRIVILEGED, **OFFLINE, pids_limit=96)
    assert ended.code == 0, ended.log
    refused = start.run(place.mounts, **PRIVILEGED, **OFFLINE, pids_limit=10)
    assert refused.code == 1
    assert "--pids-limit" in refused.log
