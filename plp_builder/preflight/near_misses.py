"""What is there instead of a Dockerfile that was not found."""

from __future__ import annotations

import os
from collections.abc import Iterator
from pathlib import Path

from plp_builder.preflight.finding import show

_MAX_ENTRIES = 2000
_MAX_DEPTH = 2
_SHOWN = 3


def hint(context: Path, name: str) -> str:
    """The next step when ``name`` is not in ``context``: names the likeliest other files.

    Looks at no more than a few thousand directory entries, two levels deep.
    """
    found = sorted(_candidates(context, Path(name).name), key=_likeliness)
    if not found:
        return (
            "Put a Dockerfile into the source directory, or set PLP_DOCKERFILE "
            "(and PLP_CONTEXT) to where it is."
        )
    names = [show(os.path.relpath(path, context)) for path in found]
    more = f" (and {len(names) - _SHOWN} more)" if len(names) > _SHOWN else ""
    return f"found {', '.join(names[:_SHOWN])}{more}: set PLP_DOCKERFILE={names[0]}"


def _likeliness(path: str) -> tuple[int, int, str]:
    base = Path(path).name.lower()
    rank = 0 if base == "dockerfile" else 1 if base == "containerfile" else 2
    return path.count("/"), rank, path


def _candidates(context: Path, wanted: str) -> Iterator[str]:
    for path in _files(context):
        base = Path(path).name.lower()
        if base.endswith(".dockerignore"):
            continue
        if base in {wanted.lower(), "containerfile"} or _looks_like_dockerfile(base):
            yield path


def _looks_like_dockerfile(base: str) -> bool:
    return base == "dockerfile" or base.startswith("dockerfile.") or base.endswith(".dockerfile")


def _files(context: Path) -> Iterator[str]:
    left = _MAX_ENTRIES
    directories = [(os.fspath(context), 0)]
    while directories:
        directory, depth = directories.pop(0)
        try:
            with os.scandir(directory) as entries:
                for entry in entries:
                    left -= 1
                    if left < 0:
                        return
                    if entry.is_dir(follow_symlinks=False):
                        if depth < _MAX_DEPTH and not entry.name.startswith("."):
                            directories.append((entry.path, depth + 1))
                    elif entry.is_file():
                        yield entry.path
        except OSError:
            continue
