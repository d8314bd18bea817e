"""The content of secret files, so that no log shows what a build step prints of them."""

from __future__ import annotations

import os
import stat
from collections.abc import Iterable
from contextlib import suppress
from pathlib import Path

from plp_builder.terminal import decode

MAX_BYTES = 64 << 10
"""What is read of each file; keys, tokens and configurations are far smaller."""


def secret_file_values(paths: Iterable[Path]) -> tuple[str, ...]:
    """The texts of the files at ``paths``, to be hidden; each once, as far as it can be read.

    Never raises and never waits: what is no regular file, and what cannot be read, gives nothing.
    """
    values = []
    for path in paths:
        with suppress(OSError, ValueError):
            values.append(decode(_content(path)))
    return tuple(dict.fromkeys(value for value in values if value.strip()))


def _content(path: Path) -> bytes:
    descriptor = os.open(path, os.O_RDONLY | os.O_NONBLOCK | os.O_CLOEXEC)
    with open(descriptor, "rb") as file:  # noqa: PTH123 - a descriptor, not a path
        return file.read(MAX_BYTES) if stat.S_ISREG(os.fstat(descriptor).st_mode) else b""
