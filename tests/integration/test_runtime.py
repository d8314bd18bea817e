"""The private directories of a run: the daemon's user can put nothing in our way."""

from __future__ import annotations

import os
import socket
from collections.abc import Iterator
from pathlib import Path

import pytest

from plp_builder.buildkit import runtime
from plp_builder.buildkit.room import ROOT
from plp_builder.errors import RootlessNotPermitted
from plp_builder.users import User

pytestmark = pytest.mark.skipif(os.geteuid() != 0, reason="giving a directory away takes root")

SOMEBODY = User("somebody", 54321, 54322, "/")


@pytest.fixture
def made() -> Iterator[runtime.Runtime]:
    made = runtime.create([Path("/tmp")], SOMEBODY)
    yield made
    runtime.remove(made, {"PATH": os.environ["PATH"]})


def test_both_directories_are_private_to_their_owners(made: runtime.Runtime) -> None:
    assert Path(made.client).stat().st_uid == 0
    assert Path(made.daemon).stat().st_uid == SOMEBODY.uid
    assert {Path(path).stat().st_mode & 0o777 for path in (made.client, made.daemon)} == {0o700}


def test_a_link_in_the_place_of_the_configuration_is_not_followed(
    made: runtime.Runtime, tmp_path: Path
) -> None:
    victim = tmp_path / "victim"
    victim.write_text("precious")
    Path(made.config).symlink_to(victim)
    made.write_config("text", SOMEBODY)
    assert (victim.read_text(), victim.stat().st_uid) == ("precious", 0)
    assert Path(made.config).read_text() == "text"
    assert Path(made.config).stat().st_uid == SOMEBODY.uid


def test_a_directory_that_was_exchanged_is_not_written_to(
    made: runtime.Runtime, tmp_path: Path
) -> None:
    moved = Path(made.daemon).with_name(Path(made.daemon).name + "-moved")
    Path(made.daemon).rename(moved)
    Path(made.daemon).symlink_to(tmp_path)
    with socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM) as listener:
        made.bind_notify_socket(listener)
    made.write_config("text", SOMEBODY)
    assert list(tmp_path.iterdir()) == []
    Path(made.daemon).unlink()
    moved.rename(made.daemon)


def test_the_daemons_user_reaches_the_notify_socket(made: runtime.Runtime) -> None:
    with socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM) as listener:
        made.bind_notify_socket(listener)
        assert Path(made.notify_socket).stat().st_mode & 0o222 == 0o222


def test_without_a_place_the_failure_names_all_that_were_tried(tmp_path: Path) -> None:
    long = tmp_path / ("x" * 100)
    long.mkdir()
    closed = tmp_path / "closed"
    closed.mkdir(mode=0o700)
    with pytest.raises(RootlessNotPermitted) as caught:
        runtime.create([tmp_path / "missing", long, closed], SOMEBODY)
    assert len(caught.value.why) == 3
    assert runtime.suits(closed, ROOT)
