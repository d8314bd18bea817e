"""What a run ended with: the value that every sink tells in its own way."""

from __future__ import annotations

from pathlib import Path
from typing import NamedTuple

from plp_builder.errors import Failure


class TagOutcome(NamedTuple):
    """What became of a tag: ``state`` is ``pushed``, ``unchanged`` or, in a dry run, ``planned``.

    ``previous`` is the digest it pointed to before; "" if there was none, or nobody looked.
    """

    name: str
    state: str
    previous: str = ""


class Outcome(NamedTuple):
    """What was published. ``sent`` and ``archive_size`` are bytes; of tags those that are done."""

    repository: str
    digest: str
    media_type: str
    tags: tuple[TagOutcome, ...]
    archive: Path
    archive_size: int
    platforms: tuple[str, ...]
    sent: int
    seconds: float
    retries: int
    dry_run: bool
    notes: tuple[str, ...]

    @property
    def image(self) -> str:
        """The one name that will always mean this image: ``registry/name@digest``."""
        return f"{self.repository}@{self.digest}"


class Failed(NamedTuple):
    """How a run failed, and what was done until then: None before the archive was verified."""

    failure: Failure
    so_far: Outcome | None = None
