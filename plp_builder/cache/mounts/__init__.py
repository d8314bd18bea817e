"""Cache mounts (`RUN --mount=type=cache`) in the portable cache.

BuildKit exports layers only: what such a mount holds goes with the daemon's root. The mounts that
PLP_CACHE_MOUNTS names are packed by a solve of the builder's own, which mounts them with the very
same options, and unpacked by another before the next build on a fresh daemon::

    carrier = mounts.carrier_for(settings, paths, check)  # reads the Dockerfile; None: no mounts
    carrier.tell(state=False)  # once it is known whether the daemon's state is kept
    carrier.restore(reach)  # on a ready daemon that has no mounts yet, before the first solve
    carrier.keep(reach, state=False)  # after a build in which a step ran, while the daemon lives

``carrier.waiting`` says whether there is something to restore. ``reach`` is a `Reach`.

`instructions`, `expansion` and `model` read the Dockerfile, `tool` finds tar, `recipe` writes what
is solved, `store` has the files in the cache, `carrier` does it all.
"""

from __future__ import annotations

import os
from collections.abc import Callable, Mapping
from typing import TYPE_CHECKING

from plp_builder.tuples import NamedTuple

if TYPE_CHECKING:
    from pathlib import Path

    from plp_builder.buildkit import Endpoint
    from plp_builder.cache.mounts.carrier import Carrier
    from plp_builder.preflight.paths import Paths
    from plp_builder.process import Watch
    from plp_builder.settings import Settings


DIRECTORY = "mounts"
"""Of the packed mounts, in the portable cache."""


class Reach(NamedTuple):
    """A daemon that is ready, and what a solve on it takes.

    ``directory`` is a private one of the client's, where a few MB can lie.
    """

    endpoint: Endpoint
    watch: Watch
    environ: Mapping[str, str]
    directory: Path


def disk_usage(cache: Path) -> int:
    """The bytes that all packed mounts take in a cache directory. Never raises."""
    if not os.path.lexists(cache / "buildkit" / DIRECTORY):
        return 0
    from plp_builder.cache.mounts import store

    return store.disk_usage(cache)


def carrier_for(settings: Settings, paths: Paths, check: Callable[[], None]) -> Carrier | None:
    """What carries this build's cache mounts; None for a Dockerfile that has none.

    ``paths`` are those that BuildKit gets. ``check`` is called often and may raise, nothing else
    gets out of here.
    """
    if settings.cache_strategy == "off" or paths.cache is None:
        return None
    try:
        dockerfile = (paths.dockerfile_dir / paths.dockerfile_name).read_bytes()
    except OSError:
        return None
    if b"mount" not in dockerfile:
        return None
    from plp_builder.cache.mounts.carrier import create

    return create(settings, paths.cache, dockerfile, check)
