"""What every path of the contract has to stand: it is absolute, and it takes a file."""

from __future__ import annotations

import errno
import os
from pathlib import Path

from plp_builder.errors import PathFailure
from plp_builder.preflight.finding import show

_PROBE = bytes(4096)
_NO_TMPFILE = {errno.EOPNOTSUPP, errno.EISDIR, errno.EINVAL, errno.ENOENT, errno.ENOSYS}


def absolute(variable: str, path: str | Path, failure: type[PathFailure]) -> Path:
    if not Path(path).is_absolute():
        raise failure(
            f"{variable} {show(path)} is not an absolute path",
            hint=f"Give the whole path, for example {variable}={show(_whole(os.fspath(path)))}.",
        )
    return Path(path)


def _whole(path: str) -> str:
    try:
        here = os.getcwd()  # noqa: PTH109 - a string is wanted
    except OSError:
        here = "/"
    return whole(path, here, os.path.expanduser("~"))  # noqa: PTH111


def whole(path: str, here: str, home: str) -> str:
    """What a relative path most likely means: one that starts from ``here``, or with ~ from
    ``home``, as it would in a shell.
    """
    first, _, rest = path.partition("/")
    return os.path.normpath(Path(home, rest) if first == "~" else Path(here, path))


def write(directory: Path) -> None:
    """Write one block into ``directory`` and let go of it. Raises OSError."""
    try:
        descriptor = os.open(directory, os.O_TMPFILE | os.O_WRONLY | os.O_CLOEXEC, 0o600)
    except OSError as error:
        if error.errno not in _NO_TMPFILE:
            raise
        descriptor = _named_probe(directory)
    try:
        # A full disk takes an empty file but no block.
        os.write(descriptor, _PROBE)
    finally:
        os.close(descriptor)


def _named_probe(directory: Path) -> int:
    name = directory / f".plp-probe-{os.getpid()}-{os.urandom(4).hex()}"
    descriptor = os.open(name, os.O_CREAT | os.O_EXCL | os.O_WRONLY | os.O_CLOEXEC, 0o600)
    try:
        name.unlink()
    except OSError:
        os.close(descriptor)
        raise
    return descriptor
