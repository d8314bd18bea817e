"""The packed cache mounts in the portable cache.

`$PLP_CACHE_PATH/buildkit/mounts/<image>/<mount>.json` says what is known of a mount; its archive is
`<SHA-256>/mount.tar` beside it. A record is written after its archive, and what no record needs
goes: so whatever a killed build leaves is whole, or not used and removed by the next one.
"""

from __future__ import annotations

import hashlib
import json
import os
import re
import stat
from collections.abc import Callable, Iterable, Iterator, Mapping
from contextlib import AbstractContextManager, contextmanager, suppress
from pathlib import Path

from plp_builder.cache import read_only
from plp_builder.cache.files import random_name, remove, replace_durably
from plp_builder.cache.lock import locked, try_lock
from plp_builder.cache.mounts import DIRECTORY
from plp_builder.cache.mounts.recipe import ARCHIVE
from plp_builder.errors import ArchiveInvalid
from plp_builder.oci import layout
from plp_builder.tuples import NamedTuple

_LOCK = ".lock"
_STAGING = ".staging-"
_RECORD = re.compile(r"[0-9a-f]{40}\.json")
_DIGEST = re.compile(r"[0-9a-f]{64}")
_BUFFER = 1024 * 1024
_SHARE = 2
"""The part of PLP_CACHE_MAX_SIZE that all packed mounts may take, as a divisor."""

Check = Callable[[], None]


class Kept(NamedTuple):
    """What is known of a mount: digests of its listing and of its archive, and its size.

    ``archive`` is empty where it was too large to be kept.
    """

    listing: str
    archive: str
    size: int


class Store:
    """The packed mounts of the image ``identity`` in the cache directory ``cache``.

    ``bound`` is PLP_CACHE_MAX_SIZE. Methods raise OSError, LockNotFreeError and what ``check``
    raises, except where they say otherwise.
    """

    def __init__(self, cache: Path, identity: str, bound: int, check: Check) -> None:
        self.root = cache / "buildkit" / DIRECTORY
        self._own = self.root / identity
        self._share = bound // _SHARE
        self._check = check

    def read(self, key: str) -> Kept | None:
        """What is known of the mount ``key``; None where nothing can be used. Never raises."""
        return _read(self._own / f"{key}.json")

    def is_read_only(self) -> bool:
        """Whether the cache keeps nothing, which is told with its layers. Never raises."""
        return read_only.is_read_only(self.root.parent)

    def place(self, kept: Kept) -> Path:
        """The directory with the archive."""
        return self._own / kept.archive

    def is_sound(self, kept: Kept) -> bool:
        """Whether the archive is what was packed."""
        path = self.place(kept) / ARCHIVE
        try:
            found = path.lstat()
        except OSError:
            return False
        regular = stat.S_ISREG(found.st_mode) and found.st_size == kept.size
        return regular and digest(path, self._check) == kept.archive

    def reading(self, waiting: Callable[[], None]) -> AbstractContextManager[None]:
        """While archives are read, so that no other build removes them."""
        return locked(self.root / _LOCK, exclusive=False, check=self._check, waiting=waiting)

    @contextmanager
    def staging(self) -> Iterator[Path]:
        """A directory of this build's own on the same file system; it goes afterwards."""
        _make(self.root)
        place = self.root / random_name(_STAGING)
        place.mkdir()
        held = os.open(place, os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)
        try_lock(held)
        try:
            yield place
        finally:
            remove(place)
            os.close(held)

    def keep(
        self,
        packed: Mapping[str, tuple[Kept, Path]],
        same: Iterable[str],
        waiting: Callable[[], None],
    ) -> tuple[str, ...]:
        """Take in archives by key, from a staging directory; the keys that are too large.

        Of a mount that is too large its listing is noted, so that it is not packed in vain again.
        ``same`` are the keys of mounts that are as they were, and were of use.
        """
        with locked(self.root / _LOCK, exclusive=True, check=self._check, waiting=waiting):
            if packed:
                _make(self._own)
            for key in same:
                with suppress(OSError):
                    os.utime(self._own / f"{key}.json", follow_symlinks=False)
            refused = []
            for key, (kept, path) in packed.items():
                if kept.size > self._share:
                    refused.append(key)
                    self._write(key, kept._replace(archive=""))
                    continue
                place = self.place(kept)
                remove(place)
                place.mkdir()
                path.chmod(0o644)
                path.rename(place / ARCHIVE)
                self._write(key, kept)
            self._prune()
        return tuple(refused)

    def put_aside(self, key: str, kept: Kept, aside: Path, waiting: Callable[[], None]) -> None:
        """Move a damaged archive to the directory ``aside``, which keeps the last one only."""
        with locked(self.root / _LOCK, exclusive=True, check=self._check, waiting=waiting):
            if self.read(key) != kept:
                return
            (self._own / f"{key}.json").unlink(missing_ok=True)
            place = self.place(kept)
            if os.path.lexists(place):
                remove(aside)
                try:
                    aside.mkdir(parents=True)
                    place.rename(aside / random_name(f"{key}."))
                except OSError:
                    remove(place)

    def _write(self, key: str, kept: Kept) -> None:
        path = self._own / f"{key}.json"
        if path.is_dir():
            remove(path)
        replace_durably(path, json.dumps(kept._asdict()).encode())

    def _prune(self) -> None:
        """Delete the mounts used longest ago until the rest fits, and what nothing needs."""
        records = sorted(self._records(), reverse=True)
        total = 0
        needed: set[Path] = set()
        for _, path, kept in records:
            total += kept.size if kept.archive else 0
            if total <= self._share:
                needed |= {path, path.parent / kept.archive} if kept.archive else {path}
        for image in _names(self.root):
            if image.startswith(_STAGING):
                _remove_abandoned(self.root / image)
                continue
            for name in _names(self.root / image):
                if self.root / image / name not in needed:
                    remove(self.root / image / name)
            with suppress(OSError):
                (self.root / image).rmdir()

    def _records(self) -> Iterator[tuple[int, Path, Kept]]:
        """All records of all images, each after the time when it was last of use."""
        for image in _names(self.root):
            for name in _names(self.root / image):
                path = self.root / image / name
                if _RECORD.fullmatch(name) and (kept := _read(path)):
                    yield path.lstat().st_mtime_ns, path, kept


