"""What is read of a machine before anything is started, from files like its own."""

from __future__ import annotations

import os
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from plp_builder.preflight import facts
from plp_builder.preflight.facts import Range
from plp_builder.users import User

ROOT = User("root", 0, 0, "/root")
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
