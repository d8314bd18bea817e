"""The packed cache mounts in a cache directory: whole, bounded, and never trusted."""

from __future__ import annotations

import hashlib
import os
import shutil
from pathlib import Path

import pytest

from plp_builder.cache.mounts.store import Kept, Store, digest, disk_usage
from tests.support.cache import no_check

KEYS = tuple(letter * 40 for letter in "abcd")


class Place:
    """A cache directory; ``keep`` puts an archive of one image's mount into it."""

    def __init__(self, cache: Path) -> None:
        self.cache = cache
        self.root = cache / "buildkit" / "mounts"

    def store(self, image: str = "image", bound: int = 1000) -> Store:
        return Store(self.cache, image, bound, no_check)

    def keep(self, key: str, data: bytes, *, image: str = "image", bound: int = 1000) -> Kept:
        store = self.store(image, bound)
        kept = Kept("listing", hashlib.sha256(data).hexdigest(), len(data))
        with store.staging() as staging:
            path = staging / "archive"
            path.write_bytes(data)
            self.refused = store.keep({key: (kept, path)}, (), no_check)
        self.age()
        return kept

    def age(self) -> None:
        """Everything there becomes older by a second."""
        for path in self.root.rglob("*.json"):
            then = path.stat().st_mtime_ns - 10**9
            os.utime(path, ns=(then, then))

    def files(self) -> list[str]:
        found = (path for path in self.root.rglob("*") if path.is_file())
        return sorted(str(path.relative_to(self.root)) for path in found)


@pytest.fixture
def place(tmp_path: Path) -> Place:
    return Place(tmp_path / "cache")


def test_what_is_kept_is_found_again(place: Place) -> None:
    kept = place.keep(KEYS[0], b"one")
    store = place.store()
    assert store.read(KEYS[0]) == kept
    assert store.is_sound(kept)
    archive = store.place(kept) / "mount.tar"
    assert archive.read_bytes() == b"one"
    assert archive.stat().st_mode & 0o777 == 0o644
    assert disk_usage(place.cache) == 3
    assert store.read(KEYS[1]) is None
    assert place.store("other").read(KEYS[0]) is None


def test_nothing_stays_but_what_is_needed(place: Place) -> None:
    place.keep(KEYS[0], b"one")
    kept = place.keep(KEYS[0], b"two")
    assert place.files() == [".lock", f"image/{kept.archive}/mount.tar", f"image/{KEYS[0]}.json"]


def test_two_mounts_of_the_same_content_share_it(place: Place) -> None:
    place.keep(KEYS[0], b"one")
    kept = place.keep(KEYS[1], b"one")
    place.keep(KEYS[0], b"two")
    assert place.store().is_sound(kept)


def test_the_oldest_go_first(place: Place) -> None:
    for number, key in enumerate(KEYS[:3]):
        place.keep(key, b"%d" % number * 200, image=f"image{number}")
    store = place.store("image0")
    assert store.read(KEYS[0]) is None
    assert place.store("image1").read(KEYS[1])
    assert disk_usage(place.cache) == 400
    assert not (place.root / "image0").exists()


def test_a_mount_that_was_of_use_is_young_again(place: Place) -> None:
    for number, key in enumerate(KEYS[:2]):
        place.keep(key, b"%d" % number * 200)
    place.store().keep({}, [KEYS[0]], no_check)
    place.keep(KEYS[2], b"2" * 200)
    assert [key for key in KEYS if place.store().read(key)] == [KEYS[0], KEYS[2]]


def test_what_is_too_large_is_noted_and_not_kept(place: Place) -> None:
    place.keep(KEYS[1], b"small")
    place.keep(KEYS[0], b"x" * 501)
    assert place.refused == (KEYS[0],)
    assert place.store().read(KEYS[0]) == Kept("listing", "", 501)
    assert disk_usage(place.cache) == 5


def test_a_changed_archive_is_not_sound(place: Place) -> None:
    kept = place.keep(KEYS[0], b"one")
    archive = place.store().place(kept) / "mount.tar"
    for data in (b"two", b"on", b"one "):
        archive.write_bytes(data)
        assert not place.store().is_sound(kept)
    archive.unlink()
    assert not place.store().is_sound(kept)
    archive.symlink_to("/etc/passwd")
    assert not place.store().is_sound(kept)


