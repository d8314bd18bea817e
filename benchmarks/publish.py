"""What a publication of 1 GiB costs, against plain `skopeo copy` of the same archive.

Both push to a new, empty registry on loopback, in turn; who begins changes every round. What is
left to be written to the disk is written between the runs, outside the clock.
"""

from __future__ import annotations

import hashlib
import os
import random
import shutil
import sys
import tarfile
import threading
import zlib
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import NamedTuple

from benchmarks.measure import Run, Spread, run, spread
from scripts.set_up.step import ROOT, SetupError
from scripts.set_up.step import run as setup_run
from tests.support import layouts
from tests.support.registries import Kind, running

SIZE = 1 << 30
BLOCK = 64 << 20
LAYERS = (8, 1)
REGISTRY = Kind("registry", "open")
SUBJECTS = ("skopeo", "one tag", "five tags")
LOOK = 0.05
"""Seconds between two looks at the disk."""
TEMPORARY = (Path("/tmp"), Path("/var/tmp"))  # noqa: S108 - only looked at
"""skopeo unpacks below /var/tmp, whatever TMPDIR says."""

COMMIT = "0123456789abcdef0123456789abcdef01234567"
_TAGS = {
    "one tag": {"PLP_TAG": "nightly"},
    # 1.2.3, 1.2, 1, main and main-0123456
    "five tags": {"PLP_TAG": "v1.2.3", "PLP_BRANCH": "main"},
}


class Cost(NamedTuple):
    """What a subject needed; ``disk`` and ``memory`` are the peaks of one more, watched run.

    ``ratio`` is to plain skopeo, of "unchanged" to nothing. ``processor`` is the time of all
    its processes on a core, which depends less on what else the machine does.
    """

    layers: int
    subject: str
    seconds: Spread
    ratio: float | None
    processor: Spread
    disk: int
    memory: int


class Place(NamedTuple):
    """Where one run happens: the registry and an empty home with a TMPDIR."""

    address: str
    home: Path

    def environment(self) -> dict[str, str]:
        """What both sides get."""
        return {
            "PATH": os.environ["PATH"],
            "HOME": str(self.home),
            "TMPDIR": str(self.home / "tmp"),
            "LANG": "C.UTF-8",
            "PYTHONPATH": str(ROOT),
            "PYTHONDONTWRITEBYTECODE": "1",
        }


def skopeo_version() -> str:
    """What the skopeo on PATH says it is."""
    return setup_run(["skopeo", "--version"]).strip()


def costs(directory: Path, rounds: int) -> Iterator[Cost]:
    """Measure every subject with every archive; 3 GiB of disk are needed for a moment."""
    for layers in LAYERS:
        archive = make_archive(directory / f"{layers}-layers.tar", layers)
        yield from _compare(directory, archive, layers, rounds)
        archive.unlink()


def _compare(directory: Path, archive: Path, layers: int, rounds: int) -> Iterator[Cost]:
    seconds: dict[str, list[float]] = {name: [] for name in (*SUBJECTS, "unchanged")}
    processor: dict[str, list[float]] = {name: [] for name in seconds}

    def measure(place: Place, subject: str, name: str) -> None:
        before = _processor()
        seconds[name].append(_publish(place, archive, subject).seconds)
        processor[name].append(_processor() - before)

    for number in range(rounds):
        begin = number % len(SUBJECTS)
        for subject in (*SUBJECTS[begin:], *SUBJECTS[:begin]):
            with _place(directory) as place:
                measure(place, subject, subject)
                if subject == "five tags":
                    measure(place, subject, "unchanged")
    peaks = dict(_peaks(directory, archive))
    base = spread(seconds["skopeo"]).median
    for subject, values in seconds.items():
        of = spread(values)
        ratio = None if subject == "unchanged" else of.median / base
        yield Cost(layers, subject, of, ratio, spread(processor[subject]), *peaks[subject])


def _processor() -> float:
    """Seconds on a core of all children that have ended, and of theirs."""
    times = os.times()
    return times.children_user + times.children_system


def _peaks(directory: Path, archive: Path) -> Iterator[tuple[str, tuple[int, int]]]:
    for subject in SUBJECTS:
        with _place(directory) as place:
            yield subject, _watched(place, archive, subject)
            if subject == "five tags":
                yield "unchanged", _watched(place, archive, subject)


