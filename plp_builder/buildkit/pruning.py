"""What a daemon is told to forget, by ``buildctl prune``."""

from __future__ import annotations

from collections.abc import Mapping

from plp_builder import process
from plp_builder.buildkit import Endpoint
from plp_builder.buildkit.config import NO_CACHE_MOUNT
from plp_builder.errors import StateDamaged
from plp_builder.process import Begun, Completed

_MEGABYTE = 1_000_000
_PATIENCE = 300.0


def local_sources(endpoint: Endpoint, env: Mapping[str, str]) -> None:
    """Forget the copies of build contexts: the next solve reads them whole.

    Raises StateDamaged, TimedOut.
    """
    finish(_begin(endpoint, env, "prune", "--all", "--filter", "type==source.local"))


def histories(endpoint: Endpoint, env: Mapping[str, str]) -> Begun:
    """Begin to forget the records of builds with all that steps have printed, maybe a secret.

    `finish` ends it.
    """
    return _begin(endpoint, env, "prune-histories")


def to_size(endpoint: Endpoint, env: Mapping[str, str], size: int) -> int:
    """Keep no more than ``size`` bytes, what was used last, and cache mounts the longest.

    How many there are comes back. Raises StateDamaged, TimedOut.
    """
    told = finish(_begin(endpoint, env, "du", "--format", "{{range .}}{{.Size}} {{end}}"))
    held = sum(map(int, told.stdout.split()))
    if held <= size:
        return held
    # Nothing is not a bound: with 0 everything would stay.
    most = f"--keep-storage={max(size, _MEGABYTE) / _MEGABYTE:.6f}"
    for words in (("--filter", NO_CACHE_MOUNT, most), (most,)):
        finish(_begin(endpoint, env, "prune", "--all", *words))
    return size


def finish(begun: Begun) -> Completed:
    """Wait for what was begun. Raises StateDamaged, TimedOut."""
    done = begun.finish(_PATIENCE)
    if done.code:
        said = done.stderr.decode("utf-8", "replace").strip().splitlines()
        raise StateDamaged("buildkitd could not be made to forget what it keeps", why=said[-3:])
    return done


def _begin(endpoint: Endpoint, env: Mapping[str, str], *words: str) -> Begun:
    return process.begin(["buildctl", *endpoint.arguments(), *words], env=env)
