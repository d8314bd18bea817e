"""Settings that are sound one by one but not together."""

from __future__ import annotations

from collections.abc import Callable, Iterable
from typing import Protocol

from plp_builder.syntax.results import LEVELS
from plp_builder.values import KeyValue

# Linux gives arguments and environment of a program a quarter of its stack limit, which is 8 MiB
# nearly everywhere; the rest is room for what buildctl gets besides.
MAX_ARGUMENTS = 1536 * 1024


class Given(Protocol):
    """The part of ``Settings`` that can be in conflict."""

    @property
    def compression(self) -> str: ...
    @property
    def compression_level(self) -> int | None: ...
    @property
    def archive_format(self) -> str: ...
    @property
    def platforms(self) -> tuple[str, ...]: ...
    @property
    def offline(self) -> bool: ...
    @property
    def network(self) -> str: ...
    @property
    def build_args(self) -> tuple[KeyValue, ...]: ...
    @property
    def labels(self) -> tuple[KeyValue, ...]: ...
    @property
    def source_date_epoch(self) -> int | None: ...
    @property
    def cache_strategy(self) -> str: ...
    @property
    def cache_mounts(self) -> tuple[str, ...]: ...


def conflicts(settings: Given, bad: frozenset[str]) -> list[str]:
    """A sentence for each conflict, leaving out those about fields that are ``bad`` themselves."""
    return [
        problem
        for fields, check in _CHECKS
        if not bad.intersection(fields)
        for problem in check(settings)
    ]


def _level(settings: Given) -> Iterable[str]:
    level = settings.compression_level
    if level is None:
        return
    low, high = LEVELS.get(settings.compression, (0, -1))
    if high < low:
        yield f"PLP_COMPRESSION_LEVEL: {settings.compression} has no levels"
    elif not low <= level <= high:
        yield f"PLP_COMPRESSION_LEVEL: {settings.compression} has the levels {low} to {high}"


def _format(settings: Given) -> Iterable[str]:
    several = len(settings.platforms) > 1 or any(
        argument.key == "BUILDKIT_MULTI_PLATFORM" and argument.value.lower() in {"1", "t", "true"}
        for argument in settings.build_args
    )
    if settings.archive_format == "docker" and several:
        yield "PLP_ARCHIVE_FORMAT: docker holds one platform; use oci for several"


def _network(settings: Given) -> Iterable[str]:
    if settings.offline and settings.network in {"host", "sandbox"}:
        yield f"PLP_NETWORK: {settings.network} contradicts PLP_OFFLINE; unset one of them"


def _epoch(settings: Given) -> Iterable[str]:
    for argument in settings.build_args:
        epoch = settings.source_date_epoch
        if argument.key == "SOURCE_DATE_EPOCH" and argument.value != str(epoch):
            yield "PLP_BUILD_ARGS: set the variable SOURCE_DATE_EPOCH instead of an argument"


def _total(settings: Given) -> Iterable[str]:
    pairs = (*settings.build_args, *settings.labels)
    total = sum(len((pair.key + pair.value).encode()) + 32 for pair in pairs)
    if total > MAX_ARGUMENTS:
        yield "PLP_BUILD_ARGS and PLP_LABELS: longer than 1.5 MiB together, too much for a program"


def _cache_mounts(settings: Given) -> Iterable[str]:
    if settings.cache_mounts and settings.cache_strategy in {"state", "off"}:
        yield (
            "PLP_CACHE_MOUNTS: the portable cache carries them, and "
            f"PLP_CACHE_STRATEGY={settings.cache_strategy} keeps none; unset one of them"
        )


_CHECKS: tuple[tuple[tuple[str, ...], Callable[[Given], Iterable[str]]], ...] = (
    (("compression", "compression_level"), _level),
    (("archive_format", "platforms", "build_args"), _format),
    (("offline", "network"), _network),
    (("build_args", "source_date_epoch"), _epoch),
    (("build_args", "labels"), _total),
    (("cache_strategy", "cache_mounts"), _cache_mounts),
)
