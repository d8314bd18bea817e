"""When BuildKit's kept copy of a context is doubted, and when it is trusted."""

from __future__ import annotations

import errno
import os
import stat
from collections.abc import Callable
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from plp_builder.cache import context, context_store
from plp_builder.cache.context import Fingerprint
from plp_builder.cache.context_store import Known, Made, Place
from plp_builder.cache.context_tree import walk

LATER = 10**18 * 9
"""When no file of a test is young any more."""

TIME = 1_700_000_000_123_456_789
MADE = Made("asked for", "sha256:" + "0" * 64, 12)


def mounts(root: Path, *kinds: str) -> str:
    """A mount table: ``kinds`` are the types at /, at ``root`` and below it."""
    places = ("/", root, root / "below")
    return "".join(
        f"{at} 1 8:1 / {place} rw - {kind} /dev/sda1 rw\n"
        for at, (place, kind) in enumerate(zip(places, kinds, strict=False))
    )


def take(root: Path, *names: str, own: tuple[Path, ...] = ()) -> Fingerprint:
    return context.take(dict.fromkeys(names or ("context",), root), own, mounts(root, "ext4"))


def built(root: Path, known: Known | None = None, *, began: int = LATER) -> Known | None:
    """What is known after a build during which nothing happened."""
    found = take(root)
    return context.learn(known, found, found, began)


def write(path: Path, data: str, time: int = TIME) -> Path:
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(data)
    os.utime(path, ns=(time, time))
    return path


@pytest.fixture
def root(tmp_path: Path) -> Path:
    root = tmp_path / "source"
    write(root / "file", "aaaa")
    write(root / "other", "bbbb")
    write(root / "below" / "file", "cccc")
    (root / "link").symlink_to("file")
    (root / "empty").mkdir()
    return root


def test_an_unchanged_directory_is_trusted(root: Path) -> None:
    assert take(root).doubt(built(root)) == ""


def test_the_last_look_is_recognised(root: Path) -> None:
    known = built(root)
    assert take(root).is_last(known)
    assert not take(root).is_last(None)
    assert not take(root, "another name").is_last(known)
    write(root / "file", "eeee", TIME + 1)
    assert not take(root).is_last(known)
    later = built(root, known)
    assert take(root).is_last(later)
    assert not take(root).is_last(known)


def test_without_knowledge_all_is_doubted(root: Path) -> None:
    assert take(root).doubt(None) == "nothing is known of the last copy"


def replaced(path: Path) -> None:
    path.unlink()
    write(path, "dddd")


def swapped(root: Path) -> None:
    (root / "file").rename(root / "third")
    (root / "other").rename(root / "file")
    (root / "third").rename(root / "other")


def moved(root: Path) -> None:
    (root / "below").rename(root / "aside")
    write(root / "below" / "file", "dddd")


def touched(path: Path) -> None:
    path.chmod(0o600)
    path.chmod(0o644)


def turned_into_a_directory(path: Path) -> None:
    path.unlink()
    path.mkdir()


def extended(path: Path) -> None:
    os.setxattr(path, "user.test", b"value")


UNSEEN: dict[str, tuple[str, Callable[[Path], object]]] = {
    "content": ("file", lambda root: write(root / "file", "dddd")),
    "mode and back": ("file", lambda root: touched(root / "file")),
    "made again": ("file", lambda root: replaced(root / "file")),
    "swapped": ("file", swapped),
    "replaced from elsewhere": ("file", lambda root: (root / "other").rename(root / "file")),
    "another directory": ("below/file", moved),
    "linked": ("file", lambda root: os.link(root / "file", root / "new")),
    "attribute of a file": ("file", lambda root: extended(root / "file")),
    "attribute of a directory": ("empty", lambda root: extended(root / "empty")),
}


@pytest.mark.parametrize("change", UNSEEN)
def test_what_buildkit_may_not_see_is_doubted(root: Path, change: str) -> None:
    before = built(root)
    path, act = UNSEEN[change]
    act(root)
    why = take(root).doubt(before)
    assert why.endswith(" looks unchanged, but is not")
    assert why.removesuffix(" looks unchanged, but is not") in {path, "other"}


SEEN: dict[str, Callable[[Path], object]] = {
    "another time": lambda root: write(root / "file", "dddd", TIME + 1),
    "another size": lambda root: write(root / "file", "ddddd"),
    "another mode": lambda root: (root / "file").chmod(0o755),
    "another kind": lambda root: turned_into_a_directory(root / "below" / "file"),
    "renamed": lambda root: (root / "file").rename(root / "new"),
    "removed": lambda root: (root / "file").unlink(),
    "new": lambda root: write(root / "new", "dddd"),
    "mode of a directory": lambda root: (root / "empty").chmod(0o700),
    "a directory that is filled": lambda root: write(root / "empty" / "new", "dddd"),
}


