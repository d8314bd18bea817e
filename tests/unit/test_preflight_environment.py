"""Who runs the daemon, and what an environment says about it before anything is started."""

from __future__ import annotations

import pytest

from plp_builder.errors import RootlessNotPermitted, ToolNotFound
from plp_builder.preflight import environment, facts
from plp_builder.preflight.facts import Disk, Facts, IdMapper, Range
from plp_builder.users import IdMap, User

ALL = (1 << 41) - 1
WITHOUT_SYS_ADMIN = ALL & ~(1 << facts.CAP_SYS_ADMIN)
TOOLS = {
    name: f"/usr/bin/{name}"
    for name in ("buildkitd", "buildctl", "rootlesskit", "runc", "setpriv", "newuidmap")
}
ANN = User("ann", 1000, 1000, "/home/ann")
BOB = User("bob", 1001, 1001, "/home/bob")
ROOT = User("root", 0, 0, "/root")
MAPPER = IdMapper("/usr/bin/newuidmap", setuid_root=True, capability=False, nosuid=False)

MACHINE = Facts(
    uid=0,
    gid=0,
    path="/usr/bin",
    home="/root",
    home_readable=True,
    users=(ROOT, BOB, ANN),
    subuid=(Range("ann", 100000, 65536), Range("bob", 200000, 65536)),
    subgid=(Range("ann", 100000, 65536), Range("1001", 200000, 65536)),
    tools=TOOLS,
    newuidmap=MAPPER,
    newgidmap=MAPPER._replace(path="/usr/bin/newgidmap"),
    effective=ALL,
    bounding=ALL,
    max_user_namespaces=1000,
    kernel=(6, 1),
    disks=(Disk("space", 10**12, None),),
)
"""A machine where all is well; the builder runs as root."""

AS_ANN = MACHINE._replace(uid=1000, gid=1000, home="/home/ann", effective=0)


def states(given: Facts) -> dict[str, bool | None]:
    return {finding.name: finding.ok for finding in environment.findings(given)}


def why_not(given: Facts) -> RootlessNotPermitted:
    with pytest.raises(RootlessNotPermitted) as caught:
        environment.check_environment(given)
    assert "operation not permitted" in caught.value.what
    assert caught.value.hint
    return caught.value


@pytest.mark.parametrize("given", [MACHINE, AS_ANN])
def test_all_is_well(given: Facts) -> None:
    environment.check_environment(given)
    assert set(states(given).values()) == {True}


def test_root_gives_the_daemon_to_uid_1000() -> None:
    low = User("low", 7, 7, "/")
    ranges = (*MACHINE.subuid, *MACHINE.subgid, Range("low", 1, 65536))
    given = MACHINE._replace(users=(low, *MACHINE.users), subuid=ranges, subgid=ranges)
    assert environment.daemon_user(given) == ANN


def test_else_to_the_lowest_uid_that_can() -> None:
    low = User("low", 7, 7, "/")
    carl = User("carl", 1500, 1500, "/")
    given = MACHINE._replace(users=(carl, BOB, low, ROOT))
    assert environment.daemon_user(given) == BOB


def test_ranges_may_be_given_in_parts_and_by_uid() -> None:
    parts = (Range("1001", 1, 60000), Range("bob", 70000, 5536))
    given = MACHINE._replace(users=(BOB,), subuid=parts, subgid=parts)
    assert environment.daemon_user(given) == BOB


def test_ids_in_one_piece_can_be_mapped_by_unshare() -> None:
    assert environment.id_map(MACHINE, ANN) == IdMap((100_000, 65_536), (100_000, 65_536))


@pytest.mark.parametrize(
    "change",
    [
        {"subuid": ()},
        {"subgid": (Range("ann", 1, 60000), Range("1000", 70000, 5536))},
        {"apparmor_restricts_userns": True},
    ],
)
def test_else_rootlesskit_maps_them(change: dict[str, object]) -> None:
    assert environment.id_map(MACHINE._replace(**change), ANN) is None  # type: ignore[arg-type]
    assert environment.id_map(MACHINE, None) is None


def test_root_itself_is_no_unprivileged_user() -> None:
    ranges = (Range("root", 100000, 65536),)
    given = MACHINE._replace(users=(ROOT,), subuid=ranges, subgid=ranges)
    assert environment.daemon_user(given) is None


@pytest.mark.parametrize(
    "change",
    [
        {"subuid": ()},
        {"subgid": (Range("ann", 100000, 65535), Range("bob", 1, 1))},
        {"users": (ROOT,)},
        {"newuidmap": None},
        {"no_new_privileges": True},
        {"max_user_namespaces": 0},
    ],
)
def test_root_keeps_the_daemon_where_nobody_can_run_it(change: dict[str, object]) -> None:
    given = MACHINE._replace(**change)  # type: ignore[arg-type]
    assert environment.daemon_user(given) is None
    environment.check_environment(given)
    (who,) = [one for one in environment.findings(given) if one.name == "daemon user"]
    assert who.ok is None
    assert who.hint


def test_root_without_privileges_cannot_keep_it() -> None:
    given = MACHINE._replace(subuid=(), effective=WITHOUT_SYS_ADMIN, bounding=WITHOUT_SYS_ADMIN)
    assert "CAP_SYS_ADMIN" in why_not(given).why[0]


def test_another_user_runs_the_daemon_itself() -> None:
    assert environment.daemon_user(AS_ANN) == ANN


