"""Packs the cache mounts of a build into the portable cache, and unpacks them for the next.

Nothing of this fails a build: what cannot be carried is told, and the build goes on without it.
"""

from __future__ import annotations

import os
import re
import time
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING

from plp_builder import log
from plp_builder.cache.identity import identity
from plp_builder.cache.lock import LockNotFreeError
from plp_builder.cache.mounts import Reach, model, recipe
from plp_builder.cache.mounts.bench import Bench
from plp_builder.cache.mounts.model import Mount
from plp_builder.cache.mounts.store import Kept, Store, digest
from plp_builder.cache.portable import tell
from plp_builder.cache.staging import DAMAGED, not_usable
from plp_builder.errors import CacheDamaged, CacheNotUsable
from plp_builder.syntax.mounts import ALL_CACHE_MOUNTS

if TYPE_CHECKING:
    from plp_builder.settings import Settings

_ARM = re.compile(r"^[^/]+/arm$")
_MACHINES = {"x86_64": "amd64", "aarch64": "arm64"}

Why = tuple[str, ...]


class Carrier:
    """Carries ``mounts``; ``untold`` is whether others are lost of which nobody was told.

    ``fresh`` is whether BuildKit empties them first, as it does with `--no-cache`.
    """

    def __init__(
        self,
        mounts: Sequence[Mount],
        *,
        untold: bool,
        fresh: bool,
        namespace: str,
        aside: Path,
        store: Store,
    ) -> None:
        self.mounts = tuple(mounts)
        self._untold = untold
        self._fresh = fresh
        self._namespace = namespace
        self._aside = aside
        self._store = store
        self._known: dict[Mount, Kept | None] = {}
        self._read()

    @property
    def waiting(self) -> bool:
        """Whether there is something to restore: then no solve may begin before `restore`."""
        return not self._fresh and bool(self._archives())

    def tell(self, *, state: bool) -> None:
        """Say once that mounts begin empty in every build, where neither way keeps them.

        ``state`` is whether the daemon's state is kept.
        """
        if self._untold and not state:
            self._untold = False
            log.warning(
                "what cache mounts hold is lost when this build ends",
                why="the daemon's state is not kept, and the portable cache has layers only",
                hint="PLP_CACHE_MOUNTS=all carries them in the portable cache, too.",
            )

    def restore(self, reach: Reach) -> None:
        """Fill the mounts of a daemon, if it has none yet. Only what the watch raises gets out."""
        if not self.waiting:
            return
        began = time.monotonic()
        try:
            with self._store.reading(_tell_wait), Bench(reach, self._namespace) as bench:
                if not bench.is_new():
                    return
                self._read()
                archives = self._archives()
                sound = [mount for mount, kept in archives.items() if self._store.is_sound(kept)]
                restored, damaged = self._unpack(sound, bench)
            for mount in archives.keys() - set(sound):
                damaged[mount] = ("the archive is not what was packed",)
            for mount, why in damaged.items():
                self._put_aside(mount, why)
        except (OSError, LockNotFreeError) as error:
            tell(not_usable("Cache mounts could not be restored", error))
        except CacheNotUsable as refusal:
            tell(refusal)
        else:
            _tell_cost("cache mounts restored", {m: archives[m] for m in restored}, began)

    def keep(self, reach: Reach, *, state: bool) -> None:
        """Pack the mounts whose content has changed. Only what the watch raises gets out.

        ``state`` is whether the daemon's state is kept: then no copy of an archive stays in it.
        """
        if not self.mounts or self._store.is_read_only():
            return
        began = time.monotonic()
        try:
            with self._store.staging() as staging, Bench(reach, self._namespace) as bench:
                packed = self._pack(staging, bench, reach.watch.stop.check, state=state)
                by_key = {self._key(mount): both for mount, both in packed.items()}
                same = [self._key(mount) for mount in self.mounts if mount not in packed]
                refused = self._store.keep(by_key, same, _tell_wait)
        except (OSError, LockNotFreeError) as error:
            tell(not_usable("Cache mounts could not be kept", error))
        except CacheNotUsable as refusal:
            tell(refusal)
        else:
            sizes = {mount: kept for mount, (kept, _) in packed.items()}
            large = [mount for mount in sizes if self._key(mount) in refused]
            _tell_cost("cache mounts kept", {m: sizes[m] for m in sizes if m not in large}, began)
            for mount in large:
                _tell_too_large(mount, sizes[mount].size)

    def _unpack(
        self, mounts: Sequence[Mount], bench: Bench
    ) -> tuple[tuple[Mount, ...], dict[Mount, Why]]:
        """The mounts that are filled, and those whose archives tar cannot use, with why."""
        restored: list[Mount] = []
        damaged: dict[Mount, Why] = {}
        places = {m: self._store.place(kept) for m, kept in self._archives().items()}
        for group in _together_then_alone(mounts, restored):
            token = os.urandom(8).hex()
            refused = bench.unpack(recipe.tasks(group, token, places=places))
            if refused is None:
                restored += group
                bench.forget(*recipe.traces(token))
                continue
            bench.forget(*recipe.traces(token), recipe.made(token))
            if len(group) == 1 and refused.by_tar:
                damaged[group[0]] = refused.why
            elif len(group) == 1:
                _tell_refused("restored", group[0], refused.why)
        return tuple(restored), damaged

    def _pack(
        self, staging: Path, bench: Bench, check: Callable[[], None], *, state: bool
    ) -> dict[Mount, tuple[Kept, Path]]:
        """The mounts that have changed, with their archives below ``staging``."""
        packed: dict[Mount, tuple[Kept, Path]] = {}
        new = [mount for mount in self.mounts if self._known[mount] is None]
        old = [mount for mount in self.mounts if self._known[mount] is not None]
        listed = self._listed(new, old, staging / "first", bench, state=state)
        changed = [
            mount
            for mount in old
            if mount in listed and digest(listed[mount][0], check) != self._listing(mount)
        ]
        whole = {mount: listed[mount] for mount in new if mount in listed}
        whole |= self._listed(changed, [], staging / "second", bench, state=state)
        for mount, (listing, archive) in whole.items():
            if mount in new and listing.read_bytes().count(b"\n") <= 1:
                continue  # the mount itself and nothing in it
            size = archive.stat().st_size
            kept = Kept(digest(listing, check), digest(archive, check), size)
            packed[mount] = (kept, archive)
        return packed

    def _listed(
        self,
        whole: Sequence[Mount],
        listings: Sequence[Mount],
        to: Path,
        bench: Bench,
        *,
        state: bool,
    ) -> dict[Mount, tuple[Path, Path]]:
        """Pack the mounts ``whole``, of others make the listing; where both lie."""
        done: list[Mount] = []
        found: dict[Mount, tuple[Path, Path]] = {}
        for number, group in enumerate(_together_then_alone((*whole, *listings), done)):
            token = os.urandom(8).hex()
            tasks = recipe.tasks(group, token, whole=whole)
            place = to.with_name(f"{to.name}-{number}")
            refused = bench.pack(tasks, place)
            if refused is None:
                done += group
                for task in tasks:
                    found[task.mount] = (place / task.listing, place / task.archive)
            elif len(group) == 1:
                _tell_refused("kept", group[0], refused.why)
            if state:
                bench.forget(*recipe.traces(token))
        return found

    def _read(self) -> None:
        self._known = {mount: self._store.read(self._key(mount)) for mount in self.mounts}

    def _archives(self) -> dict[Mount, Kept]:
        return {mount: kept for mount, kept in self._known.items() if kept and kept.archive}

    def _key(self, mount: Mount) -> str:
        return mount.key(self._namespace)

    def _listing(self, mount: Mount) -> str:
        kept = self._known[mount]
        return kept.listing if kept else ""

    def _put_aside(self, mount: Mount, why: Why) -> None:
        kept, self._known[mount] = self._known[mount], None
        tell(
            CacheDamaged(
                f"The packed cache mount {mount.id} is damaged and was put aside",
                why=why,
                hint="Nothing has to be done: the mount begins empty.",
            )
        )
        if kept:
            self._store.put_aside(self._key(mount), kept, self._aside, _tell_wait)


