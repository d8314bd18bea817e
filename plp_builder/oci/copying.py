"""Bytes from one file to another, by the kernel where it can."""

from __future__ import annotations

import os
from collections.abc import Callable
from contextlib import suppress
from typing import Final

_CHUNK: Final = 32 * 1024 * 1024
"""Bytes between two checks: a few hundredths of a second on memory, half a second on a disk."""
_BUFFER: Final = 256 * 1024


def copy(
    source: int, target: int, size: int, offset: int, check: Callable[[], None] = lambda: None
) -> int:
    """Copy the first ``size`` bytes of ``source`` to ``offset`` of ``target``; both descriptors.

    Returns how many there were: fewer where the source ends before. ``check`` is called between
    chunks and may raise. The disk gets what is there while more is copied, since the caller will
    wait for it. The target's position is undefined afterwards. Raises OSError.
    """
    done = 0
    for way in _WAYS:
        # An error or an early end may be the way's own: EXDEV, EINVAL, ENOSYS, EPERM under a
        # seccomp profile, nothing at all on odd file systems. The last way's word counts.
        while done < size:
            check()
            try:
                count = way(source, target, min(_CHUNK, size - done), done, offset + done)
            except OSError:
                if way is _WAYS[-1]:
                    raise
                break
            if not count:
                break
            with suppress(OSError):
                # Drops nothing that is not on the disk, but has it written (mm/fadvise.c).
                os.posix_fadvise(target, offset + done, count, os.POSIX_FADV_DONTNEED)
            done += count
    return done


def _in_kernel(source: int, target: int, count: int, begin: int, offset: int) -> int:
    return os.copy_file_range(source, target, count, begin, offset)


def _by_sendfile(source: int, target: int, count: int, begin: int, offset: int) -> int:
    os.lseek(target, offset, os.SEEK_SET)
    return os.sendfile(target, source, begin, count)


def _by_hand(source: int, target: int, count: int, begin: int, offset: int) -> int:
    buffer = memoryview(bytearray(min(count, _BUFFER)))
    done = 0
    while read := os.preadv(source, [buffer[: count - done]], begin + done):
        write_all(target, buffer[:read], offset + done)
        done += read
    return done


_WAYS: Final = (_in_kernel, _by_sendfile, _by_hand)


def write_all(target: int, data: bytes | memoryview, offset: int) -> None:
    """Write all of ``data`` at ``offset``. Raises OSError."""
    left = memoryview(data)
    while left:
        count = os.pwrite(target, left, offset)
        left = left[count:]
        offset += count
