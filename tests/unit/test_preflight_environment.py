"""Who runs the daemon, and what an environment says about it before anything is started."""

from __future__ import annotations

import os
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from plp_builder.errors import RootlessNotPermitted, ToolNotFound
from plp_builder.preflight import doctor, environment, facts
from plp_builder.preflight.facts import Disk, Facts, IdMapper, Range
from plp_builder.preflight.finding import Finding
from plp_builder.users import User

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


PASSWD = """\
root:x:0:0:root:/root:/bin/sh
# no user
+::::::
broken
ann:x:1000:100:Ann,,,:/home/ann:/bin/sh
"""


def test_parse_passwd() -> None:
    assert facts.parse_passwd(PASSWD) == (ROOT, User("ann", 1000, 100, "/home/ann"))


def test_parse_ranges() -> None:
    text = "ann:100000:65536\n\n#x\n1001:5:6\nbad:a:b\nbad:1\n"
    assert facts.parse_ranges(text) == (Range("ann", 100000, 65536), Range("1001", 5, 6))


@given(st.text())
def test_odd_files_do_no_harm(text: str) -> None:
    facts.parse_passwd(text)
    facts.parse_ranges(text)
    facts.parse_proc_masks(text)
    facts.parse_kernel(text)
    facts.has_other_databases(text)


@pytest.mark.parametrize(
    ("text", "others"),
    [
        ("passwd: files\n", False),
        ("passwd: files systemd\n", False),
        ("passwd:\tfiles sss  # x\n", True),
        ("group: sss\n", False),
        ("# passwd: sss\n", False),
        ("", False),
    ],
)
def test_has_other_databases(text: str, *, others: bool) -> None:
    assert facts.has_other_databases(text) is others


@pytest.mark.parametrize(
    ("release", "version"),
    [("6.18.44-x", (6, 18)), ("5.11-rc1", (5, 11)), ("4.19.0", (4, 19)), ("odd", (0, 0))],
)
def test_parse_kernel(release: str, version: tuple[int, int]) -> None:
    assert facts.parse_kernel(release) == version


PROC = "22 1 0:21 / /proc rw,nosuid - proc proc rw\n"


@pytest.mark.parametrize(
    ("mounts", "masks"),
    [
        (PROC, ()),
        (PROC + "23 22 0:9 / /proc/sys/fs/binfmt_misc rw - autofs x rw\n", ()),
        (PROC + "23 22 0:9 /null /proc/kcore rw - tmpfs x rw\n", ("/proc/kcore",)),
        (PROC + "23 22 0:9 / /proc/a rw shared:3 - tmpfs x rw\n" + PROC, ()),
        (PROC.replace("rw,", "ro,"), ("/proc",)),
        (PROC.replace(" / ", " /x "), ("/proc",)),
        ("22 1 0:21 / /proc rw -\n", ("/proc",)),
        ("", ("/proc",)),
    ],
)
def test_parse_proc_masks(mounts: str, masks: tuple[str, ...]) -> None:
    assert facts.parse_proc_masks(mounts) == masks


