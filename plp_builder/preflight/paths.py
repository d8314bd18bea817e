"""The paths of the contract: do they exist, and can they be used as they have to be?

The source and the Dockerfile are read, the build directory is written to for a moment, and
the cache directory is made when it is missing. Nothing stays behind but that directory.
"""

from __future__ import annotations

import errno
import os
import stat
from pathlib import Path
from typing import TYPE_CHECKING

from plp_builder.errors import (
    BuildPathNotWritable,
    ContextNotUsable,
    PathFailure,
    SourcePathNotUsable,
)
from plp_builder.preflight import dockerfile, trials
from plp_builder.preflight.cache_path import check_cache
from plp_builder.preflight.finding import Finding, reason, show
from plp_builder.tuples import NamedTuple

if TYPE_CHECKING:
    from plp_builder.settings import Settings


class Paths(NamedTuple):
    """The checked paths, with symbolic links resolved.

    ``cache`` is None when caching is off or the directory cannot be used; ``findings`` then
    says why. ``copies`` is what `stage` has to copy before BuildKit can read the Dockerfile.
    ``syntax`` is the frontend image that the Dockerfile's first lines ask for, or empty.
    """

    source: Path
    context: Path
    dockerfile_dir: Path
    dockerfile_name: str
    build: Path
    cache: Path | None
    copies: tuple[dockerfile.Copy, ...] = ()
    syntax: str = ""
    findings: tuple[Finding, ...] = ()


def check_paths(settings: Settings) -> Paths:
    """Check the paths of ``settings`` in the order in which a build needs them.

    Raises the first `PathFailure` found. What costs a build nothing but speed or comfort
    comes back as a warning in ``findings``.
    """
    source = check_source(settings.source_path)
    context = check_context(source, settings.context)
    found = dockerfile.find(source, context, settings.dockerfile)
    build = check_build(settings.build_path, settings.archive_name, settings.outputs)
    cache, unusable = None, None
    if settings.cache_strategy != "off":
        cache, unusable = check_cache(settings.cache_path)
        # Of a cache that can only be read, the cache itself tells when it is imported from.
        unusable = None if cache else unusable
    findings = [
        finding
        for finding in (unusable, *found.findings, *_overlaps(context, build, cache))
        if finding
    ]
    return Paths(
        source=source,
        context=context,
        dockerfile_dir=found.directory,
        dockerfile_name=found.name,
        build=build,
        cache=cache,
        copies=found.copies,
        syntax=found.syntax,
        findings=tuple(findings),
    )


def stage(paths: Paths, directory: Path) -> Paths:
    """Copy into ``directory`` what BuildKit cannot read in place, and say where it is now.

    Returns ``paths`` itself when there is nothing to copy. Raises `DockerfileNotUsable`.
    """
    if not paths.copies:
        return paths
    dockerfile.copy(paths.copies, directory)
    return paths._replace(dockerfile_dir=directory, dockerfile_name=paths.copies[0].name)


def check_source(path: str | Path) -> Path:
    """PLP_SOURCE_PATH: an absolute path of a directory that can be listed and entered."""
    given = trials.absolute("PLP_SOURCE_PATH", path, SourcePathNotUsable)
    hint = "Mount the source directory there, or set PLP_SOURCE_PATH."
    return _directory("PLP_SOURCE_PATH", given, SourcePathNotUsable, hint)


def check_context(source: Path, context: str | Path) -> Path:
    """PLP_CONTEXT: a directory inside ``source``, also after following links."""
    if Path(context).is_absolute():
        raise ContextNotUsable(
            f"PLP_CONTEXT {show(context)} is an absolute path",
            hint="Give it relative to PLP_SOURCE_PATH, for example PLP_CONTEXT=backend.",
        )
    found = _directory(
        "PLP_CONTEXT",
        source / context,
        ContextNotUsable,
        f"PLP_CONTEXT is relative to PLP_SOURCE_PATH ({show(source)}).",
    )
    if not found.is_relative_to(source):
        raise ContextNotUsable(
            f"PLP_CONTEXT {show(context)} leads out of the source directory, to {show(found)}",
            hint="Only files inside PLP_SOURCE_PATH can be built; "
            "PLP_BUILD_CONTEXTS adds other directories by name.",
        )
    return found