def disk_usage(cache: Path) -> int:
    """The bytes that all packed mounts take in a cache directory. Never raises."""
    root = cache / "buildkit" / DIRECTORY
    total = 0
    for image in _names(root):
        for name in _names(root / image):
            with suppress(OSError):
                total += (root / image / name / ARCHIVE).lstat().st_size
    return total


def digest(path: Path, check: Check) -> str:
    """The SHA-256 of a file. ``check`` is called every few MB. Raises OSError."""
    hashed = hashlib.sha256()
    buffer = memoryview(bytearray(_BUFFER))
    with path.open("rb", buffering=0) as file:
        while count := file.readinto(buffer):
            hashed.update(buffer[:count])
            check()
    return hashed.hexdigest()


def _read(path: Path) -> Kept | None:
    try:
        found = json.loads(layout.read_small(path, path.name))
        kept = Kept(str(found["listing"]), str(found["archive"]), int(found["size"]))
    except (OSError, ValueError, LookupError, TypeError, OverflowError, RecursionError):
        return None
    except ArchiveInvalid:
        return None
    return kept if not kept.archive or _DIGEST.fullmatch(kept.archive) else None


def _make(directory: Path) -> None:
    """A directory, in place of a link that would lead elsewhere."""
    if directory.is_symlink():
        directory.unlink()
    directory.mkdir(parents=True, exist_ok=True)


def _names(directory: Path) -> list[str]:
    if directory.is_symlink() or not directory.is_dir():
        return []
    with suppress(OSError):
        return os.listdir(directory)  # noqa: PTH208 - names are all that is wanted
    return []


def _remove_abandoned(place: Path) -> None:
    with suppress(OSError):
        held = os.open(place, os.O_RDONLY | os.O_DIRECTORY | os.O_NOFOLLOW | os.O_CLOEXEC)
        try:
            if try_lock(held):
                remove(place)
        finally:
            os.close(held)
