"""Whether what a daemon keeps is damaged: told from last words, and from its blobs.

The words are those of BuildKit 0.21.1 and 0.32.2 for blobs, snapshots and databases that were
removed, cut, flipped or put back from another day. To blame the state wrongly costs one build
without it; not to blame it fails every build until somebody deletes it. What a step printed or
was asked to run is never looked at.
"""

from __future__ import annotations

import os
import re
import stat
import struct
from pathlib import Path

from plp_builder.tuples import NamedTuple

_CONTENT = "content/blobs/sha256"
_DATABASES = "containerdmeta.db", "metadata_v2.db", "snapshots/metadata.db"
"""Those that the daemon does not make anew by itself."""
_MADE_ANEW = "cache.db", "history.db"

_META = "<IIIIQQQQQQ"
"""bbolt: magic, version, page size, flags, root (two), freelist, pages, transaction, checksum."""
_PAGE_HEADER, _META_SIZE, _PAGE_SIZE, _MAGIC = 16, 80, 4096, 0xED0CDAED

# A RUN instruction is quoted in the words, and may hold any text, on several lines.
_COMMAND = r'(?s)process ".*" did not complete successfully'

_RESOURCES = (
    r"no space left on device|disk quota exceeded|too many open files|cannot allocate memory"
    r"|resource temporarily unavailable|out of memory|failed to create new os thread"
)

_ELSEWHERE = (
    r"did not complete successfully: exit code: "
    rf"|{_RESOURCES}|context canceled|context deadline exceeded"
    r"|httpReadSeeker|failed to do request|dockerfile parse error"
    r"|failed to resolve source metadata for \S+ failed commit on ref "  # a registry's answer
    r'|: "[^"\n]*": not found\s*$'  # COPY and ADD of what is not there
)
"""The user's step, resources, network or Dockerfile."""

_PLACE = r"/runc-overlayfs/(?:snapshots|content|cachemounts|executor|metadata|containerdmeta)"
_REASON = (
    r"(?:no such file or director|not a directory|is a directory|file exists|directory not empty"
    r"|stale file handle|structure needs cleaning|input/output error|bad message|file too large"
    r"|permission denied|read-only file system|not found)"
)

_BLAMED = (
    # A path of the daemon's own, with what is wrong with it.
    rf"{_PLACE}.*{_REASON}",
    # A mount whose source is gone, where the daemon names no path (0.21).
    r"(?:did not complete successfully: |\A(?:failed to solve: )?)no such file or directory\s*\Z",
    # containerd's content store and metadata.
    r"content digest sha256:[0-9a-f]{64}: not found|blob sha256:[0-9a-f]{64} expected at ",
    r"children: invalid desc sha256:",
    r"snapshot \S+ does not exist|missing parent \S+ bucket|bucket \S+ does not exist",
    r"(?:unexpected commit digest|unexpected digest) sha256:|unexpected commit size \d+",
    r"short read: expected \d+ bytes but got \d+",
    r"failed to read expected number of bytes: unexpected EOF",
    r"(?:failed to extract layer|failed to convert|failed to get and ensure compression type)"
    r".*(?:EOF|gzip|pigz|flate|zstd|magic number|invalid tar|checksum|diff ?ID)",
    # A layer whose blob is unpacked only now.
    r"(?:failed to compute cache key|mount callback failed on \S+): "
    r"(?:mount callback failed on \S+ )?"
    r"(?:unexpected EOF|gzip: |flate: |zstd|magic number mismatch|archive/tar: "
    r"|exit status \d+: (?:igzip|unpigz|pigz): )",
    # A base image's manifest and configuration.
    r"failed to resolve source metadata for \S+ (?:unexpected end of JSON|invalid character)",
    r"mismatched image rootfs and manifest layers",
    # bbolt.
    r"failed to open database file|invalid database|file size too small \d+|page \d+ already",
    # BuildKit's records of what it keeps.
    r"failed to stat active key during commit|failed to (?:stat|mount) (?:low|upp)er snapshot",
    r"failed to get (?:dead |deleted )?record \S+|missing uncompressed annotation",
    r"no blob(?: metadata is stored| set| is stored)? for |no media type is stored for ",
    r"failed to append image ref metadata|failed to get ref by blob|inconsistent graph state",
    r"failed to (?:create|delete) lease|lease \S+: not found|failed to add \w+ \S+ to lease",
)

_STEP_FAILED = "did not complete successfully"

_CRASHED = r"(?m)panic: |fatal error: |^fatal: |unexpected fault address|SIGBUS|SIGSEGV"
"""A program in Go that ran into what it never expected."""

