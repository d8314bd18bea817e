"""Whose cache it is: what another user may have put where everybody may write."""

from __future__ import annotations

import os
from pathlib import Path

import pytest

from plp_builder.preflight import cache_path, strangers
from plp_builder.preflight.strangers import Part, is_foreign, mount_points, on_the_way

STICKY = 0o41777
ME, OTHER = 1000, 1001


@pytest.mark.parametrize(
    ("owner", "parent_mode", "me", "foreign"),
    [
        (OTHER, STICKY, ME, True),
        (OTHER, STICKY, 0, True),
        (ME, STICKY, ME, False),
        (0, STICKY, ME, False),
        (OTHER, 0o40755, 0, False),
        (OTHER, 0o41775, 0, False),
        (OTHER, 0o40777, 0, False),
    ],
)
def test_who_is_a_stranger(owner: int, parent_mode: int, me: int, foreign: bool) -> None:
    assert is_foreign(Part(Path("/tmp/cache"), owner, parent_mode), me) is foreign


def test_the_way_leads_through_links(tmp_path: Path) -> None:
    """Whoever owns a link chooses what lies behind it."""
    root = tmp_path.resolve()
    (root / "real/below").mkdir(parents=True)
    (root / "real").chmod(0o1777)
    (root / "absolute").symlink_to(root / "real")
    (root / "link").symlink_to("real/../absolute")
    met = [part for part in on_the_way(root / "link/below/none/x") if root in part.path.parents]
    assert [str(part.path.relative_to(root)) for part in met] == [
        "link", "real", "absolute", "real", "real/below",
    ]  # fmt: skip
    assert met[-1].parent_mode & 0o7777 == 0o1777
    assert {part.uid for part in met} == {os.geteuid()}


def test_the_way_ends_where_links_go_in_circles(tmp_path: Path) -> None:
    (tmp_path / "loop").symlink_to("loop")
    assert len(list(on_the_way(tmp_path / "loop/x"))) < 100


MOUNTS = (
    "36 35 98:0 / /tmp rw - ext4 /dev/sda1 rw\n"
    "37 36 98:0 /v /tmp/a\\040b rw,nosuid shared:1 - ext4 /dev/sda1 rw\n"
    "38 36 0:40 / /tmp/fuse rw - fuse.sshfs host: rw,user_id=1001,group_id=1001,allow_other\n"
    "39 36 0:41 / /tmp/root-fuse rw - fuse host: rw,user_id=0,group_id=0\n"
    "40 36 0:42 / /tmp/named rw - tmpfs user_id=7 rw\n"
    "a line of another form\n"
)


def test_mount_points_and_who_mounted_them() -> None:
    assert mount_points(MOUNTS) == {
        "/tmp": 0,
        "/tmp/a b": 0,
        "/tmp/fuse": 1001,
        "/tmp/root-fuse": 0,
        "/tmp/named": 0,
    }


@pytest.mark.parametrize(
    ("name", "trusted"), [("a b", True), ("root-fuse", True), ("fuse", False), ("c", False)]
)
def test_a_volume_may_belong_to_anybody(
    monkeypatch: pytest.MonkeyPatch, name: str, trusted: bool
) -> None:
    part = Part(Path("/tmp", name), OTHER, STICKY)
    monkeypatch.setattr(strangers, "on_the_way", lambda _path: iter((part,)))
    monkeypatch.setattr(Path, "read_text", lambda *_: MOUNTS)
    assert (strangers.stranger(part.path, 0) is None) is trusted


def test_nothing_is_trusted_when_mounts_cannot_be_read(monkeypatch: pytest.MonkeyPatch) -> None:
    def unreadable(*_: object) -> str:
        raise FileNotFoundError

    part = Part(Path("/tmp/a b"), OTHER, STICKY)
    monkeypatch.setattr(strangers, "on_the_way", lambda _path: iter((part,)))
    monkeypatch.setattr(Path, "read_text", unreadable)
    assert strangers.stranger(part.path, 0) == part


@pytest.mark.parametrize("when", ["before", "between"])
def test_the_cache_of_a_stranger_is_not_used(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, when: str
) -> None:
    """Also when it appears between the look at it and our own attempt to make it."""
    cache = tmp_path / "cache"
    answers = iter([None, Part(cache, OTHER, STICKY)][when == "before" :])
    monkeypatch.setattr(cache_path, "stranger", lambda _path, _uid: next(answers))
    found, warning = cache_path.check_cache(cache)
    assert found is None
    assert warning is not None
    assert (warning.name, warning.ok) == ("cache path", None)
    assert f"uid {OTHER}" in warning.text
    assert "PLP_CACHE_PATH" in warning.hint
    assert cache.exists() is (when == "between")
