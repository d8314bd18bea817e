"""What one call of `buildctl build` is asked for."""

from __future__ import annotations

from pathlib import Path

from plp_builder.tuples import NamedTuple
from plp_builder.values import KeyValue, Secret, Ssh


class LocalCache(NamedTuple):
    """A cache to import: an OCI layout directory and the digest of the entry in it."""

    path: Path
    digest: str


class RegistryCache(NamedTuple):
    """A cache to import: an image reference with the digest of the entry."""

    reference: str


CacheImport = LocalCache | RegistryCache


class CacheExport(NamedTuple):
    """Where the cache goes: an OCI layout directory, the entry's tag, and `min` or `max`."""

    path: Path
    tag: str
    mode: str


class SolveRequest(NamedTuple):
    """All that one call of `buildctl build` needs to know, except the daemon's address.

    ``options`` are the frontend's, ``output`` the exporter's attributes beginning with its
    `type`, empty when nothing is to be written. Secrets are named, never held.
    """

    frontend: str
    options: tuple[KeyValue, ...]
    locals: tuple[tuple[str, Path], ...]
    layouts: tuple[tuple[str, Path], ...] = ()
    output: tuple[KeyValue, ...] = ()
    secrets: tuple[Secret, ...] = ()
    ssh: tuple[Ssh, ...] = ()
    entitlements: tuple[str, ...] = ()
    no_cache: bool = False
    cache_imports: tuple[CacheImport, ...] = ()
    cache_export: CacheExport | None = None
    cache_compression: str = ""

    @property
    def writes_archive(self) -> bool:
        """Whether an archive comes out of buildctl's standard output."""
        return bool(self.output) and not any(pair.key == "dest" for pair in self.output)
