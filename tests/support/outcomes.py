"""Ends of publications, for what tells them: a push, a dry run, a failure."""

from __future__ import annotations

from pathlib import Path

from plp_builder.errors import AuthenticationFailed
from publisher.results import Outcome, TagOutcome
from publisher.settings import Settings, load

DIGEST = "sha256:" + "ab" * 32
OLD = "sha256:" + "cd" * 32
REPOSITORY = "registry.example/app"
DONE = Outcome(
    repository=REPOSITORY,
    digest=DIGEST,
    media_type="application/vnd.oci.image.index.v1+json",
    tags=(
        TagOutcome("main-abcdef0", "pushed"),
        TagOutcome("main", "pushed", OLD),
        TagOutcome("latest", "unchanged", DIGEST),
    ),
    archive=Path("/artifacts/container-image.tar"),
    archive_size=12_345_678,
    platforms=("linux/amd64", "linux/arm64"),
    sent=12_300_000,
    seconds=3.21,
    retries=2,
    dry_run=False,
    notes=("a | note <with> `markup`",),
)
PLANNED = DONE._replace(
    tags=(TagOutcome("main", "planned"),), sent=0, retries=0, dry_run=True, notes=()
)
REFUSED = AuthenticationFailed(
    "the registry | refused <b>hunter2</b>",
    why=["denied: hunter2\x1b[31m", "```", "::error::x"],
    hint="Log in.\nTry again.",
)


def settings(**paths: Path) -> Settings:
    """Settings with the sinks at those paths, by the names of variables."""
    given = {name: str(path) for name, path in paths.items()}
    return load({"PLP_IMAGE_REPOSITORY": REPOSITORY, "PLP_BRANCH": "main", **given})