@pytest.mark.parametrize("change", SEEN)
def test_what_buildkit_sees_is_trusted(root: Path, change: str) -> None:
    before = built(root)
    SEEN[change](root)
    assert take(root).doubt(before) == ""


def test_an_owner_is_nothing_that_buildkit_compares(root: Path) -> None:
    """A file that changed with its owner must not count as one that BuildKit sees."""
    (before,) = (block for path, block in walk(os.fsencode(root)).items() if path == b"below")
    if os.geteuid() == 0:
        os.chown(root / "below" / "file", 12345, 12345)
    else:
        (root / "below" / "file").chmod(0o644)
    known = Known({"context": Place({b"below": before})})
    assert take(root).doubt(known) == "below/file looks unchanged, but is not"


def test_a_copy_from_several_builds_ago_counts(root: Path) -> None:
    first = built(root)
    write(root / "file", "dddd", TIME + 1)
    second = built(root, first)
    write(root / "file", "eeee", TIME)
    assert take(root).doubt(second) == "file looks unchanged, but is not"


def test_a_file_that_was_away_counts(root: Path) -> None:
    first = built(root)
    (root / "below" / "file").unlink()
    (root / "below").rmdir()
    second = built(root, built(root, first))
    write(root / "below" / "file", "dddd")
    assert take(root).doubt(second) == "below/file looks unchanged, but is not"


def test_moved_away_and_back_is_trusted_where_times_differ(root: Path, tmp_path: Path) -> None:
    """Two projects in turn: nothing of the one looks like the other's."""
    other = tmp_path / "other"
    write(other / "file", "xxxx", TIME + 1)
    known = built(root, built(other, built(root)))
    assert take(other).doubt(known) == ""
    assert take(root).doubt(known) == ""


def test_two_projects_with_equal_times_are_doubted(root: Path, tmp_path: Path) -> None:
    other = tmp_path / "other"
    write(other / "file", "xxxx")
    assert take(other).doubt(built(root)) == "file looks unchanged, but is not"


def test_a_young_file_is_doubted_once(root: Path) -> None:
    began = (root / "file").lstat().st_ctime_ns
    known = built(root, began=began)
    assert take(root).doubt(known).endswith(" may have changed while it was copied")
    assert take(root).doubt(built(root, began=LATER)) == ""


def test_a_file_from_the_future_is_doubted(root: Path) -> None:
    assert take(root).doubt(built(root, began=TIME)) != ""


def test_a_file_that_changes_during_the_build_is_doubted(root: Path) -> None:
    before = take(root)
    write(root / "file", "dddd", TIME + 1)
    known = context.learn(None, before, take(root), LATER)
    assert take(root).doubt(known) == "file may have changed while it was copied"
    write(root / "file", "eeee", TIME + 1)
    assert take(root).doubt(known) == "file may have changed while it was copied"
    (root / "file").unlink()
    assert take(root).doubt(known) == ""


def test_a_directory_that_was_another_during_the_build_is_doubted(root: Path) -> None:
    before = take(root)
    (root / "below").rename(root / "aside")
    (root / "aside").rename(root / "below")
    known = context.learn(None, before, take(root), LATER)
    assert known is not None
    assert known.places["context"].distrusted >= {b"", b"below"}
    assert take(root).doubt(known) != ""


def test_what_the_builder_writes_itself_is_left_out(root: Path) -> None:
    own = (root / "cache", root / "below" / "archive")
    before = take(root, own=own)
    write(root / "cache" / "deep" / "file", "aaaa")
    write(root / "below" / "archive", "aaaa")
    after = take(root, own=own)
    known = context.learn(None, before, after, LATER)
    assert known is not None
    assert not known.places["context"].distrusted
    write(root / "below" / "archive", "bbbb")
    assert take(root, own=own).doubt(known) == ""
    write(root / "below" / "file", "dddd")
    assert take(root, own=own).doubt(known) == "below/file looks unchanged, but is not"


def test_a_root_that_the_builder_writes_into_is_walked(root: Path) -> None:
    before = take(root, own=(root,))
    write(root / "file", "dddd")
    assert take(root, own=(root,)).doubt(context.learn(None, before, before, LATER))


def test_directories_have_names(root: Path, tmp_path: Path) -> None:
    other = tmp_path / "other"
    write(other / "file", "xxxx")
    table = mounts(root, "ext4")
    both = context.take({"context": root, "plp-context-0": other}, (), table)
    known = context.learn(None, both, both, LATER)
    turned = context.take({"context": other, "plp-context-0": root}, (), table)
    assert both.doubt(known) == ""
    assert turned.doubt(known) == "file looks unchanged, but is not"
    assert context.take({"plp-context-1": root}, (), table).doubt(known) == ""


