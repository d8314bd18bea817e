"""Settings → SolveRequest → the argument list of buildctl: pure functions over frozen values."""

from __future__ import annotations

from plp_builder.solve.model import (
    CacheExport,
    CacheImport,
    LocalCache,
    RegistryCache,
    SolveRequest,
)
from plp_builder.solve.options import refusals, request, wants_docker_manifest
from plp_builder.solve.words import arguments, environment

__all__ = [
    "CacheExport",
    "CacheImport",
    "LocalCache",
    "RegistryCache",
    "SolveRequest",
    "arguments",
    "environment",
    "refusals",
    "request",
    "wants_docker_manifest",
]
