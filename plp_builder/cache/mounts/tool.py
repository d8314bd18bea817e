"""The tar of this machine, made ready to run in a build step that has nothing else.

A step `FROM scratch` has no file system of its own. tar and the libraries that its loader names
are enough: the loader is called by its path and told where they are.
"""

from __future__ import annotations

import os
import re
import struct
from collections.abc import Mapping
from pathlib import Path

from plp_builder import process
from plp_builder.errors import CacheNotUsable, Failure

PLACE = "/plp"
"""Where a step finds the directory that `install` fills."""

_TAR, _LIBRARIES = "tar", "lib"
_INTERPRETER = 3
_PATIENCE = 30.0
_LIBRARY = re.compile(r"(/\S+) \(0x")
_NOT_AT_HAND = "Cache mounts cannot be carried: there is no tar that could pack them"


def install(directory: Path, environ: Mapping[str, str]) -> tuple[str, ...]:
    """Copy tar and its libraries into an empty directory; the words that call it in a step.

    Raises CacheNotUsable.
    """
    env = {"PATH": environ.get("PATH", os.defpath), "LC_ALL": "C"}
    tar = process.find(_TAR, env["PATH"])
    if tar is None:
        raise CacheNotUsable(_NOT_AT_HAND, why=["tar is not on PATH"])
    try:
        version = process.run([tar, "--version"], env=env, timeout=_PATIENCE).stdout
        if not version.startswith(b"tar (GNU tar)"):
            raise CacheNotUsable(_NOT_AT_HAND, why=[f"{tar} is not GNU tar"])
        _copy(Path(tar), directory / _TAR)
        loader = _loader(Path(tar))
        if not loader:
            return (f"{PLACE}/{_TAR}",)
        return _with_libraries(tar, loader, directory, env)
    except (OSError, ValueError, struct.error) as error:
        raise CacheNotUsable(_NOT_AT_HAND, why=[f"{tar}: {error}"]) from None
    except CacheNotUsable:
        raise
    except Failure as failure:
        raise CacheNotUsable(_NOT_AT_HAND, why=[failure.what, *failure.why]) from None


def _with_libraries(
    tar: str, loader: str, directory: Path, env: Mapping[str, str]
) -> tuple[str, ...]:
    # What ldd(1) does, which is a shell script.
    listed = process.run([loader, "--list", tar], env=env, timeout=_PATIENCE)
    if listed.code:
        raise ValueError(f"{loader} does not list its libraries")
    place = directory / _LIBRARIES
    place.mkdir()
    for library in {Path(loader), *map(Path, _LIBRARY.findall(listed.stdout.decode()))}:
        _copy(library, place / library.name)
    there = f"{PLACE}/{_LIBRARIES}"
    return (f"{there}/{Path(loader).name}", "--library-path", there, f"{PLACE}/{_TAR}")


def _copy(program: Path, to: Path) -> None:
    to.write_bytes(program.read_bytes())
    to.chmod(0o755)


def _loader(program: Path) -> str:
    """The path in an ELF program's PT_INTERP (elf(5)); "" for a static one."""
    with program.open("rb") as file:
        head = file.read(64)
        if head[:4] != b"\x7fELF" or len(head) < 64 or head[4] != 2:
            raise ValueError("no ELF program of 64 bits")
        order = "<" if head[5] == 1 else ">"
        (offset,) = struct.unpack_from(f"{order}Q", head, 32)
        size, count = struct.unpack_from(f"{order}HH", head, 54)
        file.seek(offset)
        table = file.read(size * count)
        for number in range(count):
            start = number * size
            (kind,) = struct.unpack_from(f"{order}I", table, start)
            if kind == _INTERPRETER:
                (at,) = struct.unpack_from(f"{order}Q", table, start + 8)
                (length,) = struct.unpack_from(f"{order}Q", table, start + 32)
                file.seek(at)
                return file.read(length).rstrip(b"\0").decode()
    return ""
