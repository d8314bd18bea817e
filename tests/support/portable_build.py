"""Builds with the portable cache as the builder makes them, by a daemon of a test's own."""

from __future__ import annotations

import os
from pathlib import Path

from plp_builder.cache import index, read_only, staging
from plp_builder.cache.images import Images
from plp_builder.cache.portable import BuildCache
from plp_builder.cache.read_only import ReadOnly
from plp_builder.cache.staging import Staged
from plp_builder.cache.verification import Record, verify
from plp_builder.errors import Failure
from plp_builder.oci import layout
from plp_builder.oci.model import Descriptor
from plp_builder.settings import load
from plp_builder.solve.model import CacheImport, RegistryCache
from tests.support.daemon import Daemon

LARGE = 10**9
_READERS = frozenset({os.geteuid()})


def imported(cache: CacheImport) -> str:
    """buildctl's word for it."""
    if isinstance(cache, RegistryCache):
        return f"--import-cache=type=registry,ref={cache.reference}"
    return f"--import-cache=type=local,src={cache.path},digest={cache.digest}"


class Built:
    """One build with the cache below ``cache``; without ``served`` by the local importer.

    ``own`` is where the image goes when the cache has no place for it. ``exported`` is whether
    what was exported with the image is kept.
    """

    def __init__(
        self,
        daemon: Daemon,
        source: Path,
        cache: Path,
        tag: str = "app",
        *,
        served: bool = True,
        found: Staged | ReadOnly | None = None,
    ) -> None:
        self.warnings: list[Failure] = []
        warn = self.warnings.append
        found = found or staging.prepare(cache, tag, check=_nothing, warn=warn)
        self.cache = BuildCache(load({}), found, _nothing, warn)
        self.exported = False
        self._tag = self.cache.export.tag if self.cache.export else ""
        self.own = source.parent / f"{source.name}-{tag}"
        try:
            if served:
                self.cache.serve(_READERS)
            self.imports = self.cache.imports
            self._solve(daemon, source)
            self.cache.keep()
        finally:
            self.cache.close()

    def _solve(self, daemon: Daemon, source: Path) -> None:
        try:
            place = self._image(daemon, source)
        except AssertionError as error:
            if not self.cache.give_up(str(error)):
                raise
            place = self._image(daemon, source)
        found = index.read(place).entries
        (self.top,) = (each for each in found if index.tag_of(each) != self._tag)
        self.digest = str(self.top.digest)
        _verify(place, self.top)
        self.exported = self.cache.wants_export(all_cached=self.steps == self.cached)

    def _image(self, daemon: Daemon, source: Path) -> Path:
        place = self.cache.layout or self.own
        place.mkdir(exist_ok=True)
        Images(place).begin("")
        output = f"--output=type=oci,tar=false,dest={place}"
        imports = (imported(each) for each in self.cache.imports)
        self.output = daemon.solve(source, output, *imports, *self._export())
        return place

    def _export(self) -> tuple[str, ...]:
        export = self.cache.export
        if not export:
            return ()
        where = f"type=local,dest={export.path},tag={export.tag},mode=max,ignore-error=true"
        return (f"--export-cache={where}",)

    @property
    def steps(self) -> int:
        """COPY steps of the Dockerfile."""
        return len({line.split()[0] for line in self.output.splitlines() if "] COPY " in line})

    @property
    def cached(self) -> int:
        """Those that were cached; one whose layer is fetched later is not called so."""
        names: dict[str, bool] = {}
        for line in self.output.splitlines():
            number, _, rest = line.partition(" ")
            if "] COPY " in rest:
                names.setdefault(number, False)
            elif number in names and rest.startswith(("CACHED", "sha256:", "extracting sha256:")):
                names[number] = True
        return sum(names.values())


def opened_read_only(cache: Path, tag: str, warnings: list[Failure]) -> ReadOnly | None:
    """What a build can import from a cache that it cannot write to."""
    return read_only.read(cache / staging.LAYOUT, tag, check=_nothing, warn=warnings.append)


def _verify(place: Path, top: Descriptor) -> None:
    record = Record.read(place)
    needed = [node.descriptor for node in layout.reachable(place, top)]
    assert verify(place, needed, record, check=_nothing) == []
    record.write(place)


def _nothing() -> None:
    pass
