"""The Dockerfile: found, a regular file inside the source, and where BuildKit can read it.

BuildKit reads the directory that holds the Dockerfile as a source of its own. It follows
links only within that directory and takes wildcards in the name for a pattern (fsutil,
FollowLinks). A Dockerfile that it could not read so is copied under a plain name, together
with the ignore file that goes with it: `<Dockerfile>.dockerignore`, else `.dockerignore`.
"""

from __future__ import annotations

import errno
import os
import re
import stat
from pathlib import Path

from plp_builder.errors import DockerfileNotFound, DockerfileNotUsable, PathFailure
from plp_builder.preflight import near_misses
from plp_builder.preflight.finding import Finding, open_regular, reason, show
from plp_builder.tuples import NamedTuple

MAX_SIZE = 4 * 1024 * 1024
"""Bytes. The file travels with the source map of every step, in messages of at most 16 MB."""

_PLAIN_NAME = re.compile(r"[A-Za-z0-9_.][A-Za-z0-9_.+@~,=-]*")
_DIRECTIVE = re.compile(rb"([A-Za-z][A-Za-z0-9]*)\s*=\s*(.+?)\s*")
_DIRECTIVES = (b"syntax", b"escape", b"check")
_MISSING = (errno.ENOENT, errno.ENOTDIR)


class Copy(NamedTuple):
    """A file, and the name it gets in the directory that is made for BuildKit."""

    source: Path
    name: str


class Dockerfile(NamedTuple):
    """Where BuildKit reads the Dockerfile, and what has to be copied for it to do so.

    ``syntax`` is the frontend image that the file's first lines ask for, or empty.
    """

    directory: Path
    name: str
    copies: tuple[Copy, ...]
    syntax: str
    findings: tuple[Finding, ...]


def find(source: Path, context: Path, name: str | Path) -> Dockerfile:
    """Find PLP_DOCKERFILE, given relative to ``context``; both directories are resolved.

    Raises `DockerfileNotFound`, with what was found instead as a hint, and
    `DockerfileNotUsable`.
    """
    if Path(name).is_absolute():
        raise DockerfileNotUsable(
            f"PLP_DOCKERFILE {show(name)} is an absolute path",
            hint="Give it relative to PLP_CONTEXT, for example PLP_DOCKERFILE=docker/Dockerfile.",
        )
    path = context / name
    target = _resolve(source, context, path, os.fspath(name))
    content = read(target)
    if not content.strip():
        raise DockerfileNotUsable(f"{show(path)} is empty", hint="It needs at least one FROM.")
    directory, base = Path(os.path.realpath(path.parent)), path.name
    ignore, is_link, findings = _ignore_file(source, context, directory / base)
    copies: tuple[Copy, ...] = ()
    plain = _PLAIN_NAME.fullmatch(base) is not None
    if not plain or is_link or target != directory / base:
        name_there = base if plain else "Dockerfile"
        copies = (Copy(target, name_there),)
        if ignore is not None:
            copies += (Copy(ignore, f"{name_there}.dockerignore"),)
    return Dockerfile(directory, base, copies, syntax(content), findings)


def read(path: Path, *, limit: int = MAX_SIZE) -> bytes:
    """The content of a regular file of at most ``limit`` bytes; never waits for a FIFO.

    Raises `DockerfileNotUsable`.
    """
    try:
        with open_regular(path, follow=False) as file:
            content = file.read(limit + 1)
    except PermissionError:
        raise DockerfileNotUsable(
            f"{show(path)} cannot be read: permission denied",
            hint=f"Let uid {os.geteuid()} read the file, or run the builder as its owner.",
        ) from None
    except OSError as error:
        raise DockerfileNotUsable(f"{show(path)} cannot be read: {reason(error)}") from None
    if len(content) > limit:
        raise DockerfileNotUsable(
            f"{show(path)} is larger than {limit // 2**20} MiB",
            hint="Is it a Dockerfile? Set PLP_DOCKERFILE to the right file.",
        )
    return content


def copy(copies: tuple[Copy, ...], directory: Path) -> None:
    """Copy each file into ``directory``, readable to its owner only."""
    for source, name in copies:
        content = read(source)
        descriptor = os.open(
            directory / name, os.O_CREAT | os.O_EXCL | os.O_WRONLY | os.O_CLOEXEC, 0o600
        )
        with os.fdopen(descriptor, "wb") as file:
            file.write(content)