@pytest.mark.parametrize(
    ("kinds", "trusted"),
    [
        (("ext4",), True),
        (("overlay",), True),
        (("ext4", "xfs"), True),
        (("nfs4", "btrfs"), True),
        (("nfs4",), False),
        (("ext4", "fuse.sshfs"), False),
        (("ext4", "9p"), False),
        (("ext4", "virtiofs"), False),
        (("ext4", "ext4", "nfs"), False),
        ((), False),
    ],
)
def test_file_systems_whose_times_say_little(
    root: Path, kinds: tuple[str, ...], trusted: bool
) -> None:
    found = context.take({"context": root}, (), mounts(root, *kinds))
    assert (found.problem == "") == trusted
    if not trusted:
        assert found.doubt(built(root)) == found.problem
        assert context.learn(None, found, found, LATER) is None


@pytest.mark.parametrize("time", [-1, 2**31 * 10**9, 2**33 * 10**9])
def test_a_time_that_not_every_file_system_keeps_is_doubted(root: Path, time: int) -> None:
    write(root / "below" / "file", "cccc", time)
    assert take(root).problem == "below/file has an unusual time"


def test_names_of_any_bytes(root: Path) -> None:
    path = os.fsencode(root) + b"/\xff\n"
    Path(os.fsdecode(path)).write_text("aaaa")
    before = built(root)
    os.utime(path, ns=(TIME, TIME))
    again = built(root, before)
    Path(os.fsdecode(path)).write_text("bbbb")
    os.utime(path, ns=(TIME, TIME))
    assert take(root).doubt(again) == "\\xff\n looks unchanged, but is not"


def test_fifos_and_sockets(root: Path) -> None:
    """A socket is sent as an empty file, so that BuildKit cannot tell the two apart."""
    os.mkfifo(root / "fifo")
    write(root / "maybe", "")
    found = (root / "maybe").lstat()
    regular = walk(os.fsencode(root))[b""]
    assert take(root).doubt(built(root)) == ""
    (root / "maybe").unlink()
    os.mknod(root / "maybe", stat.S_IFSOCK | stat.S_IMODE(found.st_mode))
    os.utime(root / "maybe", ns=(TIME, TIME))
    known = Known({"context": Place({b"": regular})})
    assert take(root).doubt(known) == "maybe looks unchanged, but is not"