def test_read_facts(tmp_path: Path) -> None:
    """From files like those of a machine, below another root."""
    files = {
        "proc/self/status": "Name:\tx\nNoNewPrivs:\t1\nSeccomp:\t2\nCapEff:\t0000000000200000\n"
        "CapBnd:\t00000000a80425fb\n",
        "proc/self/mountinfo": PROC,
        "proc/sys/user/max_user_namespaces": "12\n",
        "proc/sys/kernel/unprivileged_userns_clone": "0\n",
        "proc/sys/kernel/apparmor_restrict_unprivileged_userns": "1\n",
        "etc/passwd": PASSWD,
        "etc/subuid": "ann:1:2\n",
        "etc/subgid": "ann:3:4\n",
        "etc/nsswitch.conf": "passwd: files ldap\n",
        "sys/fs/cgroup/memory.max": "1000000\n",
    }
    for name, text in files.items():
        path = tmp_path / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(text)
    bin_ = tmp_path / "bin"
    bin_.mkdir()
    for name, mode in (("buildctl", 0o755), ("newuidmap", 0o4755), ("runc", 0o644)):
        (bin_ / name).touch()
        (bin_ / name).chmod(mode)
    environ = {
        "PATH": f"/none:{bin_}",
        "HOME": str(tmp_path),
        "PLP_BUILD_PATH": str(tmp_path),
    }
    found = facts.read_facts(environ, tmp_path)
    assert found.no_new_privileges
    assert found.seccomp_filter
    assert found.has_capability(facts.CAP_SYS_ADMIN)
    assert not found.has_bounding(facts.CAP_SYS_ADMIN)
    assert (found.max_user_namespaces, found.unprivileged_userns_clone) == (12, 0)
    assert found.apparmor_restricts_userns
    assert found.other_user_databases
    assert (found.subuid, found.subgid) == ((Range("ann", 1, 2),), (Range("ann", 3, 4),))
    assert found.users[1].name == "ann"
    assert found.tools == {name: str(bin_ / name) for name in ("buildctl", "newuidmap")}
    assert found.newuidmap is not None
    assert found.newuidmap.setuid_root is (bin_.stat().st_uid == 0)
    assert found.newgidmap is None
    assert found.proc_masks == ()
    assert found.memory_limit == 1000000
    assert found.home_readable
    assert [disk.name for disk in found.disks] == ["space at build path", "space at cache path"]


@pytest.mark.skipif(os.geteuid() != 0, reason="only root gives files away")
def test_setuid_of_another_user_is_not_enough(tmp_path: Path) -> None:
    tool = tmp_path / "newuidmap"
    tool.touch()
    os.chown(tool, 1, 1)
    tool.chmod(0o4755)
    mapper = facts.read_facts({"PATH": str(tmp_path)}, tmp_path).newuidmap
    assert mapper is not None
    assert not mapper.setuid_root


@pytest.mark.parametrize(
    ("build", "cache", "told"),
    [
        ("", "", ["build", "cache"]),
        ("/none", "/none/below", ["cache"]),
        ("/file", "/file/below", ["cache"]),
    ],
)
def test_space_is_told_of_directories_that_are_there(
    tmp_path: Path, build: str, cache: str, told: list[str]
) -> None:
    """A missing cache directory will lie where the nearest one above it does."""
    (tmp_path / "file").touch()
    environ = {"PLP_BUILD_PATH": f"{tmp_path}{build}", "PLP_CACHE_PATH": f"{tmp_path}{cache}"}
    disks = facts.read_facts({"PATH": "", **environ}, tmp_path).disks
    assert [disk.name for disk in disks] == [f"space at {name} path" for name in told]


def test_space_of_relative_paths_is_not_told() -> None:
    environ = {"PATH": "", "PLP_BUILD_PATH": ".", "PLP_CACHE_PATH": "tests"}
    assert facts.read_facts(environ).disks == ()


def test_read_facts_of_an_empty_machine(tmp_path: Path) -> None:
    found = facts.read_facts({"PATH": str(tmp_path)}, tmp_path)
    assert (found.tools, found.users, found.max_user_namespaces) == ({}, (), None)
    assert not found.has_capability(facts.CAP_SYS_ADMIN)


def test_the_doctor_s_table() -> None:
    found = [
        Finding("one", True, "fine", "never shown"),
        Finding("second", None, "so so\x1b[31m", "do this"),
        Finding("3", False, "bad", "do that"),
    ]
    assert list(doctor.table(found)) == [
        "ok       one     fine",
        "warning  second  so so",
        "                 -> do this",
        "failed   3       bad",
        "                 -> do that",
        "",
        "1 of 3 checks failed: a build would not run here.",
    ]
    assert list(doctor.table(found[:2]))[-1].startswith("A build would run here; 1 of 2")
    assert list(doctor.table(found[:1]))[-1] == "A build would run here: all 1 checks are fine."


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
