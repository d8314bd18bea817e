"""What a local directory holds, as far as it takes to tell whether BuildKit's copy of it is stale.

BuildKit compares its copy by mode, size, mtime and link target (tonistiigi/fsutil
diff_containerd.go); buildctl sends every owner as 0 (BuildKit client/solve.go), and extended
attributes are sent but not compared. A file's inode, device and ctime tell the rest: whatever
changes a file changes its ctime, which nobody can set back.
"""

from __future__ import annotations

import hashlib
import os
import stat
import struct
from collections.abc import Collection, Iterator, Mapping
from contextlib import contextmanager, suppress

from plp_builder.tuples import NamedTuple

Tree = Mapping[bytes, bytes]
"""A block of bytes for each directory, by its path below the root, which is ``b""``."""

HEAD = struct.Struct("<Qqq")
"""A block begins with the directory's inode and ctime and the newest ctime of its files."""

_RECORD = struct.Struct("<IQqQQqB")
_LATEST = 2**31 * 10**9
_KIND, _DIRECTORY, _SOCKET = 0o170000, stat.S_IFDIR, stat.S_IFSOCK


class Untrustworthy(Exception):
    """Why a directory's times and inodes say too little."""


class Record(NamedTuple):
    """One entry of a directory.

    Of a directory only ``mode`` counts and ``inode``, in whose place a digest of its extended
    attributes stands: its own times change with every file that comes or goes. Of a file they
    are told by ctime.
    """

    mode: int
    size: int
    mtime: int
    inode: int
    device: int
    ctime: int
    name: bytes

    def may_look_like(self, other: Record) -> bool:
        """Whether BuildKit may take the one for the other."""
        return self[:3] == other[:3]

    def is_same(self, other: Record) -> bool:
        """Whether the one has the content of the other for certain."""
        return self[3:6] == other[3:6]


def walk(root: bytes, own: Collection[bytes] = ()) -> Tree:
    """The tree below ``root``, an absolute path without links.

    Paths in ``own`` are left out, and what happens in the directories that hold them is nobody
    else's doing. Directories that may not be read are empty, for BuildKit's client as well.
    Raises OSError, Untrustworthy.
    """
    own_names: dict[bytes, set[bytes]] = {}
    for path in own:
        directory, _, name = path.rpartition(b"/")
        own_names.setdefault(directory or b"/", set()).add(name)
    found = os.lstat(root)
    blocks: dict[bytes, bytes] = {}
    todo = [(b"", found.st_ino, found.st_ctime_ns)]
    while todo:
        below, inode, ctime = todo.pop()
        directory = root.rstrip(b"/") + b"/" + below if below else root
        names = own_names.get(directory)
        if names or directory in own:
            inode = ctime = 0
        blocks[below] = _block(directory, names, (inode, ctime), below, todo)
    return blocks


def _block(
    directory: bytes,
    left_out: Collection[bytes] | None,
    head: tuple[int, int],
    below: bytes,
    todo: list[tuple[bytes, int, int]],
) -> bytes:
    parts = [b""]
    latest = 0
    pack = _RECORD.pack
    with suppress(FileNotFoundError, NotADirectoryError, PermissionError), _opened(directory) as at:
        for name in _names(at):
            if left_out and name in left_out:
                continue
            try:
                found = os.stat(name, dir_fd=at, follow_symlinks=False)
            except FileNotFoundError:
                continue
            mode, ctime = found.st_mode, found.st_ctime_ns
            kind = mode & _KIND
            if kind == _DIRECTORY:
                todo.append((join(below, name), found.st_ino, ctime))
                attributes = _attributes(join(directory, name))
                parts.append(pack(mode, 0, 0, attributes, 0, 0, len(name)) + name)
                continue
            mtime = found.st_mtime_ns
            if not 0 <= mtime < _LATEST:
                # No file system keeps every such time, so BuildKit's copy may have another.
                raise Untrustworthy(f"{shown(join(below, name))} has an unusual time")
            if kind == _SOCKET:
                mode ^= stat.S_IFREG ^ stat.S_IFSOCK  # sent as an empty file
            if ctime > latest:  # noqa: PLR1730 - a call for each of many files
                latest = ctime
            parts.append(
                pack(mode, found.st_size, mtime, found.st_ino, found.st_dev, ctime, len(name))
                + name
            )
    parts[0] = HEAD.pack(*head, latest)
    return b"".join(parts)


def _names(at: int) -> list[bytes]:
    """What is in an open directory: as bytes, which a descriptor by itself does not give."""
    try:
        return os.listdir(b"/proc/self/fd/%d" % at)  # noqa: PTH208
    except OSError as error:
        raise Untrustworthy(f"a directory cannot be listed: {error.strerror}") from error


@contextmanager
def _opened(directory: bytes) -> Iterator[int]:
    at = os.open(directory, os.O_RDONLY | os.O_DIRECTORY | os.O_NOFOLLOW | os.O_CLOEXEC)
    try:
        yield at
    finally:
        os.close(at)


def _attributes(path: bytes) -> int:
    """A digest of a directory's extended attributes, 0 without any."""
    try:
        names = os.listxattr(path, follow_symlinks=False)
    except OSError:
        return 0
    if not names:
        return 0
    digest = hashlib.blake2b(digest_size=8)
    for name in sorted(names):
        with suppress(OSError):
            value = os.getxattr(path, name, follow_symlinks=False)
            for part in (os.fsencode(name), value):
                digest.update(len(part).to_bytes(8, "little") + part)
    return int.from_bytes(digest.digest(), "little")


def records(data: bytes, begin: int = HEAD.size) -> Iterator[tuple[Record, bytes]]:
    """Each entry of a block, with its own bytes. Raises struct.error, ValueError."""
    size, end = _RECORD.size, len(data)
    while begin < end:
        *fields, length = _RECORD.unpack_from(data, begin)
        after = begin + size + length
        if after > end:
            raise ValueError("a record is cut off")
        yield Record._make((*fields, data[begin + size : after])), data[begin:after]
        begin = after


def newest(block: bytes) -> int:
    """The newest ctime of the files in a block. Raises struct.error."""
    return int(HEAD.unpack_from(block)[2])


def join(directory: bytes, name: bytes) -> bytes:
    """The path below the root of an entry of a directory."""
    return directory + b"/" + name if directory else name


def holds(tree: Tree, path: bytes) -> bool:
    """Whether there is something at a path. Raises struct.error, ValueError."""
    if path in tree:
        return True
    directory, _, name = path.rpartition(b"/")
    block = tree.get(directory)
    return block is not None and any(record.name == name for record, _ in records(block))


def shown(path: bytes) -> str:
    """A path for people, whatever its bytes."""
    return path.decode("utf-8", "backslashreplace") or "."
