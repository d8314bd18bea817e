"""What is solved to pack cache mounts, and to unpack them: a generated Dockerfile.

Each mount gets a step `FROM scratch` in which this machine's tar works on it.
"""

from __future__ import annotations

import json
import re
from collections.abc import Mapping, Sequence
from pathlib import Path
from types import MappingProxyType

from plp_builder.cache.mounts.model import Mount
from plp_builder.cache.mounts.tool import PLACE
from plp_builder.solve import SolveRequest
from plp_builder.solve.csv import record
from plp_builder.tuples import NamedTuple
from plp_builder.values import KeyValue

NAMESPACE = "BUILDKIT_CACHE_MOUNT_NS"
"""The build argument that BuildKit puts before the id of each cache mount."""

ARCHIVE = "mount.tar"
DOCKERFILE = "Dockerfile"

_TOOL, _STEPS, _INPUT = "plp-mount-tool", "plp-mount-steps", "plp-mount"
_PLAIN = re.compile(r"[^A-Za-z0-9_./:@+,=-]")
_TO_ESCAPE = re.compile(r"([\\'\"\s])")
_ATTRIBUTES = ("--xattrs", "--xattrs-include=user.*", "--xattrs-include=security.capability")


class Task(NamedTuple):
    """A mount to work on. ``name`` is unique (see `tasks`).

    ``directory`` holds the archive to unpack. To pack, ``whole`` is whether more than the listing
    is wanted.
    """

    mount: Mount
    name: str
    directory: Path | None = None
    whole: bool = True

    @property
    def archive(self) -> str:
        """Its name in the directory that a packing solve writes to."""
        return f"{self.name}.tar"

    @property
    def listing(self) -> str:
        """The same for the listing: all that is in the mount, without contents."""
        return f"{self.name}.list"


def packing(
    tasks: Sequence[Task], tar: Sequence[str], directory: Path, tool: Path, namespace: str, to: Path
) -> SolveRequest:
    """A solve that leaves archives and listings of mounts in the directory ``to``.

    ``tar`` and ``tool`` are the words and the directory of `tool.install`; ``directory`` is an
    empty one of ours, ``namespace`` the value of the build argument of that name.
    """
    steps = [_step(task, (*tar, *_pack(task)), "") for task in tasks]
    request = _request(steps, directory, tool, namespace, ())
    return request._replace(output=(KeyValue("type", "local"), KeyValue("dest", str(to))))


def unpacking(
    tasks: Sequence[Task], tar: Sequence[str], directory: Path, tool: Path, namespace: str
) -> SolveRequest:
    """A solve that fills mounts from the archives in the tasks' directories."""
    inputs = [(f"{_INPUT}-{task.name}", task.directory) for task in tasks if task.directory]
    steps = [_step(task, (*tar, *_unpack(task)), f"{_INPUT}-{task.name}") for task in tasks]
    return _request(steps, directory, tool, namespace, inputs)


def _pack(task: Task) -> tuple[str, ...]:
    # GNU tar does not read what it would write to /dev/null: a listing costs no more than stat(2).
    return (
        "--create",
        f"--file=/{task.archive}" if task.whole else "--file=/dev/null",
        "--format=posix",
        "--pax-option=exthdr.name=%d/PaxHeaders/%f,delete=atime,delete=ctime",
        "--numeric-owner",
        "--sparse",
        "--sort=name",
        *_ATTRIBUTES,
        "--verbose",
        "--verbose",
        "--full-time",
        "--quoting-style=escape",
        f"--index-file=/{task.listing}",
        f"--directory={_target(task)}",
        ".",
    )


def _unpack(task: Task) -> tuple[str, ...]:
    return (
        "--extract",
        f"--file={PLACE}-in/{ARCHIVE}",
        "--numeric-owner",
        "--same-owner",
        "--same-permissions",
        "--delay-directory-restore",
        *_ATTRIBUTES,
        f"--directory={_target(task)}",
    )


def _target(task: Task) -> str:
    return f"/{_INPUT}-{task.name}"


def _step(task: Task, command: Sequence[str], source: str) -> str:
    mounts = [record(("type", "bind"), ("from", _TOOL), ("target", PLACE))]
    if source:
        mounts.append(record(("type", "bind"), ("from", source), ("target", f"{PLACE}-in")))
    mounts.append(options(task.mount, _target(task)))
    flags = " ".join(f"--mount={_escaped(mount)}" for mount in mounts)
    return f"RUN {flags} {json.dumps(command)}"


def options(mount: Mount, target: str) -> str:
    """The value of `--mount=` that means this very mount, before it is escaped as a word."""
    pairs: list[tuple[str, object]] = [
        ("type", "cache"),
        ("target", target),
        # BuildKit expands variables and takes quotes away.
        ("id", _PLAIN.sub(lambda match: "\\" + match[0], mount.id)),
    ]
    owners = (("uid", mount.uid), ("gid", mount.gid))
    pairs += [(key, value) for key, value in owners if value is not None]
    if mount.mode is not None:
        pairs.append(("mode", f"{mount.mode:04o}"))
    if mount.sharing:
        pairs.append(("sharing", mount.sharing))
    return record(*pairs)


def _escaped(word: str) -> str:
    return _TO_ESCAPE.sub(r"\\\1", word)


def _request(
    steps: Sequence[str],
    directory: Path,
    tool: Path,
    namespace: str,
    inputs: Sequence[tuple[str, Path]],
) -> SolveRequest:
    (directory / DOCKERFILE).write_text("\n".join(("FROM scratch", *steps, "")), "utf-8")
    contexts = ((_TOOL, tool), *inputs)
    # Names of our own: under its usual ones the daemon keeps its copies of the build's context.
    options = [KeyValue(key, _STEPS) for key in ("contextkey", "dockerfilekey")]
    options.append(KeyValue("filename", DOCKERFILE))
    options += [KeyValue(f"context:{name}", f"local:{name}") for name, _ in contexts]
    if namespace:
        options.append(KeyValue(f"build-arg:{NAMESPACE}", namespace))
    return SolveRequest(
        frontend="dockerfile.v0",
        options=tuple(options),
        locals=((_STEPS, directory), *contexts),
    )


def tasks(
    mounts: Sequence[Mount],
    token: str,
    *,
    whole: Sequence[Mount] = (),
    places: Mapping[Mount, Path] = MappingProxyType({}),
) -> tuple[Task, ...]:
    """The tasks of one solve; ``token`` is its own, for what it leaves in the daemon.

    ``whole`` are the mounts that are packed and not only listed, ``places`` those of archives.
    """
    return tuple(
        Task(mount, f"{token}-{number}", places.get(mount), mount in whole)
        for number, mount in enumerate(mounts)
    )


def traces(token: str) -> tuple[str, str]:
    """The daemon's filters for what a solve leaves in it, except the mounts themselves.

    These are tar and the archives that it was sent, and the root file systems of packing steps,
    which hold the archives once more.
    """
    return (
        f"type==source.local,description~={_INPUT}-",
        f"type==regular,description~={_INPUT}-{token}-",
    )


def made(token: str) -> str:
    """The filter for the mounts that a solve was the first to use."""
    return f"type==exec.cachemount,description~={_INPUT}-{token}-"