def create(
    settings: Settings, cache: Path, dockerfile: bytes, check: Callable[[], None]
) -> Carrier | None:
    """A carrier for the cache mounts in a Dockerfile, None if it has none.

    ``cache`` is the cache directory. Warnings tell which mounts it cannot carry.
    """
    build_args = {argument.key: argument.value for argument in settings.build_args}
    found = model.find(dockerfile, build_args, tuple(_platforms(settings.platforms)))
    if not found.mounts and not found.problems:
        return None
    everything = settings.cache_mounts == (ALL_CACHE_MOUNTS,)
    named = [m for m in found.mounts if everything or m.id in settings.cache_mounts]
    carried = [mount for mount in named if not mount.source]
    if settings.cache_mounts:
        problems = list(found.problems)
        problems += [
            f"{m.id} begins with files of its own (from={m.source})" for m in named if m.source
        ]
        if not everything:
            ids = {mount.id for mount in found.mounts}
            problems += [f"no mount has the id {i}" for i in settings.cache_mounts if i not in ids]
        if problems:
            what = "Not all cache mounts of PLP_CACHE_MOUNTS can be carried"
            tell(CacheNotUsable(what, why=problems, hint=""))
    store = Store(cache, identity(settings, dockerfile), settings.cache_max_size, check)
    return Carrier(
        carried,
        untold=not settings.cache_mounts,
        fresh=settings.no_cache,
        namespace=build_args.get(recipe.NAMESPACE, ""),
        aside=cache / DAMAGED,
        store=store,
    )