def test_an_odd_uid() -> None:
    given = AS_ANN._replace(uid=4321, gid=4321, environ_user="")
    assert environment.daemon_user(given) == User("", 4321, 4321, "/home/ann")
    failure = why_not(given)
    assert "uid 4321 has no entry in /etc/passwd" in failure.why[0]
    assert "--user 1000" in failure.hint


def test_an_odd_uid_that_a_directory_service_may_know() -> None:
    given = AS_ANN._replace(uid=4321, other_user_databases=True)
    environment.check_environment(given)
    assert states(given)["passwd entry"] is None


@pytest.mark.parametrize(
    ("change", "text", "hint"),
    [
        ({"subuid": ()}, "/etc/subuid has no ids for ann", "usermod --add-subuids"),
        ({"subgid": (Range("ann", 1, 9),)}, "/etc/subgid gives ann 9 ids", "--add-subgids"),
        ({"newuidmap": None}, "newuidmap was not found", "uidmap"),
        ({"newgidmap": None}, "newgidmap was not found", "uidmap"),
        ({"newuidmap": MAPPER._replace(setuid_root=False)}, "neither the setuid bit", "cap_setuid"),
        ({"newgidmap": MAPPER._replace(setuid_root=False)}, "neither the setuid bit", "cap_setgid"),
        ({"newuidmap": MAPPER._replace(nosuid=True)}, "mounted nosuid", "nosuid"),
        ({"no_new_privileges": True}, "no-new-privileges is on", "allowPrivilegeEscalation"),
        ({"max_user_namespaces": 0}, "max_user_namespaces is 0", "sysctl"),
        ({"unprivileged_userns_clone": 0}, "unprivileged_userns_clone is 0", "sysctl"),
    ],
)
def test_what_surely_fails(change: dict[str, object], text: str, hint: str) -> None:
    failure = why_not(AS_ANN._replace(**change))  # type: ignore[arg-type]
    assert text in failure.why[0]
    assert hint in failure.hint


@pytest.mark.parametrize(
    ("change", "name"),
    [
        ({"apparmor_restricts_userns": True}, "user namespaces"),
        ({"seccomp_filter": True, "bounding": WITHOUT_SYS_ADMIN}, "user namespaces"),
        ({"bounding": WITHOUT_SYS_ADMIN}, "newuidmap"),
        ({"kernel": (5, 10)}, "kernel"),
        ({"proc_masks": ("/proc/kcore",)}, "process sandbox"),
        ({"disks": (Disk("space", 10**8, None),)}, "space"),
        ({"disks": (Disk("space", 10**12, 5),)}, "space"),
        ({"memory_limit": 256 * 2**20}, "memory"),
        ({"home_readable": False}, "home"),
    ],
)
def test_what_may_fail_is_a_warning(change: dict[str, object], name: str) -> None:
    given = AS_ANN._replace(**change)  # type: ignore[arg-type]
    environment.check_environment(given)
    assert states(given)[name] is None


def test_what_makes_up_for_it() -> None:
    """File capabilities do without CAP_SYS_ADMIN, fuse-overlayfs without a new kernel."""
    mapper = MAPPER._replace(setuid_root=False, capability=True)
    given = AS_ANN._replace(
        bounding=WITHOUT_SYS_ADMIN,
        newuidmap=mapper,
        newgidmap=mapper,
        kernel=(5, 4),
        fuse_overlayfs=True,
        memory_limit=2**30,
        disks=(Disk("space", 10**12, 10**6),),
    )
    assert set(states(given).values()) == {True}


@pytest.mark.parametrize("name", ["buildkitd", "buildctl", "rootlesskit", "runc", "setpriv"])
def test_a_missing_tool(name: str) -> None:
    tools = {tool: path for tool, path in TOOLS.items() if tool != name}
    with pytest.raises(ToolNotFound) as caught:
        environment.check_environment(AS_ANN._replace(tools=tools))
    assert name in caught.value.what


def test_a_daemon_as_root_needs_no_rootlesskit() -> None:
    tools = {tool: path for tool, path in TOOLS.items() if tool != "rootlesskit"}
    environment.check_environment(MACHINE._replace(tools=tools, users=(ROOT,)))


def test_buildkit_brings_its_own_runc() -> None:
    tools = {tool: path for tool, path in TOOLS.items() if tool != "runc"}
    environment.check_environment(MACHINE._replace(tools={**tools, "buildkit-runc": "/x"}))


@pytest.mark.parametrize("bit", environment.GIVING_AWAY)
def test_root_without_a_capability_to_give_the_daemon_away_is_told_which_to_add(bit: int) -> None:
    lacking = ALL & ~(1 << bit) & WITHOUT_SYS_ADMIN
    given = MACHINE._replace(effective=lacking, bounding=lacking)
    with pytest.raises(RootlessNotPermitted, match="operation not permitted") as caught:
        environment.check_environment(given)
    assert f"CAP_{environment.GIVING_AWAY[bit]}" in caught.value.why[0]
    assert f"--cap-add {environment.GIVING_AWAY[bit]}" in caught.value.hint


@pytest.mark.parametrize("bit", [6, 7])
def test_a_file_capability_that_the_container_lacks_is_named(bit: int) -> None:
    mapper = MACHINE.newuidmap
    assert mapper is not None
    capable = mapper._replace(setuid_root=False, capability=True)
    given = AS_ANN._replace(bounding=ALL & ~(1 << bit), newuidmap=capable, newgidmap=capable)
    with pytest.raises(RootlessNotPermitted) as caught:
        environment.check_environment(given)
    assert caught.value.hint == f"Docker: add --cap-add {environment.GIVING_AWAY[bit]}."
