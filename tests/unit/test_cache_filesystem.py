"""What a directory lies on, from the text of /proc/self/mountinfo."""

from __future__ import annotations

import os
from pathlib import Path
from types import SimpleNamespace

import pytest

from plp_builder.cache.filesystem import carries_overlays, is_shared, is_tight, kind, room_for

MACHINE = """\
22 28 0:21 / /proc rw,nosuid,nodev,noexec,relatime shared:14 - proc proc rw
28 1 254:0 / / rw,relatime shared:1 - ext4 /dev/vda rw
31 28 0:27 / /tmp rw,nosuid,nodev shared:2 - tmpfs tmpfs rw,size=1024k
40 28 0:44 / /mnt/team rw,relatime shared:90 - nfs4 server:/export rw,vers=4.2
"""
CONTAINER = """\
612 480 0:59 / / rw,relatime master:1 - overlay overlay rw,lowerdir=/l,upperdir=/u,workdir=/w
613 612 0:62 / /proc rw,nosuid - proc proc rw
640 612 254:0 /var/lib/docker/volumes/cache/_data /tmp/cache rw,relatime master:1 - ext4 /dev/vda rw
641 612 254:0 /home/me/src /source ro,relatime - ext4 /dev/vda rw
"""


@pytest.mark.parametrize(
    ("path", "found"),
    [
        ("/", "ext4"),
        ("/var/cache", "ext4"),
        ("/tmp", "tmpfs"),
        ("/tmp/cache/state", "tmpfs"),
        ("/tmpfiles", "ext4"),
        ("/mnt/team/cache", "nfs4"),
        ("/mnt/teams", "ext4"),
        ("/proc/1", "proc"),
    ],
)
def test_the_mount_that_a_path_lies_in_is_found(path: str, found: str) -> None:
    assert kind(Path(path), MACHINE) == found


def test_a_volume_in_a_container_is_not_what_the_container_is() -> None:
    assert kind(Path("/tmp/cache/state/1"), CONTAINER) == "ext4"
    assert kind(Path("/tmp"), CONTAINER) == "overlay"


def test_of_mounts_at_one_place_the_last_counts() -> None:
    stacked = MACHINE + "50 28 0:50 / /mnt/team rw - xfs /dev/vdb rw\n"
    assert kind(Path("/mnt/team/x"), stacked) == "xfs"


def test_a_mount_over_a_parent_that_came_earlier_in_the_list_does_not_count() -> None:
    text = "9 1 0:9 / /a/b rw - xfs /dev/vdb rw\n8 1 0:8 / /a rw - ext4 /dev/vda rw\n"
    assert kind(Path("/a/b/c"), text) == "xfs"


@pytest.mark.parametrize(
    ("written", "path"),
    [(r"/my\040cache", "/my cache"), (r"/a\011b", "/a\tb"), (r"/back\134slash", "/back\\slash")],
)
def test_escapes_are_read(written: str, path: str) -> None:
    text = f"{MACHINE}60 28 0:60 / {written} rw - btrfs /dev/vdb rw\n"
    assert kind(Path(path, "state"), text) == "btrfs"


def test_optional_fields_may_be_none_or_many() -> None:
    text = (
        "1 0 0:1 / / rw - ext4 /dev/vda rw\n"
        "2 1 0:2 / /a rw shared:1 master:2 propagate_from:3 unbindable - xfs /dev/vdb rw\n"
        "3 1 0:3 / /b rw - fuse.sshfs me@host: rw\n"
    )
    assert kind(Path("/a/x"), text) == "xfs"
    assert kind(Path("/b/x"), text) == "fuse.sshfs"


@pytest.mark.parametrize(
    "text", ["", "\n\n", "nonsense\n", "1 0 0:1 / / rw\n", "1 0 0:1 / / rw -\n"]
)
def test_what_cannot_be_told_is_empty(text: str) -> None:
    assert kind(Path("/a"), text) == ""


@pytest.mark.parametrize("name", ["nfs", "nfs4", "cifs", "9p", "virtiofs", "fuse.sshfs", "fuse"])
def test_what_others_may_change_is_shared_and_no_place_for_a_state(name: str) -> None:
    assert is_shared(name)
    assert not carries_overlays(name)


@pytest.mark.parametrize("name", ["overlay", "tmpfs", "ramfs"])
def test_neither_is_memory_nor_an_overlay(name: str) -> None:
    assert not is_shared(name)
    assert not carries_overlays(name)


@pytest.mark.parametrize("name", ["ext4", "xfs", "btrfs", "zfs", "f2fs", ""])
def test_a_local_disk_is_worth_a_trial_and_so_is_what_cannot_be_told(name: str) -> None:
    assert carries_overlays(name)


@pytest.mark.parametrize(("asked", "given"), [(10**9, 10**9), (10**10, 4 * 10**9)])
def test_a_cache_takes_no_more_than_its_share_of_a_small_disk(
    monkeypatch: pytest.MonkeyPatch, asked: int, given: int
) -> None:
    disk = SimpleNamespace(f_blocks=2_500_000, f_frsize=4_000)
    monkeypatch.setattr(os, "statvfs", lambda _path: disk)
    assert room_for(Path("/cache"), asked) == given


def test_it_takes_what_is_asked_for_where_that_cannot_be_told(tmp_path: Path) -> None:
    assert room_for(tmp_path / "missing", 10**15) == 10**15


@pytest.mark.parametrize(
    ("blocks", "free", "tight"),
    [
        (25_000, 5_000, True),
        (250_000_000, 400_000, True),
        (250_000_000, 60_000_000, True),
        (250_000_000, 63_000_000, False),
    ],
)
def test_a_disk_is_tight_where_a_build_may_have_filled_it(
    monkeypatch: pytest.MonkeyPatch, blocks: int, free: int, tight: bool
) -> None:
    disk = SimpleNamespace(f_blocks=blocks, f_bavail=free, f_frsize=4_000)
    monkeypatch.setattr(os, "statvfs", lambda _path: disk)
    assert is_tight(Path("/cache")) is tight


def test_one_that_cannot_be_looked_at_is_not(tmp_path: Path) -> None:
    assert not is_tight(tmp_path / "missing")
