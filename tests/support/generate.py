"""Contexts too large to keep in a repository, the same bytes on every machine.

Content comes from a fixed seed, and times are fixed where asked for, so that two contexts
made with the same arguments are equal in every respect that an image can show.
"""

from __future__ import annotations

import os
import random
from pathlib import Path

MIB = 1 << 20
BLOCK = 64 * MIB
FILES_PER_DIRECTORY = 100
FIXED_TIME = 1_700_000_000

_DOCKERFILE = "FROM scratch\nCOPY {what} /{what}\n"


def many_files(
    context: Path, count: int = 30_000, *, seed: int = 1, mtime: int | None = None
) -> Path:
    """Make a context of ``count`` small files (16 bytes to 2 KiB, all different).

    They lie in directories of a hundred below ``files/``; the Dockerfile copies all of them.
    ``mtime`` in seconds since 1970 is set on every file; None leaves the time of writing.
    Raises FileExistsError if ``context`` exists.
    """
    chance = random.Random(seed)  # noqa: S311 - content, no secret
    context.mkdir(parents=True)
    (context / "Dockerfile").write_text(_DOCKERFILE.format(what="files"))
    for number in range(count):
        directory = context / "files" / f"{number // FILES_PER_DIRECTORY:04d}"
        if number % FILES_PER_DIRECTORY == 0:
            directory.mkdir(parents=True)
        path = directory / f"{number:06d}.txt"
        path.write_bytes(b"%015d\n" % number + chance.randbytes(chance.randrange(2032)))
        if mtime is not None:
            os.utime(path, (mtime, mtime))
    return context


def large_layer(
    context: Path, size: int = 1 << 30, *, seed: int = 2, mtime: int | None = None
) -> Path:
    """Make a context whose one layer is a file of ``size`` bytes that does not compress.

    One random block of 64 MiB is repeated, each time with its number in front: farther apart
    than gzip and zstd look back, so it costs them what random bytes cost, and a second or two
    here. Raises FileExistsError if ``context`` exists.
    """
    block = random.Random(seed).randbytes(min(BLOCK, size))  # noqa: S311 - content, no secret
    context.mkdir(parents=True)
    (context / "Dockerfile").write_text(_DOCKERFILE.format(what="layer.bin"))
    path = context / "layer.bin"
    with path.open("wb") as file:
        for start in range(0, size, BLOCK):
            stamped = start.to_bytes(8, "big") + block[8:]
            file.write(stamped[: size - start])
    if mtime is not None:
        os.utime(path, (mtime, mtime))
    return context
