"""Small steps in a directory that several builds share."""

from __future__ import annotations

import os
from contextlib import suppress
from pathlib import Path

TEMPORARY = ".tmp-"


def random_name(prefix: str) -> str:
    """A name that nobody else uses."""
    return prefix + os.urandom(8).hex()


def replace_durably(path: Path, data: bytes) -> None:
    """Write ``path`` whole, or leave it as it was; it survives a power cut afterwards."""
    temporary = path.with_name(random_name(TEMPORARY))
    try:
        with temporary.open("xb") as file:
            file.write(data)
            file.flush()
            os.fsync(file.fileno())
        temporary.replace(path)
    except BaseException:
        with suppress(OSError):
            temporary.unlink(missing_ok=True)
        raise


def remove(path: Path) -> None:
    """Remove a file, a link or a whole directory, as far as that is possible."""
    if path.is_symlink() or not path.is_dir():
        with suppress(OSError):
            path.unlink()
        return
    for parent, directories, files in os.walk(path, topdown=False):
        for name in (*files, *directories):
            child = Path(parent, name)
            with suppress(OSError):
                if child.is_symlink() or name in files:
                    child.unlink()
                else:
                    child.rmdir()
    with suppress(OSError):
        path.rmdir()
