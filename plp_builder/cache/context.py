"""Whether BuildKit's kept copy of a build's local directories may be stale.

The builder remembers what every file was when BuildKit may have copied it, and doubts the copy as
soon as a file looks to BuildKit like a remembered one without being the same (`context_tree` says
what BuildKit compares). BuildKit may hold several copies under one name, each from another build
(BuildKit source/local/source.go, cache/manager.go: a copy in use is not waited for), so all that
was seen since it last forgot them counts, not only the last build.

    before = take(locals)                  # beside the daemon's start
    known = read(path)
    if why := before.doubt(known):         # have BuildKit forget its copies
        known = None
    path.unlink()                          # a killed build leaves nothing known
    began = clock()
    ...                                    # every solve of this build
    if learned := learn(known, before, take(locals), began):
        learned.write(path)

A change by mmap(2) to a page that is dirty already changes no time, neither ctime nor mtime: the
one change that nobody sees.
"""

from __future__ import annotations

import os
import re
import struct
import time
from collections.abc import Collection, Iterator, Mapping
from pathlib import Path

from plp_builder.cache import context_store
from plp_builder.cache.context_store import Known, Made, Place
from plp_builder.cache.context_tree import (
    HEAD,
    Record,
    Tree,
    Untrustworthy,
    holds,
    join,
    newest,
    records,
    shown,
    walk,
)
from plp_builder.cache.filesystem import kind
from plp_builder.tuples import NamedTuple

_TRUSTED = frozenset(
    {"bcachefs", "btrfs", "ext2", "ext3", "ext4", "f2fs", "overlay", "tmpfs", "xfs", "zfs"}
)
_COARSE_CLOCK = 5  # CLOCK_REALTIME_COARSE, which the kernel stamps files with
_TICK = 20_000_000
_WHOLE_SECONDS = 2_100_000_000
_SECOND = 1_000_000_000
_HISTORY = 4 << 20
_MOUNTS = Path("/proc/self/mountinfo")
_OCTAL = re.compile(r"\\([0-7]{3})")


class Fingerprint(NamedTuple):
    """What the local directories of a build held, by BuildKit's name for each.

    With a ``problem`` nothing can be told of them.
    """

    trees: Mapping[str, Tree]
    problem: str = ""

    def doubt(self, known: Known | None) -> str:
        """Why BuildKit's copies may be stale, naming one path; "" if they can be trusted."""
        if self.problem:
            return self.problem
        if known is None:
            return "nothing is known of the last copy"
        done: list[tuple[Tree, Place]] = []
        try:
            for name, tree in self.trees.items():
                place = known.places.get(name)
                if place and not any(tree is one and place == other for one, other in done):
                    if why := _doubt(tree, place):
                        return why
                    done.append((tree, place))
        except (struct.error, ValueError):
            return "what is known of the last copy cannot be read"
        return ""

    def is_last(self, known: Known | None) -> bool:
        """Whether nothing has changed since the last build looked."""
        places = known.places if known else {}
        return not self.problem and all(
            name in places and places[name].last == tree for name, tree in self.trees.items()
        )

    def has_stood_still(self, after: Fingerprint, began: int) -> bool:
        """Whether what was read since ``began`` was just this; ``after`` was taken after it.

        Nobody can tell of a directory in which the builder itself writes: what others do there
        for a moment leaves no trace.
        """
        if self.problem or self != after:
            return False
        trees = {id(tree): tree for tree in self.trees.values()}
        return not any(_is_unsteady(tree, began) for tree in trees.values())


def take(
    places: Mapping[str, Path], own: Collection[Path] = (), mountinfo: str | None = None
) -> Fingerprint:
    """The fingerprint of local directories; never raises OSError.

    ``own`` are files and directories that the builder itself writes, such as the cache: they are
    left out. ``mountinfo`` is the text of /proc/self/mountinfo unless it is given.
    """
    trees: dict[Path, Tree] = {}
    try:
        mounts = _MOUNTS.read_text("utf-8", "surrogateescape") if mountinfo is None else mountinfo
        left_out = {os.fsencode(os.path.realpath(path)) for path in own}
        roots = {name: Path(os.path.realpath(path)) for name, path in places.items()}
        for root in dict.fromkeys(roots.values()):
            strange = sorted(_kinds(root, mounts) - _TRUSTED)
            if strange:
                return Fingerprint({}, f"times on a file system of type {strange[0]} say little")
            trees[root] = walk(os.fsencode(root), left_out)
    except Untrustworthy as finding:
        return Fingerprint({}, str(finding))
    except OSError as error:
        path = shown(os.fsencode(error.filename)) if error.filename else "a directory"
        return Fingerprint({}, f"{path} cannot be read: {error.strerror}")
    return Fingerprint({name: trees[root] for name, root in roots.items()})


def clock() -> int:
    """Now, as the kernel would stamp a file that changes."""
    return time.clock_gettime_ns(_COARSE_CLOCK)


def read(path: Path) -> Known | None:
    """What is known; None where nothing is, or where the file is damaged."""
    return context_store.read(path)