def check_build(path: str | Path, archive_name: str, outputs: tuple[str, ...]) -> Path:
    """PLP_BUILD_PATH: a directory that takes a file; nothing of the trial stays behind."""
    given = trials.absolute("PLP_BUILD_PATH", path, BuildPathNotWritable)
    if "archive" not in outputs:
        return given
    try:
        is_directory = stat.S_ISDIR(given.stat().st_mode)
    except OSError as error:
        raise BuildPathNotWritable(
            f"PLP_BUILD_PATH {show(given)}: {reason(error)}",
            hint="Mount a writable directory there, or set PLP_BUILD_PATH.",
        ) from None
    if not is_directory:
        raise BuildPathNotWritable(
            f"PLP_BUILD_PATH {show(given)} is not a directory",
            hint="Mount a writable directory there, or set PLP_BUILD_PATH.",
        )
    resolved = Path(os.path.realpath(given))
    try:
        trials.write(resolved)
    except OSError as error:
        raise BuildPathNotWritable(
            f"PLP_BUILD_PATH {show(given)}: directory is not writable ({reason(error)})",
            hint=_write_hint(error, resolved),
        ) from None
    _check_replaceable(resolved, archive_name)
    return resolved


def _directory(variable: str, path: Path, failure: type[PathFailure], hint: str) -> Path:
    try:
        if not stat.S_ISDIR(path.stat().st_mode):
            raise failure(f"{variable} {show(path)} is not a directory", hint=hint)
        with os.scandir(path):
            pass
        # Listing needs the read bit only; opening what is inside needs the search bit too.
        (path / ".").stat()
    except OSError as error:
        if isinstance(error, PermissionError):
            hint = f"Let uid {os.geteuid()} read and enter the directory, or run as its owner."
        raise failure(f"{variable} {show(path)}: {reason(error)}", hint=hint) from None
    return Path(os.path.realpath(path))


def _write_hint(error: OSError, directory: Path) -> str:
    if error.errno in (errno.EACCES, errno.EPERM):
        owner = directory.stat().st_uid
        return (
            f"The builder runs as uid {os.geteuid()} and the directory belongs to uid {owner}: "
            "change its owner or mode, or run the builder as its owner."
        )
    if error.errno == errno.EROFS:
        return "Mount the directory writable (without `:ro` or `readOnly: true`)."
    if error.errno in (errno.ENOSPC, errno.EDQUOT):
        return "Free some space there, or set PLP_BUILD_PATH to another disk."
    return "Mount a writable directory there, or set PLP_BUILD_PATH."


def _check_replaceable(directory: Path, archive_name: str) -> None:
    """An archive that is already there has to give way to the new one."""
    target = directory / archive_name
    try:
        present = os.lstat(target)
    except OSError:
        return
    if stat.S_ISDIR(present.st_mode):
        raise BuildPathNotWritable(
            f"{show(target)} is a directory, so the archive cannot take its place",
            hint="Remove that directory, or set PLP_ARCHIVE_NAME.",
        )
    holder, uid = directory.stat(), os.geteuid()
    if holder.st_mode & stat.S_ISVTX and uid not in (0, holder.st_uid, present.st_uid):
        raise BuildPathNotWritable(
            f"PLP_BUILD_PATH {show(directory)}: directory is not writable for the archive: it has "
            f"the sticky bit, and {show(archive_name)} there belongs to uid {present.st_uid}",
            hint="Remove the old archive, or set PLP_BUILD_PATH to another directory.",
        )


def _overlaps(context: Path, build: Path, cache: Path | None) -> list[Finding]:
    findings = []
    if build.is_relative_to(context):
        findings.append(
            Finding(
                "build path",
                None,
                f"PLP_BUILD_PATH {show(build)} lies inside the build context: "
                "the next build sends the archive along with the source",
                "Choose a directory outside, or name it in .dockerignore.",
            )
        )
    if cache is not None and cache.is_relative_to(context):
        findings.append(
            Finding(
                "cache path",
                None,
                f"PLP_CACHE_PATH {show(cache)} lies inside the build context: "
                "every build sends the cache along with the source",
                "Choose a directory outside, or name it in .dockerignore.",
            )
        )
    return findings
