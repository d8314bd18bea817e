"""Settings → SolveRequest: what to ask of BuildKit.

What a value may hold is decided where it is parsed. What the options mean:
frontend/dockerui/{config,attr,namedcontext}.go, BuildKit v0.21 to v0.32.
"""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import TYPE_CHECKING

from plp_builder.annotations import image_annotations
from plp_builder.solve.csv import record
from plp_builder.solve.model import CacheExport, CacheImport, SolveRequest
from plp_builder.values import KeyValue

if TYPE_CHECKING:
    from datetime import datetime

    from plp_builder.preflight.inputs import NamedContext
    from plp_builder.preflight.paths import Paths
    from plp_builder.settings import Settings

BUILT_IN_FRONTEND = "dockerfile.v0"
GATEWAY_FRONTEND = "gateway.v0"
_OFFICIAL_SYNTAX = ("docker/dockerfile", "docker/dockerfile-upstream")
_TRUE = ("1", "t", "T", "TRUE", "true", "True")  # strconv.ParseBool


def request(
    settings: Settings,
    paths: Paths,
    *,
    now: datetime,
    contexts: tuple[NamedContext, ...] = (),
    cache_imports: tuple[CacheImport, ...] = (),
    cache_export: CacheExport | None = None,
    layout: Path | None = None,
    image: bool = True,
) -> SolveRequest:
    """What to ask of BuildKit.

    ``paths`` and ``contexts`` come from the preflight checks; ``now`` becomes the image's
    creation time unless SOURCE_DATE_EPOCH is set. The image goes into the OCI layout ``layout``,
    without one as an archive to buildctl's standard output; without ``image`` nowhere. That is for
    a solve which only exports the cache: it runs no step again that has just been run.
    """
    named, local_paths, layouts = _named_contexts(contexts)
    return SolveRequest(
        frontend=(
            BUILT_IN_FRONTEND if settings.frontend == BUILT_IN_FRONTEND else GATEWAY_FRONTEND
        ),
        options=(*_options(settings, paths), *named),
        locals=(("context", paths.context), ("dockerfile", paths.dockerfile_dir), *local_paths),
        layouts=layouts,
        output=_output(settings, now, layout) if image and "archive" in settings.outputs else (),
        secrets=settings.secrets,
        ssh=settings.ssh,
        entitlements=("network.host",) if settings.network == "host" else (),
        no_cache=settings.no_cache and image,
        cache_imports=() if settings.no_cache else cache_imports,
        cache_export=cache_export,
        cache_compression="" if settings.compression == "gzip" else settings.compression,
    )


def refusals(settings: Settings) -> tuple[str, ...]:
    """Sentences about values that buildctl's own notation cannot carry; empty when all can.

    These are the ids and paths in `--ssh`, which has no way to quote
    (cmd/buildctl/build/ssh.go); a path may get its comma from PLP_SOURCE_PATH.
    """
    problems = []
    for ssh in settings.ssh:
        if ssh.id.startswith("-"):
            problems.append(f"PLP_SSH: the id {ssh.id!r} begins with a dash")
        problems += [
            f"PLP_SSH: BuildKit cannot take the path {path!r}"
            for path in map(str, ssh.paths)
            if "," in path or path.startswith("raw=")
        ]
    return tuple(problems)


def _is_multi_platform(settings: Settings) -> bool:
    """Whether BuildKit makes an image index; the build argument is dockerui/config.go's."""
    wanted = [pair.value for pair in settings.build_args if pair.key == "BUILDKIT_MULTI_PLATFORM"]
    return len(settings.platforms) > 1 or any(value in _TRUE for value in wanted)


def _options(settings: Settings, paths: Paths) -> tuple[KeyValue, ...]:
    options = [
        KeyValue("filename", paths.dockerfile_name),
        *_frontend(settings, paths.syntax),
        *_steps(settings),
    ]
    if settings.target:
        options.append(KeyValue("target", settings.target))
    if settings.platforms:
        options.append(KeyValue("platform", ",".join(settings.platforms)))
    if settings.pull:
        options.append(KeyValue("image-resolve-mode", "pull"))
    if settings.source_date_epoch is not None:
        epoch = str(settings.source_date_epoch)
        options.append(KeyValue("build-arg:SOURCE_DATE_EPOCH", epoch))
    options += [KeyValue(f"build-arg:{pair.key}", pair.value) for pair in settings.build_args]
    options += [KeyValue(f"label:{pair.key}", pair.value) for pair in settings.labels]
    return tuple(options)


