"""The cache directory: made when it is missing, and used only when nobody else chose it."""

from __future__ import annotations

import errno
import os
import stat
from pathlib import Path

from plp_builder.errors import CachePathNotUsable
from plp_builder.preflight import trials
from plp_builder.preflight.finding import Finding, reason, show
from plp_builder.preflight.strangers import Part, stranger

_INDEX = Path("buildkit", "index.json")
_READ_ONLY = {errno.EACCES, errno.EPERM, errno.EROFS}


def check_cache(path: str | Path, *, make: bool = True) -> tuple[Path | None, Finding | None]:
    """PLP_CACHE_PATH: made when missing. What cannot be used costs only a warning.

    Without ``make`` nothing changes: the directory in which it would be made is tried instead.

    That is what cannot be written to (with a cache in it, it is returned together with a
    finding: a build imports from it), and what another user has put into a directory like
    /tmp: its layers would end up in our image. Raises `CachePathNotUsable` for a relative
    path and for something that is no directory: these are mistakes in the settings, not
    conditions of the machine.
    """
    given = trials.absolute("PLP_CACHE_PATH", path, CachePathNotUsable)
    if part := stranger(given, os.geteuid()):
        return None, _not_ours(given, part)
    try:
        there = _made(given) if make else _nearest(given)
    except (FileExistsError, NotADirectoryError):
        raise CachePathNotUsable(
            f"PLP_CACHE_PATH {show(given)} is not a directory",
            hint="Set PLP_CACHE_PATH to a directory, or PLP_CACHE_STRATEGY=off.",
        ) from None
    except OSError as error:
        return None, _no_cache(given, error)
    # Somebody may have made it since; what is ours now stays ours.
    if part := stranger(given, os.geteuid()):
        return None, _not_ours(given, part)
    try:
        trials.write(there)
    except OSError as error:
        if error.errno in _READ_ONLY and os.access(given / _INDEX, os.R_OK):
            return Path(os.path.realpath(given)), _read_only(given, error)
        return None, _no_cache(given, error)
    return Path(os.path.realpath(given)), None


def _made(path: Path) -> Path:
    path.mkdir(parents=True, exist_ok=True)
    return Path(os.path.realpath(path))


def _nearest(path: Path) -> Path:
    """The directory itself, or the lowest one above it that is there already."""
    try:
        mode = path.stat().st_mode
    except FileNotFoundError:
        if path.is_symlink():
            raise FileExistsError(path) from None
        return _nearest(path.parent)
    if not stat.S_ISDIR(mode):
        raise NotADirectoryError(path)
    return Path(os.path.realpath(path))


def _not_ours(path: Path, part: Part) -> Finding:
    what = "it" if part.path == path else show(part.path)
    return Finding(
        "cache path",
        None,
        f"PLP_CACHE_PATH {show(path)} is not used: {what} belongs to uid {part.uid}, in a "
        "directory where every user may put something, and what that user keeps there would get "
        "into the image: this build keeps no cache",
        f"Set PLP_CACHE_PATH to a directory of uid {os.geteuid()}, for example in its home.",
    )


def _read_only(path: Path, error: OSError) -> Finding:
    return Finding(
        "cache path",
        None,
        f"PLP_CACHE_PATH {show(path)} cannot be written ({reason(error)}): builds import from it "
        "and keep nothing",
        f"If they shall keep their layers, mount it writable for uid {os.geteuid()}.",
    )


def _no_cache(path: Path, error: OSError) -> Finding:
    return Finding(
        "cache path",
        None,
        f"PLP_CACHE_PATH {show(path)} cannot be used ({reason(error)}): this build keeps no cache",
        "Mount a writable directory there, or set PLP_CACHE_STRATEGY=off.",
    )
