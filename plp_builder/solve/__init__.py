"""Settings → SolveRequest → the argument list of buildctl: pure functions over frozen values."""

from __future__ import annotations

from plp_builder.solve.model import CacheExport, LocalCache, SolveRequest
from plp_builder.solve.options import refusals, request, wants_docker_manifest
from plp_builder.solve.words import arguments, environment

__all__ = [
    "CacheExport",
    "LocalCache",
    "SolveRequest",
    "arguments",
    "environment",
    "refusals",
    "request",
    "wants_docker_manifest",
]
