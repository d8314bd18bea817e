"""The file that remembers what BuildKit's copies of local directories may hold."""

from __future__ import annotations

import errno
import hashlib
import os
import stat
import struct
from collections.abc import Iterable, Mapping
from pathlib import Path

from plp_builder.cache.context_tree import Tree
from plp_builder.cache.files import replacing
from plp_builder.tuples import NamedTuple

_MAGIC = b"plp context 2\n"
_DIGEST = 16
_LARGEST = 1 << 30
_NUMBER = struct.Struct("<I")
_TIME = 1_234_567_891_234_567_891
_READ = os.O_RDONLY | os.O_NOFOLLOW | os.O_NONBLOCK | os.O_CLOEXEC


class Place(NamedTuple):
    """What is known of the copies under one name.

    ``last`` is the directory at the last build, ``older`` the records seen before that have gone,
    by directory; ``distrusted`` are paths at which a copy may hold anything.
    """

    last: Tree
    older: Mapping[bytes, bytes] = {}
    distrusted: frozenset[bytes] = frozenset()


class Made(NamedTuple):
    """The image that a solve made of the directories, and of nothing that can change behind them.

    ``key`` tells what was asked for, ``config`` is the digest of its configuration, which is that
    of the image but for annotations, and ``steps`` how many it has.
    """

    key: str
    config: str
    steps: int


class Known(NamedTuple):
    """What is known of BuildKit's copies since it last forgot them, by their names.

    ``made`` is what the last build made, if that can be told without another solve.
    """

    places: Mapping[str, Place]
    made: Made | None = None

    def write(self, path: Path) -> bool:
        """Write it to a file, whole or not at all; whether that was possible. Never raises OSError.

        It has to lie on the file system of the daemon's root: where that keeps no nanoseconds,
        a copy's times are not those of the files, and nothing is kept. Nothing waits for the disk.
        """
        try:
            with replacing(path, 0o600) as file:
                file.write(encode(self))
                os.utime(file.fileno(), ns=(_TIME, _TIME))
                if os.fstat(file.fileno()).st_mtime_ns != _TIME:
                    raise OSError(errno.ENOTSUP, "no nanoseconds")
        except OSError:
            return False
        return True


def read(path: Path) -> Known | None:
    """What a file remembers; None if it cannot be read or is not whole."""
    try:
        with os.fdopen(os.open(path, _READ), "rb") as file:
            found = os.fstat(file.fileno())
            if not stat.S_ISREG(found.st_mode) or found.st_size > _LARGEST:
                return None
            data = file.read()
        return decode(data)
    except (OSError, ValueError):
        return None


def encode(known: Known) -> bytes:
    """The bytes of the file: directories that several names share are in it once."""
    trees: list[Tree] = []
    places: list[bytes] = []
    for name, place in known.places.items():
        number = next((at for at, tree in enumerate(trees) if tree is place.last), len(trees))
        if number == len(trees):
            trees.append(place.last)
        places += (
            _NUMBER.pack(number),
            _field(os.fsencode(name)),
            *_fields(part for pair in place.older.items() for part in pair),
            *_fields(sorted(place.distrusted)),
        )
    parts = [_NUMBER.pack(len(trees))]
    for tree in trees:
        parts += _fields(part for pair in tree.items() for part in pair)
    made = _fields(str(value).encode() for value in known.made or ())
    body = b"".join((*parts, _NUMBER.pack(len(known.places)), *places, *made))
    return _MAGIC + _digest(body) + body


def decode(data: bytes) -> Known:
    """The opposite of `encode`. Raises ValueError."""
    begin = len(_MAGIC) + _DIGEST
    if not data.startswith(_MAGIC) or _digest(memoryview(data)[begin:]) != data[begin - 16 : begin]:
        raise ValueError("damaged")
    reader = _Reader(data, begin)
    trees = [reader.mapping() for _ in range(reader.number())]
    places = {}
    for _ in range(reader.number()):
        number = reader.number()
        if number >= len(trees):
            raise ValueError("no such directory")
        name = os.fsdecode(reader.field())
        places[name] = Place(trees[number], reader.mapping(), frozenset(reader.fields()))
    made = reader.fields()
    if reader.at != len(data):
        raise ValueError("something follows")
    if len(made) not in (0, len(Made._fields)):
        raise ValueError("no image is made of that")
    return Known(places, _made(*(value.decode() for value in made)) if made else None)


def _made(key: str, config: str, steps: str) -> Made:
    return Made(key, config, int(steps))


class _Reader:
    """Reads numbers and fields one after the other. Its methods raise ValueError."""

    def __init__(self, data: bytes, at: int) -> None:
        self.at = at
        self._data = data

    def number(self) -> int:
        try:
            (number,) = _NUMBER.unpack_from(self._data, self.at)
        except struct.error:
            raise ValueError("cut off") from None
        self.at += _NUMBER.size
        return int(number)

    def field(self) -> bytes:
        begin = self.at + _NUMBER.size
        end = begin + self.number()
        if end > len(self._data):
            raise ValueError("cut off")
        self.at = end
        return self._data[begin:end]

    def fields(self) -> list[bytes]:
        return [self.field() for _ in range(self.number())]

    def mapping(self) -> dict[bytes, bytes]:
        parts = self.fields()
        return dict(zip(parts[::2], parts[1::2], strict=True))


def _field(data: bytes) -> bytes:
    return _NUMBER.pack(len(data)) + data


def _fields(parts: Iterable[bytes]) -> list[bytes]:
    found = list(map(_field, parts))
    return [_NUMBER.pack(len(found)), *found]


def _digest(data: bytes | memoryview) -> bytes:
    return hashlib.blake2b(data, digest_size=_DIGEST).digest()
