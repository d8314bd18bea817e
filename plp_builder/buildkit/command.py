"""What the daemon is told: on its command line, or in a configuration that it waits for.

The two ways say the same. One that is started ahead of its time knows of neither settings nor cache
yet; in nearly every build they ask for nothing but a place for its state, and a configuration can
say that.
"""

from __future__ import annotations

import os
from typing import TYPE_CHECKING

from plp_builder.buildkit import config
from plp_builder.buildkit.options import Options
from plp_builder.buildkit.sandbox import NO_PROCESS_SANDBOX, Sandbox

if TYPE_CHECKING:
    from collections.abc import Iterator

    from plp_builder.buildkit.room import Room

KEPT_SNAPSHOTTER = "overlayfs"
"""The one that a state is kept for; the slower ones would fill it several times as fast."""

BEGINNING = 'root = "'
"""How a `configuration` begins. A daemon that is ahead has this from the first: should its builder
die, that is all, which no daemon can read, while of nothing it would make a state somewhere."""

_UNREACHABLE = "http://127.0.0.1:9"
"""A proxy that is not there (the discard port), for a daemon that must stay offline."""


def command(room: Room, options: Options) -> tuple[str, ...]:
    """The command line of a daemon in its room, of which only `configuration` is in a file."""
    words = []
    if options.offline:
        proxies = ("HTTP_PROXY", "HTTPS_PROXY", "http_proxy", "https_proxy")
        words = ["env", *(f"{name}={_UNREACHABLE}" for name in proxies)]
    words += [*ahead(room, room.runtime.config), f"--root={_root(room, options)}"]
    words += [f"--oci-worker-{name}={value}" for name, value in _worker(options)]
    if options.host_network:
        words.append("--allow-insecure-entitlement=network.host")
    if options.debug:
        words.append("--debug")
    if room.sandbox is Sandbox.NONE and NO_PROCESS_SANDBOX not in options.flags:
        words.append(NO_PROCESS_SANDBOX)
    return (*words, *options.flags)


def ahead(room: Room, path: str) -> tuple[str, ...]:
    """The command line of a daemon that learns the rest from a configuration at ``path``."""
    address = f"--addr=unix://{room.runtime.socket}"
    return ("buildkitd", f"--config={path}", address, "--containerd-worker=false")


def configuration(room: Room, options: Options, *, all: bool) -> str:
    """buildkitd.toml: what the settings say in it, or ``all`` that there is to tell.

    The latter is for options that `can_wait`.
    """
    bound = options.root.bound if options.root else None
    machine = os.uname().machine
    if not all:
        return config.with_worker(options.config, machine, bound=bound)
    text = config.with_worker("", machine, bound=bound, worker=dict(_worker(options)))
    return f"{BEGINNING}{config.quoted(_root(room, options))[1:]}\n{text}"


def can_wait(options: Options) -> bool:
    """Whether a configuration can say all that there is to tell: a place in UTF-8, at most."""
    if options != Options(root=options.root):
        return False
    return options.root is None or _is_text(str(options.root.path))


def _root(room: Room, options: Options) -> str:
    return str(options.root.path if options.root else room.runtime.state)


def _worker(options: Options) -> Iterator[tuple[str, str]]:
    """The worker's settings, by the name that they have in both ways."""
    if options.root:
        yield "snapshotter", KEPT_SNAPSHOTTER
    else:
        # The state lives as long as the build: collecting garbage in it is wasted work.
        yield "gc", "false"


def _is_text(path: str) -> bool:
    try:
        path.encode()
    except UnicodeEncodeError:
        return False
    return True