def _platforms(given: Iterable[str]) -> Iterator[dict[str, str]]:
    """BuildKit's own arguments for each platform, as far as they can be told."""
    machine = os.uname().machine
    own = f"linux/{_MACHINES[machine]}" if machine in _MACHINES else ""
    for platform in tuple(given) or (own,):
        values = {}
        for name, text in (("TARGET", _ARM.sub(r"\g<0>/v7", platform)), ("BUILD", own)):
            if text:
                system, architecture, variant = (*text.split("/", 2), "", "")[:3]
                values[f"{name}PLATFORM"] = text
                values[f"{name}OS"] = system
                values[f"{name}ARCH"] = architecture
                values[f"{name}VARIANT"] = variant
        yield values


def _together_then_alone(mounts: Sequence[Mount], done: Sequence[Mount]) -> Iterator[list[Mount]]:
    """All at once; then each by itself that is not ``done``."""
    if mounts:
        yield list(mounts)
    if len(mounts) > 1:
        yield from ([mount] for mount in mounts if mount not in done)


def _tell_cost(event: str, mounts: Mapping[Mount, Kept], began: float) -> None:
    if mounts:
        size = sum(kept.size for kept in mounts.values())
        seconds = round(time.monotonic() - began, 2)
        log.info(event, mounts=[mount.id for mount in mounts], bytes=size, seconds=seconds)


def _tell_refused(what: str, mount: Mount, why: Why) -> None:
    tell(CacheNotUsable(f"The cache mount {mount.id} could not be {what}", why=why, hint=""))


def _tell_too_large(mount: Mount, size: int) -> None:
    tell(
        CacheNotUsable(
            f"The cache mount {mount.id} is larger than the cache may be ({size} bytes)",
            hint="Raise PLP_CACHE_MAX_SIZE: half of it is for cache mounts.",
        )
    )


def _tell_wait() -> None:
    what = "Waiting for another build to leave the packed cache mounts"
    tell(CacheNotUsable(what, hint=""))
