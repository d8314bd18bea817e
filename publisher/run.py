"""What is known of a run while it goes on."""

from __future__ import annotations

import time
from collections.abc import Mapping
from typing import TYPE_CHECKING

from plp_builder import log

if TYPE_CHECKING:
    from publisher.results import Outcome
    from publisher.settings import Settings
    from publisher.tags import Plan
    from publisher.verification import Verified


class Run:
    """What is known of a run so far: the results tell it also when the run fails."""

    def __init__(self, began: float) -> None:
        self.settings: Settings | None = None
        self.plan: Plan | None = None
        self.verified: Verified | None = None
        self.before: Mapping[str, str] = {}
        self.sent = 0
        self.retries = 0
        self._began = began
        self._done: dict[str, str] = {}

    def done(self, name: str, state: str) -> None:
        """What became of a tag."""
        self._done[name] = state
        log.info("tag", name=name, state=state)

    def outcome(self) -> Outcome:
        """All of it. ValueError before the archive was verified."""
        from publisher.results import Outcome, TagOutcome

        settings, plan, verified = self.settings, self.plan, self.verified
        if settings is None or plan is None or verified is None:
            raise ValueError("nothing is known yet")
        artifact = verified.artifact
        done = self._done
        if settings.dry_run:
            done = {tag.name: "planned" for tag in plan.tags}
        return Outcome(
            repository=settings.image_repository,
            digest=str(artifact.top.digest),
            media_type=artifact.top.media_type,
            tags=tuple(
                TagOutcome(tag.name, done[tag.name], self.before.get(tag.name, ""))
                for tag in plan.tags
                if tag.name in done
            ),
            archive=verified.path,
            archive_size=artifact.size,
            platforms=tuple(map(str, artifact.platforms)),
            sent=self.sent,
            seconds=time.monotonic() - self._began,
            retries=self.retries,
            dry_run=settings.dry_run,
            notes=(*plan.warnings, *plan.notes, *artifact.notes),
        )
