"""Users, and what they may reach, by the rules of path_resolution(7)."""

from __future__ import annotations

import os
import stat

from plp_builder.tuples import NamedTuple


class User(NamedTuple):
    """Whom a process runs as."""

    name: str
    uid: int
    gid: int
    home: str


class IdMap(NamedTuple):
    """The subordinate ids of a user, each kind in one piece: first id and how many."""

    uids: tuple[int, int]
    gids: tuple[int, int]


class Owned(NamedTuple):
    """What decides who may pass a directory or run a file: stat(2)'s mode and owners."""

    path: str
    mode: int
    uid: int
    gid: int

    def open_to(self, user: User) -> bool:
        """Whether ``user``, without further groups or capabilities, may pass it or run it."""
        if user.uid == 0:
            return True
        if user.uid == self.uid:
            return bool(self.mode & stat.S_IXUSR)
        return bool(self.mode & (stat.S_IXGRP if user.gid == self.gid else stat.S_IXOTH))


def on_the_way(path: str | os.PathLike[str]) -> tuple[Owned, ...]:
    """A file or directory and all directories above it, links resolved. Raises OSError."""
    return tuple(map(_owned, upwards(os.path.realpath(os.fspath(path)))))


def upwards(path: str) -> tuple[str, ...]:
    """The path and all directories above it, as it is written."""
    parts = [path]
    while (above := os.path.dirname(parts[-1])) != parts[-1]:
        parts.append(above)
    return tuple(parts)


def _owned(path: str) -> Owned:
    status = os.stat(path)
    return Owned(path, status.st_mode, status.st_uid, status.st_gid)
