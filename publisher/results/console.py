"""The last lines of a successful run, for people on the console and as one log event."""

from __future__ import annotations

from plp_builder.telling import headed
from plp_builder.terminal import human_duration, human_size, printable
from publisher.results.model import Outcome, TagOutcome


def success(outcome: Outcome, *, colour: bool = False) -> list[str]:
    """The summary of a success, aligned; a dry run says what would be done."""
    archive = f"{printable(str(outcome.archive))} ({human_size(outcome.archive_size)})"
    facts = [("image", outcome.repository), ("digest", outcome.digest)]
    width = max((len(tag.name) for tag in outcome.tags), default=0)
    for number, tag in enumerate(outcome.tags):
        facts.append(("" if number else "tags", f"{tag.name:{width}}  {_state(tag)}"))
    if outcome.platforms:
        facts.append(("systems", printable(", ".join(outcome.platforms))))
    facts.append(("archive", archive))
    if outcome.dry_run:
        return headed("WOULD PUBLISH (dry run: nothing was sent)", facts, colour=colour)
    retries = f", {outcome.retries} retried" if outcome.retries else ""
    facts += [
        ("sent", human_size(outcome.sent) + retries),
        ("time", human_duration(outcome.seconds)),
        ("pull", f"docker pull {outcome.image}"),
    ]
    unchanged = all(tag.state == "unchanged" for tag in outcome.tags)
    return headed("PUBLISHED BEFORE" if unchanged else "PUBLISHED", facts, colour=colour)


def _state(tag: TagOutcome) -> str:
    if tag.state == "pushed" and tag.previous:
        return f"pushed (was {printable(tag.previous)})"
    return tag.state


def success_event(outcome: Outcome) -> tuple[str, dict[str, object]]:
    """The same as a log event: its name and its keys."""
    return "publication planned" if outcome.dry_run else "publication succeeded", {
        "repository": outcome.repository,
        "digest": outcome.digest,
        "image": outcome.image,
        "tags": [{**tag._asdict(), "previous": tag.previous or None} for tag in outcome.tags],
        "platforms": list(outcome.platforms),
        "archive": str(outcome.archive),
        "size": outcome.archive_size,
        "sent": outcome.sent,
        "retries": outcome.retries,
        "seconds": round(outcome.seconds, 3),
    }