def test_a_damaged_archive_is_put_aside(place: Place, tmp_path: Path) -> None:
    kept = place.keep(KEYS[0], b"one")
    other = place.keep(KEYS[1], b"two")
    for _ in range(2):
        place.store().put_aside(KEYS[0], kept, tmp_path / "aside", no_check)
    (aside,) = (tmp_path / "aside").iterdir()
    assert (aside / "mount.tar").read_bytes() == b"one"
    assert place.store().read(KEYS[0]) is None
    assert place.store().is_sound(other)


def test_what_another_build_has_replaced_stays(place: Place, tmp_path: Path) -> None:
    before = place.keep(KEYS[0], b"one")
    now = place.keep(KEYS[0], b"two")
    place.store().put_aside(KEYS[0], before, tmp_path / "aside", no_check)
    assert place.store().read(KEYS[0]) == now


@pytest.mark.parametrize(
    "record",
    [
        b"",
        b"{",
        b"[]",
        b'{"listing": "", "archive": "", "size": "many"}',
        b'{"listing": "", "archive": "../../etc", "size": 1}',
        b'{"listing": "", "archive": "/etc", "size": 1}',
        b'{"listing": "", "archive": "", "size": 1e999}',
        b"[" * 100_000,
    ],
)
def test_a_record_that_cannot_be_used_is_none(place: Place, record: bytes) -> None:
    place.keep(KEYS[0], b"one")
    path = place.root / "image" / f"{KEYS[0]}.json"
    path.write_bytes(record)
    assert place.store().read(KEYS[0]) is None
    kept = place.keep(KEYS[1], b"two")
    assert place.files() == [".lock", f"image/{kept.archive}/mount.tar", f"image/{KEYS[1]}.json"]


def test_directories_in_the_way_give_way(place: Place) -> None:
    kept = place.keep(KEYS[0], b"one")
    path = place.root / "image" / f"{KEYS[0]}.json"
    path.unlink()
    path.mkdir()
    shutil.rmtree(place.store().place(kept))
    place.store().place(kept).write_bytes(b"")
    assert place.store().is_sound(place.keep(KEYS[0], b"one"))


def test_what_killed_builds_left_goes_and_living_ones_keep_theirs(place: Place) -> None:
    place.keep(KEYS[0], b"one")
    left = place.root / ".staging-0123"
    (left / "first-0").mkdir(parents=True)
    orphan = place.root / "image" / ("0" * 64)
    orphan.mkdir()
    (orphan / "mount.tar").write_bytes(b"three")
    with place.store().staging() as staging:
        place.keep(KEYS[1], b"two")
        assert staging.is_dir()
    assert not staging.exists()
    assert not left.exists()
    assert not orphan.exists()


def test_links_lead_nowhere(place: Place, tmp_path: Path) -> None:
    precious = tmp_path / "precious"
    (precious / ("0" * 64)).mkdir(parents=True)
    (precious / f"{KEYS[0]}.json").write_text("{}")
    place.keep(KEYS[0], b"one")
    (place.root / "link").symlink_to(precious)
    (place.root / "image" / "link").symlink_to(precious)
    place.keep(KEYS[1], b"two")
    assert len(list(precious.iterdir())) == 2


def test_nothing_is_written_through_links(place: Place, tmp_path: Path) -> None:
    precious = tmp_path / "precious"
    precious.mkdir()
    for link in (place.root, place.root / "image"):
        shutil.rmtree(link, ignore_errors=True)
        link.parent.mkdir(parents=True, exist_ok=True)
        link.symlink_to(precious)
        kept = place.keep(KEYS[0], b"one")
        assert place.store().is_sound(kept)
        assert list(precious.iterdir()) == []


def test_a_stop_ends_the_reading(tmp_path: Path) -> None:
    class StopError(Exception):
        pass

    def stop() -> None:
        raise StopError

    (tmp_path / "file").write_bytes(b"one")
    with pytest.raises(StopError):
        digest(tmp_path / "file", stop)