_NOT_STARTED = (
    rf"(?i){_RESOURCES}|ended by a signal|ended with code 137|address already in use"
    r"|failed to load config|unknown flag|flag provided but not defined"
)
"""Why a daemon may not start, whatever its state is like."""


def blames_state(text: str) -> bool:
    """Whether buildctl's last words blame what the daemon has kept.

    Of ``text`` the line that begins with ``error:`` and what follows is looked at, or all of it
    where there is none. False for what the user's own step, Dockerfile, network or full disk has
    brought about, and for words that are not known.
    """
    words = _last_words(text)
    if re.search(_ELSEWHERE, words):
        return False
    return any(re.search(f"(?s){pattern}", words) for pattern in _BLAMED)


def blames_state_of_death(text: str, *, ready: bool) -> bool:
    """Whether a daemon that died, or never got ready, may have done so because of its state.

    ``text`` tells how it ended, with the last lines of its log. One that was ``ready`` could open
    its state: only a crash is held against that.
    """
    if re.search(_CRASHED, text) and not re.search(f"(?i){_RESOURCES}", text):
        return True
    return not ready and not re.search(_NOT_STARTED, text)


def stops_for_lack_of_room(text: str) -> bool:
    """Whether buildctl's last words tell that BuildKit itself, and no step, found the disk full."""
    words = _last_words(text)
    return _STEP_FAILED not in words and lacks_room(words)


def _last_words(text: str) -> str:
    _, mark, last = f"\n{text}".partition("\nerror: ")
    return re.sub(_COMMAND, f"process {_STEP_FAILED}", last if mark else text)


def lacks_room(text: str) -> bool:
    """Whether the disk is full, by a program's last words."""
    return re.search("(?i)no space left on device|disk quota exceeded", text) is not None


def why_unsound(root: Path) -> str:
    """What is wrong with what a daemon has kept in ``root``, at a glance; "" if nothing is seen.

    These are the two kinds of damage seen that the daemon does not tell of. A blob without
    content it takes for a layer without files, where it rewrites timestamps: a wrong image. And
    with a database that was cut off it may hang for ever.
    """
    for worker in _directories(root):
        if _has_empty_blob(Path(worker, _CONTENT)):
            return "a blob in it has lost its content"
        for name in _DATABASES:
            if _is_cut_off(Path(worker, name)):
                return f"{name} was cut off"
    return ""


def cut_databases(root: Path) -> list[Path]:
    """The databases in ``root`` that were cut off, of those that the daemon makes anew.

    It does so where it cannot open them. But one that lacks pages which it does not need at first
    it opens, and writes to: then it is the next daemon that crashes.
    """
    return [path for name in _MADE_ANEW if _is_cut_off(path := root / name)]


def _has_empty_blob(directory: Path) -> bool:
    try:
        with os.scandir(directory) as blobs:
            for blob in blobs:
                found = blob.stat(follow_symlinks=False)
                if stat.S_ISREG(found.st_mode) and not found.st_size:
                    return True
    except OSError:
        pass
    return False


def _is_cut_off(path: Path) -> bool:
    """Whether a database is shorter than its newest meta page says (bbolt's db.go and meta.go)."""
    try:
        descriptor = os.open(path, os.O_RDONLY | os.O_NOFOLLOW | os.O_NONBLOCK | os.O_CLOEXEC)
        try:
            size = os.fstat(descriptor).st_size
            first = _meta(os.pread(descriptor, _META_SIZE, 0))
            page_size = first.page_size if first else _PAGE_SIZE
            second = _meta(os.pread(descriptor, _META_SIZE, page_size))
        finally:
            os.close(descriptor)
    except (OSError, OverflowError):
        return False
    found = [meta for meta in (first, second) if meta]
    if not found:
        return False
    newest = max(found, key=lambda meta: meta.transaction)
    return newest.pages * newest.page_size > size


class _Meta(NamedTuple):
    page_size: int
    pages: int
    transaction: int


def _meta(page: bytes) -> _Meta | None:
    if len(page) < _META_SIZE:
        return None
    fields = struct.unpack_from(_META, page, _PAGE_HEADER)
    magic, _, page_size, _, _, _, _, pages, transaction, checksum = fields
    if magic != _MAGIC or checksum != _fnv1a(page[_PAGE_HEADER : _META_SIZE - 8]):
        return None
    return _Meta(page_size, pages, transaction)


def _fnv1a(data: bytes) -> int:
    found = 0xCBF29CE484222325
    for byte in data:
        found = (found ^ byte) * 0x100000001B3 & 0xFFFFFFFFFFFFFFFF
    return found


def _directories(root: Path) -> list[str]:
    try:
        with os.scandir(root) as entries:
            return [entry.path for entry in entries if entry.is_dir(follow_symlinks=False)]
    except OSError:
        return []