def learn(
    known: Known | None,
    before: Fingerprint,
    after: Fingerprint,
    began: int,
    made: Made | None = None,
) -> Known | None:
    """What is known after a build: ``known`` and what BuildKit may have copied meanwhile.

    ``began`` is the `clock` right before the first solve, ``after`` is taken after the last one,
    and ``made`` is the image, which is kept in mind if it can be of nothing but ``before``.
    None where nothing can be told, or where it would be too much to keep.
    """
    if before.problem or after.problem:
        return None
    places = dict(known.places) if known else {}
    done: list[tuple[Tree, Place | None, Place]] = []
    try:
        for name, tree in before.trees.items():
            old = places.get(name)
            place = next((new for one, had, new in done if one is tree and had == old), None)
            if place is None:
                place = _learn(old, tree, after.trees[name], began)
                done.append((tree, old, place))
            places[name] = place
    except (struct.error, ValueError):
        return None
    if any(_size(place.older) > max(_HISTORY, 2 * _size(place.last)) for place in places.values()):
        return None
    return Known(places, made if before.has_stood_still(after, began) else None)


def _doubt(tree: Tree, place: Place) -> str:
    for path in place.distrusted:
        if holds(tree, path):
            return f"{shown(path)} may have changed while it was copied"
    for directory, block in tree.items():
        last = place.last.get(directory)
        if block == last:
            continue
        seen: dict[bytes, list[Record]] = {}
        for record in _records(last, place.older.get(directory)):
            seen.setdefault(record.name, []).append(record)
        if not seen:
            continue
        for record, _ in records(block):
            for other in seen.get(record.name, ()):
                if record.may_look_like(other) and not record.is_same(other):
                    return f"{shown(join(directory, record.name))} looks unchanged, but is not"
    return ""


def _records(last: bytes | None, older: bytes | None) -> Iterator[Record]:
    for data, begin in ((last, HEAD.size), (older, 0)):
        if data is not None:
            yield from (record for record, _ in records(data, begin))


def _learn(old: Place | None, tree: Tree, after: Tree, began: int) -> Place:
    distrusted = set(old.distrusted) if old else set()
    distrusted.update(_young(tree, began), _changed(tree, after))
    return Place(tree, _superseded(old, tree) if old else {}, frozenset(distrusted))


def _superseded(old: Place, tree: Tree) -> Mapping[bytes, bytes]:
    """All that was seen and is not in ``tree``."""
    older = dict(old.older)
    for directory, block in old.last.items():
        new = tree.get(directory)
        if new == block:
            continue
        still = {raw for _, raw in records(new)} if new is not None else set()
        still.update(raw for _, raw in records(older.get(directory, b""), 0))
        gone = b"".join(raw for _, raw in records(block) if raw not in still)
        if gone:
            older[directory] = older.get(directory, b"") + gone
    return older


def _is_unsteady(tree: Tree, began: int) -> bool:
    """Whether something can change, or come and go, without another ctime."""
    for block in tree.values():
        inode, ctime, _ = HEAD.unpack_from(block)
        if not inode or _is_young(ctime, began):
            return True
    return next(_young(tree, began), None) is not None


def _young(tree: Tree, began: int) -> Iterator[bytes]:
    """Files that can change once more without another ctime, after BuildKit has read them."""
    for directory, block in tree.items():
        if newest(block) < began - _WHOLE_SECONDS:
            continue
        for record, _ in records(block):
            if _is_young(record.ctime, began):
                yield join(directory, record.name)


def _is_young(ctime: int, began: int) -> bool:
    """A file system that keeps whole seconds is told by its times."""
    return ctime >= began - (_TICK if ctime % _SECOND else _WHOLE_SECONDS)


def _changed(tree: Tree, after: Tree) -> Iterator[bytes]:
    """What is not as it was: BuildKit may have copied it at any moment between.

    A directory that changed itself may have been another one meanwhile.
    """
    for directory in tree.keys() | after.keys():
        one, other = tree.get(directory), after.get(directory)
        if one == other:
            continue
        if one is None or other is None:
            yield directory
            continue
        if one[:16] != other[:16]:
            yield directory
        pair = [{raw: record.name for record, raw in records(block)} for block in (one, other)]
        for raw in pair[0].keys() ^ pair[1].keys():
            yield join(directory, (pair[0].get(raw) or pair[1][raw]))


def _kinds(root: Path, mountinfo: str) -> set[str]:
    """The types of the file systems at a directory and below it."""
    found = {kind(root, mountinfo)}
    below = os.fspath(root).rstrip("/") + "/"
    for line in mountinfo.splitlines():
        before, _, after = line.partition(" - ")
        fields = before.split(" ")
        point = _OCTAL.sub(lambda match: chr(int(match[1], 8)), fields[4] if fields[4:] else "")
        if point.startswith(below) and point != below:
            found.add(after.partition(" ")[0])
    return found


def _size(tree: Tree) -> int:
    return sum(map(len, tree.values()))