def _watched(place: Place, archive: Path, subject: str) -> tuple[int, int]:
    """The most that the run had on disk, and the peak memory of its own process.

    On disk: below its home, and what came into the directories for temporary files meanwhile.
    """
    peak, over = 0, threading.Event()
    before = {entry for directory in TEMPORARY for entry in directory.iterdir()}

    def look() -> None:
        nonlocal peak
        while not over.wait(LOOK):
            new = {entry for directory in TEMPORARY for entry in directory.iterdir()} - before
            peak = max(peak, sum(map(_used, (place.home, *new))))

    looking = threading.Thread(target=look)
    looking.start()
    try:
        memory = _publish(place, archive, subject, memory=True).peak
    finally:
        over.set()
        looking.join()
    return peak, memory


def _used(directory: Path) -> int:
    """Bytes of the files below a directory; what goes meanwhile does not count."""
    total = 0
    for where, _, names in os.walk(directory):
        for name in names:
            try:
                total += Path(where, name).lstat().st_size
            except FileNotFoundError:
                continue
    return total


def _publish(place: Place, archive: Path, subject: str, *, memory: bool = False) -> Run:
    repository = f"{place.address}/team/app"
    environment = place.environment()
    if subject == "skopeo":
        target = f"docker://{repository}:nightly"
        command = ["skopeo", "--insecure-policy", "copy", "--dest-tls-verify=false"]
        command += [f"oci-archive:{archive}", target]
    else:
        command = [sys.executable, "-m", "publisher"]
        environment |= {
            "PLP_ARTIFACT_PATH": str(archive),
            "PLP_IMAGE_REPOSITORY": repository,
            "PLP_COMMIT_SHA": COMMIT,
            "PLP_REGISTRY_INSECURE": "true",
            **_TAGS[subject],
        }
    result = run(command, environment, place.home, memory=memory)
    if result.code:
        raise SetupError(f"{subject} ended with {result.code}:\n{result.output}")
    return result


@contextmanager
def _place(directory: Path) -> Iterator[Place]:
    work = directory / "publish"
    try:
        (work / "home/tmp").mkdir(parents=True)
        with running(REGISTRY, work / "registry") as registry:
            os.sync()
            yield Place(registry.address, work / "home")
    finally:
        shutil.rmtree(work, ignore_errors=True)


def make_archive(path: Path, layers: int, size: int = SIZE) -> Path:
    """An OCI archive of ``layers`` gzip layers that do not compress, ``size`` bytes in all.

    One random block is repeated, each time with its number in front. The layers are gzip
    without compression: what skopeo and registries do with them is the same, and it is made
    in seconds.
    """
    block = random.Random(3).randbytes(min(BLOCK, size // layers))  # noqa: S311 - content
    files: layouts.Files = {}
    descriptors, diff_ids = [], []
    with tarfile.open(path, "w") as tar:
        for number in range(layers):
            temporary = path.with_suffix(".layer")
            digest, diff_id = _layer(temporary, block, number, size // layers)
            member = tar.gettarinfo(str(temporary), f"blobs/sha256/{digest}")
            with temporary.open("rb") as file:
                tar.addfile(member, file)
            descriptors.append(
                {"mediaType": layouts.LAYER, "digest": f"sha256:{digest}", "size": member.size}
            )
            diff_ids.append(f"sha256:{diff_id}")
            temporary.unlink()
        rootfs = {"type": "layers", "diff_ids": diff_ids}
        config = {"architecture": "amd64", "os": "linux", "rootfs": rootfs}
        manifest = {
            "schemaVersion": 2,
            "mediaType": layouts.MANIFEST,
            "config": layouts.add_json(files, config, layouts.CONFIG),
            "layers": descriptors,
        }
        layouts.finish(files, layouts.add_json(files, manifest, layouts.MANIFEST))
        for name, data in files.items():
            layouts.add_member(tar, name, data)
    return path


def _layer(path: Path, block: bytes, number: int, size: int) -> tuple[str, str]:
    """Write a layer with one file; the hexadecimal sha256 of it, and of what is in the gzip."""
    member = tarfile.TarInfo(f"file-{number}")
    member.size = size
    packer = zlib.compressobj(0, wbits=31)
    digest, diff_id = hashlib.sha256(), hashlib.sha256()
    with path.open("wb") as file:

        def write(data: bytes) -> None:
            diff_id.update(data)
            packed = packer.compress(data)
            digest.update(packed)
            file.write(packed)

        write(member.tobuf())
        for start in range(0, size, len(block)):
            stamp = (number << 32 | start).to_bytes(8, "big")
            write((stamp + block[8:])[: size - start])
        write(bytes(-size % 512 + 1024))
        rest = packer.flush()
        digest.update(rest)
        file.write(rest)
    return digest.hexdigest(), diff_id.hexdigest()
