"""The portable layer cache: an OCI layout in $PLP_CACHE_PATH/buildkit that builds share.

`opened` is what a build needs of it; `staging` and `merging` have the mechanics.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Collection, Iterator, Sequence
from contextlib import contextmanager, suppress
from typing import TYPE_CHECKING

from plp_builder import log
from plp_builder.cache import merging, mounts, read_only, staging
from plp_builder.cache.files import remove
from plp_builder.cache.forwarding import Forwarding
from plp_builder.cache.identity import identity
from plp_builder.cache.staging import Staged
from plp_builder.cache.verification import RECORD
from plp_builder.errors import CacheDamaged, CacheNotUsable, Failure, ResourcesExhausted
from plp_builder.oci.layout import blob_path
from plp_builder.solve.model import CacheExport, CacheImport, LocalCache, RegistryCache

if TYPE_CHECKING:
    from pathlib import Path

    from plp_builder.cache.read_only import ReadOnly
    from plp_builder.cache.serving import CacheRegistry
    from plp_builder.oci.model import Descriptor, Digest
    from plp_builder.preflight.paths import Paths
    from plp_builder.settings import Settings

_GONE = re.compile(r"\bcontent sha256:[0-9a-f]{64}: not found")
_DIGEST = re.compile(r"\bsha256:[0-9a-f]{64}\b")


class BuildCache:
    """The cache of one build. Without a usable cache it imports and exports nothing.

    ``layout`` is the OCI layout to export the image into, so that neither the image nor the cache,
    which follows it, sends a blob that is there; None where there is none. ``export`` goes there
    too, unless another layout is chosen: see `take`.
    """

    def __init__(
        self,
        settings: Settings,
        found: Staged | ReadOnly | None,
        check: Callable[[], None],
        warn: Callable[[Failure], None],
    ) -> None:
        self._found = found
        self._staged = staged = found if isinstance(found, Staged) else None
        self._check = check
        self._warn = warn
        self._max_size = settings.cache_max_size
        self._registry: CacheRegistry | None = None
        self._unchanged = False
        self._forwarded: frozenset[str] = frozenset()
        self.imports: tuple[CacheImport, ...] = ()
        self.export: CacheExport | None = None
        self.layout: Path | None = None
        if found and not settings.no_cache:
            self.imports = tuple(LocalCache(path, digest) for path, digest in found.imports)
        self._direct = bool(self.imports and found and found.imports[0].path == found.layout)
        if staged:
            self.export = CacheExport(staged.directory, staged.tag, settings.cache_mode)
            self.layout = staged.directory

    def serve(self, readers: frozenset[int]) -> None:
        """Have the imports come from a registry on loopback, which lasts until `close` or `keep`.

        To the users with the ids ``readers`` alone: the daemon's and the client's. Where it cannot
        be, the imports stay as they are.
        """
        if not (self.imports and self._found) or self._registry:
            return
        from plp_builder.cache.serving import CacheRegistry

        place = self._found.imports[0].path
        registry = CacheRegistry(place, self._found.blobs, readers)
        try:
            registry.__enter__()
        except (OSError, ResourcesExhausted) as error:
            log.debug("the cache is imported without a registry", reason=str(error))
            return
        log.debug("the cache is served as a registry", address=registry.address)
        self._registry = registry
        self.imports = tuple(
            RegistryCache(registry.reference(digest)) for _, digest in self._found.imports
        )

    def wants_export(self, *, all_cached: bool) -> bool:
        """Whether the cache lacks something of what was built; asked once that is built.

        ``all_cached`` is whether every step was.
        """
        if not self._staged:
            return False
        self._unchanged = all_cached and self._staged.own
        return not self._unchanged

    def add(self, layout: Path, descriptors: Sequence[Descriptor]) -> None:
        """Put the blobs of an image in another ``layout`` where the export finds them."""
        if self._staged:
            self._staged = staging.add(self._staged, layout, descriptors)

    @contextmanager
    def forwarding(self, layout: Path) -> Iterator[None]:
        """Meanwhile, what an image's export brings into another ``layout`` is where `export` goes.

        So that it need not be sent there.
        """
        if not self._staged:
            yield
            return
        forwarding = Forwarding(layout, self._staged.directory)
        try:
            yield
        finally:
            linked = forwarding.end()
            self._forwarded |= linked
            log.debug("blobs were linked for the cache's export", number=len(linked))

    def recognize(self, layout: Path) -> None:
        """Take over what is known of what was forwarded, once it is verified in ``layout``."""
        if self._staged and self._forwarded:
            staging.recognize(layout, self._staged.directory, self._forwarded)

    def distrust(self, damaged: Collection[Digest]) -> None:
        """Some blobs have turned out damaged elsewhere, and here they may be the same files."""
        if self._staged:
            for digest in damaged:
                remove(blob_path(self._staged.directory, digest))
            self._forwarded -= {digest.encoded for digest in damaged}
        self._forget_verified()

    def take(self, layout: Path) -> bool:
        """Whether `keep` will find what was exported to another ``layout``; it comes by links."""
        staged = self._staged
        return staged is not None and merging.take(staged, layout, self._warn)

    def lend(self, layout: Path) -> None:
        """Put what can be imported in another ``layout``, so that no image in it is sent whole."""
        if self.imports and self._found:
            staging.share(self._found.layout, layout, self._found.blobs)

    def keep(self) -> None:
        """Merge what the build exported. Only what ``check`` raises gets out."""
        staged, self._staged = self._staged, None
        try:
            if staged and self._unchanged:
                merging.used(staged, check=self._check, warn=self._warn)
            elif staged:
                # Packed cache mounts lie in the same directory.
                left = max(0, self._max_size - mounts.disk_usage(staged.layout.parent))
                staged = staged._replace(there=staged.there | self._forwarded)
                merging.keep(staged, max_size=left, check=self._check, warn=self._warn)
        finally:
            self.close()

    def give_up(self, said: str) -> bool:
        """Whether buildctl failed because of the cache, by what it ``said``.

        BuildKit's ``ignore-error`` covers the daemon's side only: where buildctl cannot write
        the export, a build that is otherwise complete fails. So does one whose layer is gone or
        damaged when it is fetched at last: removed by another build while it imports from the
        cache itself, or changed in a way that could not be seen. True has told a warning, and
        there is nothing to import or export any more: solve again. Only buildctl's last word
        counts, which begins with ``error:``; it remarks on the directory in builds that go well.
        """
        error = f"\n{said}".rpartition("\nerror: ")
        if error[1] and self._staged and str(self._staged.directory) in error[2]:
            self._warn(
                CacheNotUsable("BuildKit could not write its cache, so this build is not kept")
            )
        elif error[1] and self._registry and self._names_a_blob(error[2]):
            self._warn(CacheDamaged("A layer in the cache cannot be read; this build is cold"))
            self._forget_verified()
        elif error[1] and self._direct and _GONE.search(error[2]):
            self._warn(CacheNotUsable("A layer in the cache is gone since the build began"))
        else:
            return False
        self.close()
        self.imports, self.export, self.layout, self._direct = (), None, None, False
        return True

    def _names_a_blob(self, text: str) -> bool:
        """Whether it speaks of a blob that is imported."""
        known = {str(blob.digest) for blob in self._found.blobs} if self._found else set()
        return not known.isdisjoint(_DIGEST.findall(text))

    def _forget_verified(self) -> None:
        """Have the next build read every blob again, and put aside what is damaged."""
        if self._found:
            with suppress(OSError):
                (self._found.layout / RECORD).unlink()

    def close(self) -> None:
        """End the registry, and remove what `keep` has not taken."""
        registry, self._registry = self._registry, None
        if registry:
            registry.__exit__(None, None, None)
            if not registry.asked:
                log.debug("nobody asked for the cache")
        if self._staged:
            staging.discard(self._staged)
            self._staged = None


@contextmanager
def opened(settings: Settings, paths: Paths, check: Callable[[], None]) -> Iterator[BuildCache]:
    """The cache for this build, told about by warnings where it cannot be used.

    ``check`` is called often and may raise; nothing else gets out.
    """
    found = None
    if settings.cache_strategy != "off" and paths.cache is not None:
        try:
            dockerfile = (paths.dockerfile_dir / paths.dockerfile_name).read_bytes()
        except OSError as error:
            tell(CacheNotUsable("The Dockerfile cannot be read", why=[str(error)]))
        else:
            found = _found(settings, paths.cache, identity(settings, dockerfile), check)
    cache = BuildCache(settings, found, check, tell)
    try:
        yield cache
    finally:
        cache.close()


def _found(
    settings: Settings, cache: Path, tag: str, check: Callable[[], None]
) -> Staged | ReadOnly | None:
    directory = cache / staging.LAYOUT
    if not read_only.is_read_only(directory):
        return staging.prepare(cache, tag, check=check, warn=tell)
    if settings.no_cache:
        tell(read_only.cannot_be_written(directory, "keeps nothing"))
        return None
    return read_only.read(directory, tag, check=check, warn=tell)


def tell(failure: Failure) -> None:
    """Log a failure that ends no build, at once: somebody may have to wait."""
    log.release()
    keys = {"why": "; ".join(failure.why), "hint": failure.hint}
    log.warning(failure.what, name=failure.name, **{k: v for k, v in keys.items() if v})
