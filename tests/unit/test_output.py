"""The archive appears whole or not at all, whatever the file system can do."""

from __future__ import annotations

import errno
import fcntl
import io
import json
import os
import tarfile
from collections.abc import Callable
from contextlib import nullcontext
from pathlib import Path

import pytest

from plp_builder.errors import ArchiveInvalid, ArchiveNotWritten
from plp_builder.oci.archive import verify
from plp_builder.oci.layout import BlobDamaged
from plp_builder.oci.model import Descriptor, parse_descriptor
from plp_builder.output import open_output
from tests.support import layouts

NAME = "container-image.tar"
GOOD = layouts.tar_of(layouts.image_files(tags=["app:1"]))


def no_check() -> None:
    return None


@pytest.fixture(params=["without a name", "with a temporary name", "without links"])
def build(request: pytest.FixtureRequest, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A build directory: on a good file system, one without O_TMPFILE, one that cannot link."""
    real = os.open

    def without_tmpfile(path: str, flags: int, *args: int, **keys: int) -> int:
        if flags & os.O_TMPFILE == os.O_TMPFILE:
            raise OSError(errno.EOPNOTSUPP, "not supported")
        return real(path, flags, *args, **keys)

    def no_link(*_: object, **__: object) -> None:
        raise OSError(errno.EPERM, "not permitted")

    if request.param == "with a temporary name":
        monkeypatch.setattr(os, "open", without_tmpfile)
    elif request.param == "without links":
        monkeypatch.setattr(os, "link", no_link)
    return tmp_path


def publish(build: Path, data: bytes, before: Callable[[], object] = no_check) -> None:
    """Write ``data`` and publish it; ``before`` happens in between."""
    with open_output(build, NAME) as output:
        output.file.write(data)
        before()
        output.publish(no_check)


def left(build: Path) -> list[str]:
    return sorted(path.name for path in build.iterdir())


def test_a_published_archive_is_what_was_written(build: Path) -> None:
    (build / NAME).write_bytes(b"old")
    with open_output(build, NAME) as output:
        output.file.write(GOOD)
        assert (build / NAME).read_bytes() == b"old"
        found = output.publish(no_check)
    assert (build / NAME).read_bytes() == GOOD
    assert found.size == len(GOOD)
    assert left(build) == [NAME]


def test_a_second_attempt_starts_empty(build: Path) -> None:
    with open_output(build, NAME) as output:
        output.file.write(GOOD + GOOD)
        output.restart()
        output.file.write(GOOD)
        output.publish(no_check)
    assert (build / NAME).read_bytes() == GOOD


def test_everybody_may_read_it(build: Path) -> None:
    publish(build, GOOD)
    status = (build / NAME).stat()
    assert status.st_mode & 0o7777 == 0o644
    assert (status.st_uid, status.st_gid) == (build.stat().st_uid, build.stat().st_gid)


@pytest.mark.parametrize("written", [b"", b"not a tar", GOOD[:-2000]])
def test_what_is_no_archive_leaves_the_old_one_and_nothing_else(
    build: Path, written: bytes
) -> None:
    (build / NAME).write_bytes(b"old")
    with pytest.raises(ArchiveInvalid):
        publish(build, written)
    assert (build / NAME).read_bytes() == b"old"
    assert left(build) == [NAME]


def test_leaving_without_publishing_leaves_nothing(build: Path) -> None:
    with open_output(build, NAME) as output:
        output.file.write(GOOD)
    assert left(build) == []


def test_a_stop_at_the_last_moment_leaves_the_old_one(build: Path) -> None:
    """However often ``check`` is asked: while it stops the publishing, nothing is published."""

    class StopError(Exception):
        pass

    (build / NAME).write_bytes(b"old")
    for allowed in range(100):
        calls = iter(range(allowed))

        def check(calls: object = calls) -> None:
            if next(calls, None) is None:  # type: ignore[call-overload]
                raise StopError

        try:
            with open_output(build, NAME) as output:
                output.file.write(GOOD)
                output.publish(check)
        except StopError:
            assert (build / NAME).read_bytes() == b"old"
            assert left(build) == [NAME]
        else:
            break
    assert allowed > 1
    assert (build / NAME).read_bytes() == GOOD


@pytest.mark.parametrize("call", ["fsync", "replace", "fchmod"])
def test_a_disk_that_fails_leaves_the_old_one(
    build: Path, monkeypatch: pytest.MonkeyPatch, call: str
) -> None:
    def fail(*_: object, **__: object) -> None:
        raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))

    (build / NAME).write_bytes(b"old")
    with pytest.raises(ArchiveNotWritten) as failed:
        publish(build, GOOD, lambda: monkeypatch.setattr(os, call, fail))
    assert failed.value.why == ("No space left on device",)
    assert (build / NAME).read_bytes() == b"old"
    assert left(build) == [NAME]


def test_an_owner_that_cannot_be_given_is_not_insisted_on(
    build: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def refuse(*_: object) -> None:
        raise PermissionError(errno.EPERM, "not permitted")

    monkeypatch.setattr(os, "fchown", refuse)
    publish(build, GOOD)
    assert (build / NAME).read_bytes() == GOOD


def test_a_link_is_replaced_and_never_written_through(build: Path) -> None:
    target = build / "target"
    target.write_bytes(b"precious")
    (build / NAME).symlink_to(target)
    publish(build, GOOD)
    assert target.read_bytes() == b"precious"
    assert not (build / NAME).is_symlink()


def test_a_directory_in_its_place_is_told_before_anything_is_built(build: Path) -> None:
    (build / NAME).mkdir()
    with pytest.raises(ArchiveNotWritten, match="is a directory"):
        open_output(build, NAME)
    assert left(build) == [NAME]


def test_a_directory_that_appears_meanwhile_is_left_alone(build: Path) -> None:
    with pytest.raises(ArchiveNotWritten):
        publish(build, GOOD, (build / NAME).mkdir)
    assert left(build) == [NAME]


@pytest.mark.parametrize("kind", ["missing", "a file"])
def test_a_build_directory_that_is_none(tmp_path: Path, kind: str) -> None:
    build = tmp_path / "build"
    if kind == "a file":
        build.touch()
    with pytest.raises(ArchiveNotWritten):
        open_output(build, NAME)


def test_what_killed_builds_left_is_removed(build: Path) -> None:
    ours = f".{NAME}.0123456789ab.partial"
    in_use = f".{NAME}.ba9876543210.partial"
    others = [".other.0123456789ab.partial", f".{NAME}.readme.partial", f"{NAME}.partial"]
    for name in (ours, in_use, *others):
        (build / name).touch()
    with (build / in_use).open("rb") as file:
        fcntl.flock(file, fcntl.LOCK_EX)
        with open_output(build, NAME):
            assert ours not in left(build)
    assert left(build) == sorted([in_use, *others])


def test_a_name_as_long_as_names_may_be(build: Path) -> None:
    name = "n" * 255
    with open_output(build, name) as output:
        output.file.write(GOOD)
        output.publish(no_check)
    assert left(build) == [name]


def test_further_names_are_added_for_docker_load(build: Path) -> None:
    """manifest.json names them all; index.json keeps the one entry that readers want."""
    wanted = ["app:1", "localhost:5000/team/app", "docker.io/library/app:2", "app:1"]
    with open_output(build, NAME) as output:
        output.file.write(GOOD)
        found = output.publish(no_check, references=wanted)
    tags = ["app:1", "localhost:5000/team/app:latest", "app:2"]
    assert list(found.repo_tags) == tags
    assert found.size == (build / NAME).stat().st_size
    with tarfile.open(build / NAME) as after, tarfile.open(fileobj=io.BytesIO(GOOD)) as before:
        assert after.getnames() == before.getnames()
        for name in after.getnames():
            content, old = after.extractfile(name), before.extractfile(name)
            if content is None or old is None:
                continue
            if name == "manifest.json":
                assert json.load(content) == [json.load(old)[0] | {"RepoTags": tags}]
            else:
                assert content.read() == old.read()
    with (build / NAME).open("rb") as file:
        assert verify(file) == found


def test_a_longer_manifest_moves_what_follows(build: Path) -> None:
    """Names that do not fit the block of the old manifest."""
    wanted = [f"example.com/{'a' * 200}:{number}" for number in range(40)]
    with open_output(build, NAME) as output:
        output.file.write(GOOD)
        output.publish(no_check, references=wanted)
    with (build / NAME).open("rb") as file:
        assert verify(file).repo_tags == ("app:1", *wanted)


def test_a_shorter_manifest_leaves_nothing_behind_the_end(build: Path) -> None:
    files = layouts.image_files()
    files["manifest.json"] = json.dumps(json.loads(files["manifest.json"]), indent=900).encode()
    with open_output(build, NAME) as output:
        output.file.write(layouts.tar_of(files))
        output.publish(no_check, references=["a"])
    with (build / NAME).open("rb") as file:
        assert verify(file).repo_tags == ("a:latest",)


def test_an_archive_without_docker_manifest_keeps_its_bytes(build: Path) -> None:
    files = layouts.image_files()
    del files["manifest.json"]
    data = layouts.tar_of(files)
    with open_output(build, NAME) as output:
        output.file.write(data)
        found = output.publish(no_check, references=["a", "b"])
    assert (build / NAME).read_bytes() == data
    assert found.repo_tags == ()


def test_a_file_system_without_locks_is_written_to_all_the_same(
    build: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """What looks left over is then left alone: nobody can tell whether it is in use."""

    def no_locks(*_: object) -> None:
        raise OSError(errno.ENOLCK, "no locks")

    perhaps_in_use = f".{NAME}.0123456789ab.partial"
    (build / perhaps_in_use).touch()
    monkeypatch.setattr(fcntl, "flock", no_locks)
    publish(build, GOOD)
    assert (build / NAME).read_bytes() == GOOD
    assert left(build) == [perhaps_in_use, NAME]


@pytest.mark.parametrize("taken", ["removed", "locked"])
def test_a_temporary_name_that_another_run_takes_for_stale_is_given_up(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, taken: str
) -> None:
    """Between its making and its locking: the archive comes from another one."""
    opened, locked = os.open, fcntl.flock
    taken_once: list[str] = []

    def without_tmpfile(path: str, flags: int, *args: int, **keys: int) -> int:
        if flags & os.O_TMPFILE == os.O_TMPFILE:
            raise OSError(errno.EOPNOTSUPP, "not supported")
        return opened(path, flags, *args, **keys)

    def too_late(descriptor: int, operation: int) -> None:
        if not taken_once:
            (stale,) = left(tmp_path)
            taken_once.append(stale)
            if taken == "locked":
                raise BlockingIOError(errno.EWOULDBLOCK, "locked")
            (tmp_path / stale).unlink()
        locked(descriptor, operation)

    monkeypatch.setattr(os, "open", without_tmpfile)
    monkeypatch.setattr(fcntl, "flock", too_late)
    publish(tmp_path, GOOD)
    assert (tmp_path / NAME).read_bytes() == GOOD
    assert left(tmp_path) == sorted([NAME, *(taken_once if taken == "locked" else [])])


FILES = layouts.image_files()
ENTRY = FILES["manifest.json"][1:-1]


@pytest.mark.parametrize(
    ("data", "reason"),
    [
        (layouts.tar_of(FILES | {"zeros": b"\0" * 2_000_000}), "not near the end"),
        (layouts.tar_of(FILES | {"manifest.json": b"[%b,%b]" % (ENTRY, ENTRY)}), "2 images"),
    ],
)
def test_names_are_only_added_where_buildkit_would_have_put_them(
    build: Path, data: bytes, reason: str
) -> None:
    with open_output(build, NAME) as output:
        output.file.write(data)
        with pytest.raises(ArchiveInvalid, match=reason):
            output.publish(no_check, references=["another"])
    assert left(build) == []


def test_a_second_attempt_on_a_disk_that_fails_is_told(tmp_path: Path) -> None:
    class Broken(io.FileIO):
        def truncate(self, _: object = None) -> int:
            raise OSError(errno.EIO, os.strerror(errno.EIO))

    with open_output(tmp_path, NAME) as output:
        output.file.close()
        output.file = Broken(tmp_path / "broken", "x+")
        with pytest.raises(ArchiveNotWritten) as failed:
            output.restart()
    assert failed.value.why == ("Input/output error",)


@pytest.fixture
def layout(tmp_path: Path) -> tuple[Path, Descriptor]:
    """A layout of the image in ``GOOD``, beside the build directory."""
    files: layouts.Files = {}
    entry = layouts.add_image(files)
    layouts.write(tmp_path / "layout", layouts.finish(files, entry))
    return tmp_path / "layout", parse_descriptor(entry, "the image")


@pytest.fixture
def target(tmp_path: Path) -> Path:
    (tmp_path / "build").mkdir()
    return tmp_path / "build"


def test_an_assembled_archive_is_published(target: Path, layout: tuple[Path, Descriptor]) -> None:
    with open_output(target, NAME) as output:
        output.assemble(*layout, names=["app:1", "app:2"], check=no_check)
        found = output.publish(no_check, verified=True)
    assert (found.repo_tags, found.top.digest) == (("app:1", "app:2"), layout[1].digest)
    with (target / NAME).open("rb") as file:
        assert verify(file) == found
    assert left(target) == [NAME]


def test_verified_blobs_are_not_read_again(target: Path, layout: tuple[Path, Descriptor]) -> None:
    """What hashes them again finds what was changed in the archive since; documents always are."""
    for victim, verified, refused in (
        (b"layer one", True, False),
        (b"layer one", False, True),
        (b'"layers"', True, True),
    ):
        with open_output(target, NAME) as output:
            output.assemble(*layout, check=no_check)
            output.file.seek(0)
            where = output.file.read().index(victim)
            output.file.seek(where)
            output.file.write(victim.swapcase())
            with pytest.raises(ArchiveInvalid) if refused else nullcontext():
                output.publish(no_check, verified=verified)


def test_an_assembly_starts_empty(target: Path, layout: tuple[Path, Descriptor]) -> None:
    with open_output(target, NAME) as output:
        output.file.write(GOOD * 3)
        output.assemble(*layout, check=no_check)
        once = output.publish(no_check)
    assert once.size == (target / NAME).stat().st_size < 3 * len(GOOD)


def test_a_damaged_layout_leaves_the_old_archive(
    target: Path, layout: tuple[Path, Descriptor]
) -> None:
    (target / NAME).write_bytes(b"old")
    with open_output(target, NAME) as output:
        with pytest.raises(BlobDamaged):
            output.assemble(*layout, holds=lambda *_: False, check=no_check)
        assert (target / NAME).read_bytes() == b"old"
        output.assemble(*layout, holds=lambda *_: True, check=no_check)
        output.publish(no_check, verified=True)
    assert left(target) == [NAME]


def test_a_disk_that_is_full_during_the_assembly_is_told(
    target: Path, layout: tuple[Path, Descriptor], monkeypatch: pytest.MonkeyPatch
) -> None:
    def full(*_: object) -> int:
        raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))

    for name in ("copy_file_range", "sendfile", "pwrite"):
        monkeypatch.setattr(os, name, full)
    with open_output(target, NAME) as output, pytest.raises(ArchiveNotWritten) as failed:
        output.assemble(*layout, check=no_check)
    assert failed.value.why == ("No space left on device",)
    assert left(target) == []
