"""What a daemon is told to forget, by ``buildctl prune``."""

from __future__ import annotations

from collections.abc import Mapping

from plp_builder import process
from plp_builder.buildkit import Endpoint
from plp_builder.buildkit.config import NO_CACHE_MOUNT
from plp_builder.errors import StateDamaged

_MEGABYTE = 1_000_000
_PATIENCE = 300.0


def local_sources(endpoint: Endpoint, env: Mapping[str, str]) -> None:
    """Forget the copies of build contexts: the next solve reads them whole.

    Raises StateDamaged, TimedOut.
    """
    _prune(endpoint, env, "--filter", "type==source.local")


def to_size(endpoint: Endpoint, env: Mapping[str, str], size: int) -> None:
    """Keep no more than ``size`` bytes, what was used last, and cache mounts the longest.

    Raises StateDamaged, TimedOut.
    """
    # Nothing is not a bound: with 0 everything would stay.
    most = f"--keep-storage={max(size, _MEGABYTE) / _MEGABYTE:.6f}"
    _prune(endpoint, env, "--filter", NO_CACHE_MOUNT, most)
    _prune(endpoint, env, most)


def histories(endpoint: Endpoint, env: Mapping[str, str]) -> None:
    """Forget the records of builds with all that steps have printed, maybe a secret.

    Raises StateDamaged, TimedOut.
    """
    _run(["buildctl", *endpoint.arguments(), "prune-histories"], env)


def _prune(endpoint: Endpoint, env: Mapping[str, str], *words: str) -> None:
    _run(["buildctl", *endpoint.arguments(), "prune", "--all", *words], env)


def _run(command: list[str], env: Mapping[str, str]) -> None:
    done = process.run(command, env=env, timeout=_PATIENCE)
    if done.code:
        said = done.stderr.decode("utf-8", "replace").strip().splitlines()
        raise StateDamaged("buildkitd could not be made to forget what it keeps", why=said[-3:])
