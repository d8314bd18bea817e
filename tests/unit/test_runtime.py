"""Where a run's private directories come to lie, and whose they are when it was killed."""

from __future__ import annotations

import errno
import os
import stat
from pathlib import Path
from types import SimpleNamespace

import pytest

from plp_builder import process
from plp_builder.buildkit import room, runtime
from plp_builder.errors import RootlessNotPermitted
from plp_builder.users import User

SELF = User("self", os.geteuid(), os.getegid(), "/")
STRANGER = User("stranger", 54321, 54321, "/")


@pytest.fixture
def base(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A directory whose path is short enough for a socket."""
    return tmp_path_factory.mktemp("b", numbered=True)


def test_candidates_begin_with_an_absolute_tmpdir() -> None:
    usual = ("/tmp", "/var/tmp")
    assert runtime.candidates({"TMPDIR": "/mine"}) == ("/mine", *usual)
    assert runtime.candidates({"TMPDIR": "relative"}) == usual
    assert runtime.candidates({}) == usual
    assert runtime.candidates({"TMPDIR": "/link/../x/"}) == ("/link/../x", *usual)
    assert runtime.candidates({"TMPDIR": "/"}) == ("/", *usual)


def test_the_first_base_that_suits_is_taken(base: Path) -> None:
    too_long = base / ("d" * 80)
    too_long.mkdir()
    made = runtime.create([base / "missing", too_long, base], SELF)
    assert Path(made.client).parent == Path(made.daemon).parent == base
    assert len(os.fsencode(made.socket)) <= runtime.SOCKET_PATH_LIMIT
    for path in (made.client, made.daemon, made.state):
        assert stat.S_IMODE(Path(path).stat().st_mode) == 0o700
    assert list(too_long.iterdir()) == []
    os.close(made.lock)


def test_a_base_that_the_daemon_s_user_cannot_pass_is_refused(base: Path) -> None:
    closed = base / "closed"
    closed.mkdir(0o700)
    with pytest.raises(RootlessNotPermitted) as refused:
        runtime.create([closed / "deeper", closed], STRANGER)
    assert [line.partition(":")[0] for line in refused.value.why] == [
        str(closed / "deeper"),
        str(closed),
    ]
    assert "uid 54321" in refused.value.why[0]
    assert "TMPDIR" in refused.value.hint
    assert list(closed.iterdir()) == []


@pytest.mark.parametrize("call", ["open", "chown", "mkdir"])
def test_what_cannot_be_made_whole_leaves_nothing(
    base: Path, monkeypatch: pytest.MonkeyPatch, call: str
) -> None:
    """A disk that runs full, or an owner that cannot be given, in the middle of it."""
    real = os.mkdir

    def fail(path: Path, *arguments: int) -> None:
        if call != "mkdir" or str(path).endswith("/state"):
            raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))
        real(path, *arguments)

    monkeypatch.setattr(runtime, "suits", lambda *_: True)
    monkeypatch.setattr(os, call, fail)
    with pytest.raises(RootlessNotPermitted) as refused:
        runtime.create([base], STRANGER)
    assert refused.value.why == (f"{base}: No space left on device",)
    assert list(base.iterdir()) == []


def test_only_directories_of_killed_runs_are_abandoned(base: Path) -> None:
    living = runtime.create([base], SELF)
    killed = runtime.create([base], SELF)
    os.close(killed.lock)
    (base / "plp-client-0123").mkdir()
    (base / "plp-client-01234567").mkdir()  # not locked yet: a run that just begins
    (base / "elsewhere").write_text("")
    linked = base / "plp-client-fedcba98"
    linked.mkdir()
    (linked / "lock").symlink_to(base / "elsewhere")
    found = list(runtime.abandoned([base, base / "missing", base]))
    assert [each.client for each in found] == [killed.client]
    os.close(living.lock)


@pytest.mark.parametrize(
    ("machine", "emulators", "made"),
    [
        ("x86_64", ["register", "python3.11"], False),
        ("x86_64", ["status", "qemu-arm"], True),
        ("aarch64", [], True),
    ],
)
def test_a_daemon_tries_out_platforms_where_that_decides_something(
    base: Path, monkeypatch: pytest.MonkeyPatch, machine: str, emulators: list[str], made: bool
) -> None:
    monkeypatch.setattr(os, "uname", lambda: SimpleNamespace(machine=machine))
    monkeypatch.setattr(room, "_EMULATORS", str(base / "binfmt_misc"))
    for name in emulators:
        (base / "binfmt_misc" / name).parent.mkdir(exist_ok=True)
        (base / "binfmt_misc" / name).touch()
    found = room.room(None, (), {"TMPDIR": str(base)}).runtime
    assert Path(found.temporary).is_dir() is made
    found.make_temporary(SELF)
    assert Path(found.temporary).is_dir()
    assert runtime.remove(found, {}) == ()


def test_nothing_is_left_where_no_temporary_directory_can_be_made(
    base: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def refusing(_self: runtime.Runtime, _user: User) -> None:
        raise OSError(errno.EDQUOT, "Disk quota exceeded")

    monkeypatch.setattr(runtime.Runtime, "make_temporary", refusing)
    with pytest.raises(RootlessNotPermitted) as told:
        runtime.create([base], SELF, temporary=True)
    assert "quota" in str(told.value.why)
    assert not list(base.iterdir())


def test_few_files_are_removed_without_a_process(base: Path) -> None:
    """Also links, which are not followed; the guard of these tests refuses processes."""
    (base / "kept").mkdir()
    (base / "kept" / "file").write_text("")
    made = runtime.create([base], SELF)
    (Path(made.daemon) / "rootlesskit").mkdir()
    (Path(made.daemon) / "rootlesskit" / "api.sock").write_text("")
    (Path(made.daemon) / "rootlesskit" / "link").symlink_to(base / "kept" / "file")
    assert runtime.remove(made, {}) == ()
    assert [path.name for path in base.iterdir()] == ["kept"]
    assert (base / "kept" / "file").exists()


def test_a_link_to_a_directory_is_left_to_those_who_know_how(
    base: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (base / "kept").mkdir()
    asked: list[list[str]] = []
    monkeypatch.setattr(process, "run", lambda command, **_: asked.append(command))
    made = runtime.create([base], SELF)
    (Path(made.daemon) / "link").symlink_to(base / "kept")
    assert runtime.remove(made, {})
    assert asked[0][0] == "rm"
    assert (base / "kept").exists()


def test_a_state_is_removed_by_a_process(base: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    asked: list[list[str]] = []
    monkeypatch.setattr(process, "run", lambda command, **_: asked.append(command))
    made = runtime.create([base], SELF)
    (Path(made.state) / "file").write_text("")
    assert runtime.remove(made, {}) == (str(made.client), str(made.daemon))
    assert [command[0] for command in asked] == ["rm", "unshare", "rootlesskit"]
