"""The names of the publisher's variables, and those of the builder, which is set up beside it."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Final

from plp_builder.naming import Names

DEFAULT_ARCHIVE: Final = "/artifacts/container-image.tar"
"""Known before the settings are: the archive is verified while they are read."""

NAMES: Final = Names(
    own={
        "docker_config": "DOCKER_CONFIG",
        "registry_auth_file": "REGISTRY_AUTH_FILE",
        "github_output": "GITHUB_OUTPUT",
        "github_step_summary": "GITHUB_STEP_SUMMARY",
    },
    aliases={"PLP_PULL_REQUEST_NUMBER": "PLP_MERGE_REQUEST_NUMBER"},
)

OF_BUILDER: Final = frozenset(
    (
        "PLP_ADD_HOSTS",
        "PLP_ANNOTATIONS",
        "PLP_ARCHIVE_FORMAT",
        "PLP_ARCHIVE_NAME",
        "PLP_BUILDKITD_CONFIG",
        "PLP_BUILDKITD_FLAGS",
        "PLP_BUILDKIT_ADDRESS",
        "PLP_BUILDKIT_TLS_PATH",
        "PLP_BUILD_ARGS",
        "PLP_BUILD_CONTEXTS",
        "PLP_BUILD_PATH",
        "PLP_CACHE_FROM",
        "PLP_CACHE_INLINE",
        "PLP_CACHE_LOCK_TIMEOUT",
        "PLP_CACHE_MAX_SIZE",
        "PLP_CACHE_MODE",
        "PLP_CACHE_MOUNTS",
        "PLP_CACHE_PATH",
        "PLP_CACHE_STRATEGY",
        "PLP_CACHE_TO",
        "PLP_COMPRESSION",
        "PLP_COMPRESSION_LEVEL",
        "PLP_CONTEXT",
        "PLP_DOCKERFILE",
        "PLP_FRONTEND",
        "PLP_IMAGE",
        "PLP_INSECURE_REGISTRIES",
        "PLP_LABELS",
        "PLP_NETWORK",
        "PLP_NO_CACHE",
        "PLP_OFFLINE",
        "PLP_OUTPUTS",
        "PLP_PLATFORMS",
        "PLP_PROGRESS",
        "PLP_PROVENANCE",
        "PLP_PULL",
        "PLP_REGISTRY_MIRRORS",
        "PLP_REPORT_FILE",
        "PLP_SBOM",
        "PLP_SECRETS",
        "PLP_SHM_SIZE",
        "PLP_SOURCE_PATH",
        "PLP_SSH",
        "PLP_START_TIMEOUT",
        "PLP_TARGET",
        "PLP_ULIMITS",
        "PLP_VERIFY",
    )
)
"""Variables of the builder alone: one CI job often sets them for both."""

MEANT: Final[Mapping[str, str]] = {
    "PLP_COMMIT": "PLP_COMMIT_SHA",
    "PLP_GIT_SHA": "PLP_COMMIT_SHA",
    "PLP_PASSWORD": "PLP_REGISTRY_PASSWORD",
    "PLP_PR_NUMBER": "PLP_PULL_REQUEST_NUMBER",
    "PLP_REPOSITORY": "PLP_IMAGE_REPOSITORY",
    "PLP_TAGS": "PLP_EXTRA_TAGS",
    "PLP_TOKEN": "PLP_REGISTRY_TOKEN",
    "PLP_USERNAME": "PLP_REGISTRY_USERNAME",
}
"""Names that suggest themselves, but look like others."""
