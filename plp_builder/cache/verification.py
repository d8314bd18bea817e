"""Whether blobs are what their digests say, without reading the same blob twice."""

from __future__ import annotations

import hashlib
import json
import os
from collections.abc import Callable, Iterable
from contextlib import suppress
from pathlib import Path
from threading import Event, Thread

from plp_builder.cache.files import replacing
from plp_builder.errors import ArchiveInvalid
from plp_builder.oci import layout
from plp_builder.oci.layout import BlobDamaged
from plp_builder.oci.model import Descriptor

RECORD = ".verified.json"

_THREADS = 2
_BUFFER = 1024 * 1024
_ALONE = 8 * 1024 * 1024
_BETWEEN_CHECKS = 0.05


class Record:
    """Which blobs of a layout were verified, and how their files looked then.

    Size, modification time and inode tell a changed file. The change time (ctime) would tell
    more, but every hard link that a build makes or removes sets it. Content that was changed
    behind all three is still found: BuildKit verifies each blob that it takes.
    """

    def __init__(self, known: dict[str, tuple[int, int, int]]) -> None:
        self._known = known
        self._changed = False

    @classmethod
    def read(cls, directory: Path) -> Record:
        """The record in a layout; an empty one where there is none that can be used."""
        try:
            data = json.loads(layout.read_small(directory / RECORD, RECORD))
            known = {str(name): (int(a), int(b), int(c)) for name, (a, b, c) in data.items()}
        except (OSError, ArchiveInvalid, RecursionError):
            known = {}
        except (ValueError, TypeError, AttributeError, OverflowError):  # 1e999 is no integer
            known = {}
        return cls(known)

    def holds(self, encoded: str, status: os.stat_result) -> bool:
        """Whether this very file was verified as the blob ``encoded``."""
        return self._known.get(encoded) == _look(status)

    def add(self, encoded: str, status: os.stat_result) -> None:
        """Note that this file has been verified."""
        if not self.holds(encoded, status):
            self._known[encoded] = _look(status)
            self._changed = True

    def keep_only(self, encoded: Iterable[str]) -> None:
        """Forget all blobs but these."""
        gone = self._known.keys() - set(encoded)
        for name in gone:
            del self._known[name]
        self._changed = self._changed or bool(gone)

    def write(self, directory: Path) -> None:
        """Keep it in the layout, if anything is new. A failure costs time later, nothing else."""
        if self._changed:
            self.copy(directory)
            self._changed = False

    def copy(self, directory: Path) -> None:
        """Write it to another layout, which has hard links to the same files."""
        with suppress(OSError), replacing(directory / RECORD) as file:
            file.write(json.dumps(self._known, separators=(",", ":")).encode())


def verify(
    directory: Path,
    descriptors: Iterable[Descriptor],
    record: Record,
    *,
    check: Callable[[], None],
) -> list[BlobDamaged]:
    """Verify the blobs of a layout; what is wrong is returned, what is right is recorded.

    Two at a time; ``check`` is called every 50 ms and may raise. OSError where reading fails.
    """
    damaged: list[BlobDamaged] = []
    unknown: list[tuple[Descriptor, os.stat_result]] = []
    for descriptor in descriptors:
        try:
            status = layout.blob_status(directory, descriptor)
        except BlobDamaged as damage:
            damaged.append(damage)
            continue
        if not record.holds(descriptor.digest.encoded, status):
            unknown.append((descriptor, status))
    check()
    for (descriptor, status), correct in _hashed(directory, unknown, check):
        if correct:
            record.add(descriptor.digest.encoded, status)
        else:
            problem = "has other content than its digest says"
            damaged.append(BlobDamaged(descriptor.digest, problem))
    return damaged


_Job = tuple[Descriptor, os.stat_result]


def _hashed(
    directory: Path, jobs: list[_Job], check: Callable[[], None]
) -> list[tuple[_Job, bool]]:
    """Each job and whether its blob is correct."""
    waiting = sorted(jobs, key=lambda job: job[0].size)
    done: list[tuple[_Job, bool]] = []
    failures: list[OSError] = []
    stop = Event()

    def work() -> None:
        while not stop.is_set():
            try:
                job = waiting.pop()
            except IndexError:
                return
            try:
                done.append((job, _is_correct(directory, job[0], stop)))
            except OSError as error:
                failures.append(error)
                stop.set()

    if sum(job[0].size for job in jobs) <= _ALONE:
        work()
    else:
        _in_threads(work, check, stop)
    if failures:
        raise failures[0]
    return done


def _in_threads(work: Callable[[], None], check: Callable[[], None], stop: Event) -> None:
    threads = [Thread(target=work, name="verify", daemon=True) for _ in range(_THREADS)]
    try:
        for thread in threads:
            thread.start()
        for thread in threads:
            while thread.is_alive():
                thread.join(_BETWEEN_CHECKS)
                check()
    finally:
        stop.set()
        for thread in threads:
            if thread.ident is not None:
                thread.join()


def _is_correct(directory: Path, descriptor: Descriptor, stop: Event) -> bool:
    hashed = hashlib.sha256()
    buffer = memoryview(bytearray(min(_BUFFER, descriptor.size + 1)))
    path = layout.blob_path(directory, descriptor.digest)
    with path.open("rb", buffering=0) as file:
        while (count := file.readinto(buffer)) and not stop.is_set():
            hashed.update(buffer[:count])
    return hashed.hexdigest() == descriptor.digest.encoded


def _look(status: os.stat_result) -> tuple[int, int, int]:
    return status.st_size, status.st_mtime_ns, status.st_ino