def syntax(content: bytes) -> str:
    """The image of a `# syntax=` line among the first lines, or empty.

    Rules of the parser directives: Dockerfile reference, "Parser directives"; also `//`
    as a comment sign, and a shebang line above (dockerfile/parser/directives.go).
    """
    lines = content.removeprefix(b"\xef\xbb\xbf").split(b"\n", 8)[:8]
    if lines and lines[0].startswith(b"#!"):
        del lines[0]
    for sign in (b"#", b"//"):
        for line in lines:
            match = _DIRECTIVE.fullmatch(line.removeprefix(sign).lstrip())
            if not line.startswith(sign) or not match:
                break
            key = match[1].lower()
            if key == b"syntax":
                return match[2].split(b" ")[0].decode("utf-8", "replace")
            if key not in _DIRECTIVES:
                break
    return ""


def _resolve(source: Path, context: Path, path: Path, name: str) -> Path:
    """The regular file behind ``path``, which has to lie inside ``source``."""
    try:
        mode = path.stat().st_mode
    except OSError as error:
        raise _unreachable(source, context, path, name, error) from None
    target = Path(os.path.realpath(path))
    if not target.is_relative_to(source):
        raise DockerfileNotUsable(
            f"PLP_DOCKERFILE {show(name)} leads out of the source directory, to {show(target)}",
            hint="The Dockerfile has to lie inside PLP_SOURCE_PATH, also after following links.",
        )
    if not stat.S_ISREG(mode):
        is_directory = stat.S_ISDIR(mode)
        hint = near_misses.hint(source, context, name, within=target) if is_directory else ""
        raise _special(path, mode, hint)
    return target


def _unreachable(source: Path, context: Path, path: Path, name: str, error: OSError) -> PathFailure:
    if error.errno in _MISSING:
        if path.is_symlink():
            return DockerfileNotFound(
                f"Dockerfile not found: {show(path)} is a link to {show(path.readlink())}, "
                "which does not exist",
                hint=near_misses.hint(source, context, name),
            )
        return DockerfileNotFound(
            f"Dockerfile not found: {show(path)}", hint=near_misses.hint(source, context, name)
        )
    if error.errno == errno.ELOOP:
        return DockerfileNotUsable(
            f"{show(path)} is a link that leads back to itself",
            hint="Replace the link by the file, or set PLP_DOCKERFILE.",
        )
    if error.errno in (errno.EACCES, errno.EPERM):
        return DockerfileNotUsable(
            f"{show(path)} cannot be reached: permission denied",
            hint=f"Let uid {os.geteuid()} enter the directories above it.",
        )
    return DockerfileNotUsable(f"{show(path)} cannot be used: {reason(error)}")


def _special(path: Path, mode: int, hint: str = "") -> DockerfileNotUsable:
    kinds = (
        (stat.S_ISDIR, "a directory"),
        (stat.S_ISFIFO, "a named pipe"),
        (stat.S_ISSOCK, "a socket"),
        (stat.S_ISCHR, "a device"),
        (stat.S_ISBLK, "a device"),
    )
    kind = next((text for matches, text in kinds if matches(mode)), "no regular file")
    return DockerfileNotUsable(
        f"{show(path)} is {kind}, not a regular file",
        hint=hint or "Set PLP_DOCKERFILE to a regular file inside PLP_SOURCE_PATH.",
    )


def _ignore_file(
    source: Path, context: Path, dockerfile: Path
) -> tuple[Path | None, bool, tuple[Finding, ...]]:
    """The ignore file that counts, whether it is a link, and what is odd about it."""
    own = dockerfile.with_name(f"{dockerfile.name}.dockerignore")
    for path in (own, context / ".dockerignore"):
        try:
            mode = path.stat().st_mode
        except OSError as error:
            if path.is_symlink():
                finding = Finding(
                    "dockerignore",
                    None,
                    f"{show(path)} is a link that leads nowhere ({reason(error)}): ignored",
                    "Mend or remove the link.",
                )
                return None, False, (finding,)
            continue
        target = Path(os.path.realpath(path))
        if not target.is_relative_to(source):
            raise DockerfileNotUsable(
                f"{show(path)} leads out of the source directory, to {show(target)}",
                hint="It has to lie inside PLP_SOURCE_PATH, also after following links.",
            )
        if not stat.S_ISREG(mode):
            raise _special(path, mode, f"Make {show(path.name)} a regular file, or remove it.")
        if path.is_symlink() or path == own:
            return target, path.is_symlink(), ()
        # BuildKit reads the context's own .dockerignore wherever the Dockerfile is.
        return None, False, ()
    return None, False, ()