def _frontend(settings: Settings, syntax: str) -> tuple[KeyValue, ...]:
    """Which frontend reads the Dockerfile: with `cmdline` set, its `# syntax=` is not asked.

    So PLP_FRONTEND is the last word; and without a network the frontend inside BuildKit
    takes the place of the official image, which could not be fetched.
    """
    if settings.frontend != BUILT_IN_FRONTEND:
        return (KeyValue("source", settings.frontend), KeyValue("cmdline", settings.frontend))
    if settings.offline and _repository(syntax) in _OFFICIAL_SYNTAX:
        return (KeyValue("cmdline", BUILT_IN_FRONTEND),)
    return ()


def _steps(settings: Settings) -> Iterator[KeyValue]:
    """How build steps run: frontend/dockerui/attr.go."""
    network = "none" if settings.offline else settings.network
    if network:
        yield KeyValue("force-network-mode", network)
    if settings.add_hosts:
        hosts = record(*((entry.host, entry.address) for entry in settings.add_hosts))
        yield KeyValue("add-hosts", hosts)
    if settings.shm_size is not None:
        yield KeyValue("shm-size", str(settings.shm_size))
    if settings.ulimits:
        limits = record(*((one.name, f"{one.soft}:{one.hard}") for one in settings.ulimits))
        yield KeyValue("ulimit", limits)


def wants_docker_manifest(settings: Settings) -> bool:
    """Whether the archive gets the manifest.json that `docker load` wants: for one platform."""
    if settings.archive_format == "auto":
        return not _is_multi_platform(settings)
    return settings.archive_format == "docker"


def _output(settings: Settings, now: datetime, layout: Path | None) -> tuple[KeyValue, ...]:
    """The exporter. `docker` adds manifest.json, which for a layout is the archive's business."""
    kind = "docker" if layout is None and wants_docker_manifest(settings) else "oci"
    pairs = [KeyValue("type", kind), KeyValue("oci-mediatypes", "true")]
    if layout is not None:
        pairs += [KeyValue("tar", "false"), KeyValue("dest", str(layout))]
    if settings.image:
        pairs.append(KeyValue("name", settings.image[0]))
    if settings.compression != "gzip":
        pairs.append(KeyValue("force-compression", "true"))
    pairs.append(KeyValue("compression", settings.compression))
    if settings.compression_level is not None:
        pairs.append(KeyValue("compression-level", str(settings.compression_level)))
    if settings.source_date_epoch is not None:
        pairs.append(KeyValue("rewrite-timestamp", "true"))
    pairs += [
        KeyValue(f"annotation.{pair.key}", pair.value) for pair in image_annotations(settings, now)
    ]
    return tuple(pairs)


def _named_contexts(
    contexts: tuple[NamedContext, ...],
) -> tuple[tuple[KeyValue, ...], tuple[tuple[str, Path], ...], tuple[tuple[str, Path], ...]]:
    """Options, local directories and OCI layouts; ids of our own, so that none can collide."""
    options, local_paths, layouts = [], [], []
    for number, context in enumerate(contexts):
        name = f"plp-context-{number}"
        source = context.source
        if context.path is not None and context.digest:
            layouts.append((name, context.path))
            source = f"oci-layout://{name}@{context.digest}"
        elif context.path is not None:
            local_paths.append((name, context.path))
            source = f"local:{name}"
        options.append(KeyValue(f"context:{context.name}", source))
    return tuple(options), tuple(local_paths), tuple(layouts)


def _repository(reference: str) -> str:
    """The short repository name of an image reference: no Docker Hub host, tag or digest."""
    name = reference.partition("@")[0]
    for host in ("docker.io/", "index.docker.io/", "registry-1.docker.io/"):
        name = name.removeprefix(host)
    return name.partition(":")[0]