def test_a_directory_that_may_not_be_read_is_empty(
    root: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    real = os.open

    def opening(path: bytes, flags: int) -> int:
        if path.endswith(b"/below"):
            raise PermissionError
        return real(path, flags)

    monkeypatch.setattr(os, "open", opening)
    found = take(root)
    assert len(found.trees["context"][b"below"]) == len(found.trees["context"][b"empty"])
    assert found.doubt(built(root)) == ""


def test_a_directory_that_cannot_be_listed_is_not_taken_for_empty(
    root: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def listdir(path: bytes) -> list[bytes]:
        raise PermissionError(errno.EACCES, "Permission denied", path)

    monkeypatch.setattr(os, "listdir", listdir)
    assert "cannot be listed" in take(root).problem


def test_a_directory_that_is_not_there(root: Path) -> None:
    found = take(root / "missing")
    assert "missing cannot be read" in found.problem


def test_too_much_history_is_forgotten(root: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(context, "_HISTORY", 1000)
    known = built(root)
    for turn in range(1, 40):
        write(root / "file", "dddd", TIME + turn)
        known = built(root, known)
        if known is None:
            break
    assert known is None
    assert turn > 10


def test_history_does_not_hold_what_is_there(root: Path) -> None:
    known = built(root)
    for turn in range(3):
        write(root / "file", "dddd", TIME + 1 + turn)
        known = built(root, known)
    assert known is not None
    (older,) = known.places["context"].older.values()
    assert older.count(b"file") == 3
    assert b"other" not in older


def test_history_of_two_in_turn_does_not_grow(root: Path, tmp_path: Path) -> None:
    other = tmp_path / "other"
    write(other / "file", "xxxx", TIME + 1)
    known = built(other, built(root))
    sizes = set()
    for _ in range(3):
        known = built(other, built(root, known))
        assert known is not None
        sizes.add(sum(map(len, known.places["context"].older.values())))
    assert len(sizes) == 1


def remembered(root: Path, before: Fingerprint, *, began: int = LATER) -> bool:
    """Whether an image that was made of the root is taken for one of what was there before."""
    known = context.learn(None, before, take(root), began, MADE)
    assert known is not None
    return known.made == MADE


def test_an_image_of_what_stood_still_is_remembered(root: Path) -> None:
    assert remembered(root, take(root))


def test_one_of_several_directories_too(root: Path) -> None:
    both = take(root, "context", "dockerfile")
    known = context.learn(None, both, both, LATER, MADE)
    assert known is not None
    assert known.made == MADE


def test_one_of_what_changes_meanwhile_is_not(root: Path) -> None:
    before = take(root)
    write(root / "below" / "file", "dddd")
    assert not remembered(root, before)


def test_one_of_a_file_that_came_and_went_is_not(root: Path) -> None:
    before = take(root)
    write(root / "below" / "visitor", "")
    (root / "below" / "visitor").unlink()
    assert not remembered(root, before)


@pytest.mark.parametrize("name", ["file", "empty", "below", "."])
def test_one_of_what_can_change_unseen_is_not(root: Path, name: str) -> None:
    """What has a time of now may have the same one after a change."""
    changed = (root / name).lstat().st_ctime_ns
    times = [path.lstat().st_ctime_ns for path in (root, *root.rglob("*"))]
    assert not remembered(root, take(root), began=changed)
    assert remembered(root, take(root), began=max(times) + 3_000_000_000)


def test_one_of_a_directory_that_the_builder_writes_into_is_not(root: Path) -> None:
    """Nobody can tell who else was there."""
    before = take(root, own=(root / "below" / "archive",))
    known = context.learn(None, before, before, LATER, MADE)
    assert known is not None
    assert known.made is None


def test_one_of_files_whose_times_say_little_is_not(root: Path) -> None:
    found = context.take({"context": root}, (), mounts(root, "nfs4"))
    assert not found.has_stood_still(found, LATER)


def test_what_was_written_is_read(root: Path, tmp_path: Path) -> None:
    path = tmp_path / "known"
    found = take(root, "context", "dockerfile")
    known = context.learn(None, found, found, LATER)
    write(root / "file", "dddd", TIME + 1)
    after = take(root, "context", "dockerfile")
    known = context.learn(known, after, after, LATER, MADE)
    assert known is not None
    assert known.made == MADE
    assert known.write(path)
    read = context.read(path)
    assert read == known
    assert read.places["context"].last is read.places["dockerfile"].last
    assert path.stat().st_mode & 0o777 == 0o600
    assert list(tmp_path.glob(".tmp-*")) == []


def test_times_that_the_state_does_not_keep(root: Path, tmp_path: Path) -> None:
    """A file system of whole seconds, as BuildKit's copy would lie on."""
    known = built(root)
    assert known is not None
    real = os.utime

    def coarse(file: int, *, ns: tuple[int, int]) -> None:
        real(file, ns=(ns[0] // 10**9 * 10**9, ns[1] // 10**9 * 10**9))

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(os, "utime", coarse)
        assert not known.write(tmp_path / "known")
    assert [path.name for path in tmp_path.iterdir()] == ["source"]


def test_a_place_that_cannot_be_written(root: Path, tmp_path: Path) -> None:
    known = built(root)
    assert known is not None
    assert not known.write(tmp_path / "missing" / "known")


def test_what_is_no_such_file_is_not_read(tmp_path: Path) -> None:
    (tmp_path / "link").symlink_to("file")
    Known({}).write(tmp_path / "file")
    os.mkfifo(tmp_path / "fifo")
    assert context.read(tmp_path / "file") == Known({})
    assert context.read(tmp_path / "link") is None
    assert context.read(tmp_path / "fifo") is None
    assert context.read(tmp_path) is None
    assert context.read(tmp_path / "missing") is None


@given(st.integers(min_value=0), st.integers(1, 255))
def test_one_wrong_byte_is_noticed(at: int, change: int) -> None:
    tree = {b"": bytes(24), b"a": bytes(24)}
    data = bytearray(context_store.encode(Known({"context": Place(tree)}, MADE)))
    data[at % len(data)] ^= change
    with pytest.raises(ValueError, match="damaged"):
        context_store.decode(bytes(data))


@given(st.binary(max_size=80))
def test_a_hostile_file_is_never_more_than_unknown(body: bytes) -> None:
    """Also one whose digest is right."""
    digest = context_store._digest(body)
    try:
        known = context_store.decode(context_store._MAGIC + digest + body)
    except ValueError:
        return
    tree = {b"": bytes(24)}
    assert isinstance(Fingerprint(dict.fromkeys(known.places, tree)).doubt(known), str)


@given(st.binary(max_size=120))
def test_hostile_blocks_are_doubted(block: bytes) -> None:
    tree = {b"": walk(b"/dev/null")[b""]}
    place = Place({b"": block}, {b"": block})
    assert isinstance(Fingerprint({"context": tree}).doubt(Known({"context": place})), str)
