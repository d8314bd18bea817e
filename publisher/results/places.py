"""Which files results would be written to: none that is read, and no two the same.

Paths are compared by the files that they mean, as there are links and relative paths.
"""

from __future__ import annotations

import os
import stat
from collections.abc import Iterator
from contextlib import suppress
from pathlib import Path
from typing import NamedTuple

from plp_builder.terminal import printable, shorten
from publisher import docker_config, trust
from publisher.names import NAMES
from publisher.results import files
from publisher.settings import READ, WRITTEN, Settings

SHOWN = 200


class Place(NamedTuple):
    """A file by device and inode; of one that is not there, its directory's and its name."""

    device: int
    inode: int
    name: str = ""


def problems(settings: Settings, archive: Path | None = None) -> dict[str, str]:
    """Each field whose file must not be written to, with a sentence that says why. Raises nothing.

    ``archive`` is the file that ``PLP_ARTIFACT_PATH`` turned out to mean.
    """
    wanted = {field: path for field in WRITTEN if (path := getattr(settings, field))}
    if not wanted:
        return {}
    found: dict[str, str] = {}
    taken: dict[Place, str] = {}
    for field, path in _inputs(settings, archive):
        taken.setdefault(_place(path), NAMES.variable(field))
    first: dict[Place, str] = {}
    for field, path in wanted.items():
        try:
            path.stat()
        except (FileNotFoundError, NotADirectoryError):
            pass
        except OSError as error:
            found[field] = _sentence(field, path, f"cannot be looked at: {error.strerror}")
            continue
        place = _place(path)
        if other := taken.get(place):
            found[field] = _sentence(field, path, f"is read for {other}; name another file")
        elif _is_ordinary(path) and (before := first.setdefault(place, field)) != field:
            for one, two in ((before, field), (field, before)):
                also = f"is also what {NAMES.variable(two)} names; name another file"
                found[one] = _sentence(one, wanted[one], also)
    return found


def shown(path: Path) -> str:
    """A path as messages show it."""
    return shorten(printable(str(path)), SHOWN)


def _sentence(field: str, path: Path, text: str) -> str:
    return f"{NAMES.variable(field)}: {shown(path)} {text}"


def _inputs(settings: Settings, archive: Path | None) -> Iterator[tuple[str, Path]]:
    """Every file that a run may read for a field, those in the directories that are named too."""
    if archive:
        yield "artifact_path", archive
    for field in READ:
        path: Path | None = getattr(settings, field)
        if path is None:
            continue
        yield field, path
        with suppress(OSError):
            yield from ((field, each) for each in _in_directory(field, path))


def _in_directory(field: str, directory: Path) -> Iterator[Path]:
    """The files that are read where a field names a directory; results may lie beside them."""
    from plp_builder.oci.archive import INDEX, LAYOUT
    from plp_builder.oci.artifact import SUFFIXES

    if not directory.is_dir():
        return
    if field == "artifact_path":
        yield from (directory / INDEX, directory / LAYOUT)
        yield from (each for each in directory.iterdir() if each.name.endswith(SUFFIXES))
    elif field == "docker_config":
        yield from (directory / name for name in docker_config.NAMES)
    else:
        yield from (each for each in directory.iterdir() if each.suffix in trust.SUFFIXES)


def _is_ordinary(path: Path) -> bool:
    """Whether two that write there would spoil each other's text, as in a pipe they do not."""
    try:
        return files.target(path) is not None
    except OSError:
        return True


def _place(path: Path) -> Place:
    with suppress(OSError):
        found = path.stat()
        return Place(found.st_dev, found.st_ino)
    try:
        parent, name = os.path.split(os.path.realpath(path))
    except OSError:  # a relative path, and the working directory was removed
        return Place(-1, -1, str(path))
    with suppress(OSError):
        found = os.stat(parent)  # noqa: PTH116 - what realpath gives is no Path
        if stat.S_ISDIR(found.st_mode):
            return Place(found.st_dev, found.st_ino, name)
    return Place(-1, -1, f"{parent}/{name}")
