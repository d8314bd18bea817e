"""The result as JSON: ``PLP_RESULT_FILE``. docs/publishing.md describes its members."""

from __future__ import annotations

import json
from collections.abc import Callable

from plp_builder.telling import why
from plp_builder.terminal import printable
from publisher.results.model import Failed, Outcome

SCHEMA = 1


def text(ended: Outcome | Failed, hide: Callable[[str], str]) -> str:
    """One JSON object, in ASCII; ``hide`` takes the secrets out of what others have said."""
    failure = ended.failure if isinstance(ended, Failed) else None
    outcome = ended.so_far if isinstance(ended, Failed) else ended
    status = "failed" if failure else "planned" if outcome and outcome.dry_run else "published"
    members: dict[str, object] = {"schema": SCHEMA, "status": status}
    if outcome:
        members |= _members(outcome, hide)
    if failure:
        members["error"] = {
            "name": failure.name,
            "exit_code": failure.exit_code,
            "what": hide(printable(failure.what)),
            "why": [hide(line) for line in why(failure)],
            "hint": hide(" ".join(printable(line) for line in failure.hint.splitlines())),
        }
    return json.dumps(members, indent=2) + "\n"


def _members(outcome: Outcome, hide: Callable[[str], str]) -> dict[str, object]:
    return {
        "repository": outcome.repository,
        "digest": outcome.digest,
        "image": outcome.image,
        "media_type": outcome.media_type,
        "platforms": list(outcome.platforms),
        "tags": [
            {
                "name": tag.name,
                "reference": f"{outcome.repository}:{tag.name}",
                "state": tag.state,
                "previous": tag.previous or None,
            }
            for tag in outcome.tags
        ],
        # A path may hold bytes that are no text; they are shown as JSON can.
        "archive": {
            "path": str(outcome.archive).encode("utf-8", "backslashreplace").decode(),
            "size": outcome.archive_size,
        },
        "sent": outcome.sent,
        "retries": outcome.retries,
        "seconds": round(outcome.seconds, 3),
        "notes": [hide(printable(note)) for note in outcome.notes],
    }
