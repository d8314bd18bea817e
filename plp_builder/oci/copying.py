"""Bytes from one file to another, by the kernel where it can."""

from __future__ import annotations

import fcntl
import os
import time
from collections.abc import Callable
from contextlib import suppress
from threading import Thread
from typing import Final

_SECTOR: Final = 512
"""Bytes of which direct I/O writes whole numbers, on most disks; others refuse."""
_WINDOW: Final = 8 * 1024 * 1024
"""Bytes mapped in one piece, of which there are two at once: they count as our memory. A whole
number of pages of any size."""
_FAST: Final = 512 * 1024 * 1024
"""Bytes in a second. A slower disk is what one waits for, whichever way the bytes take to it, and
who reads the copy next had better find it in memory."""
_CHUNK: Final = 32 * 1024 * 1024
"""Bytes between two checks: a few hundredths of a second on memory, half a second on a disk."""
_BUFFER: Final = 256 * 1024


def copy(
    source: int, target: int, size: int, offset: int, check: Callable[[], None] = lambda: None
) -> int:
    """Copy the first ``size`` bytes of ``source`` to ``offset`` of ``target``; both descriptors.

    Returns how many there were: fewer where the source ends before. ``check`` is called between
    chunks and may raise. The disk gets what is there while more is copied, since the caller will
    wait for it. The target's position is undefined afterwards, and nobody else may use it
    meanwhile. Raises OSError.
    """
    done = _directly(source, target, size, offset, check)
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


def _directly(source: int, target: int, size: int, offset: int, check: Callable[[], None]) -> int:
    """As much as a fast disk takes from the source's pages themselves, without a copy in memory.

    That costs a twentieth of the processor's time. What fails is found again by who goes on. A copy
    to the beginning of a file is left to the kernel, which may share blocks instead.
    """
    whole = size - size % _SECTOR
    if whole < 2 * _WINDOW or offset % _SECTOR or not offset:
        return 0
    flags = fcntl.fcntl(target, fcntl.F_GETFL)
    try:
        fcntl.fcntl(target, fcntl.F_SETFL, flags | os.O_DIRECT)
    except OSError:  # not on this file system
        return 0
    try:
        done = _in_windows(source, target, whole, offset, check)
    finally:
        fcntl.fcntl(target, fcntl.F_SETFL, flags)
    # Behind its end the last page of a source that has become shorter is full of zeros.
    return min(done, os.fstat(source).st_size)


def _in_windows(source: int, target: int, size: int, offset: int, check: Callable[[], None]) -> int:
    """Two at a time, so that the disk never waits for the next: how many bytes from the beginning.

    More may have been written behind them.
    """
    windows = iter(range(0, size, _WINDOW))
    ended: list[int] = []
    began = time.monotonic()

    def work(check: Callable[[], None] = lambda: None) -> None:
        for begin in windows:
            check()
            if ended or time.monotonic() - began > (begin + 2 * _WINDOW) / _FAST:
                ended.append(begin)
                return
            count = min(_WINDOW, size - begin)
            written = 0
            with suppress(OSError):
                written = _window(source, target, count, begin, offset + begin)
            if written < count:
                ended.append(begin + written)
                return

    helper = Thread(target=work, name="copying", daemon=True)
    with suppress(RuntimeError):  # no further thread: one window at a time
        helper.start()
    try:
        work(check)
    except BaseException:
        ended.append(0)
        raise
    finally:
        if helper.ident is not None:
            helper.join()
    return min(ended, default=size)


def _window(source: int, target: int, count: int, begin: int, offset: int) -> int:
    import mmap

    os.posix_fadvise(source, begin, count + 2 * _WINDOW, os.POSIX_FADV_WILLNEED)
    try:
        mapped = mmap.mmap(source, count, prot=mmap.PROT_READ, offset=begin)
    except ValueError:  # the source ends before
        return 0
    with mapped:
        return os.pwrite(target, mapped, offset)


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
