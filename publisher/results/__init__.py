"""Where outcomes are told: one small module a sink.

``check`` before the push, ``write`` after it; the console is the caller's.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import suppress
from functools import partial
from pathlib import Path

from plp_builder import log
from plp_builder.errors import Failure, SettingInvalid
from publisher.names import NAMES
from publisher.results import files, github, places, result_file
from publisher.results.model import Failed, Outcome, TagOutcome
from publisher.settings import Settings

__all__ = ["Failed", "Outcome", "TagOutcome", "check", "write"]

_FILES = ("result_file", "result_image_digest_file", "result_image_url_file")


def check(settings: Settings) -> None:
    """Raise SettingInvalid where results must not or cannot be written: better before the push."""
    problems = places.problems(settings)
    for field in _FILES:
        if field not in problems and (text := _problem(settings, field)):
            problems[field] = text
    if problems:
        raise SettingInvalid("a file of results cannot be written", why=problems.values())


def write(
    ended: Outcome | Failed | Failure,
    settings: Settings,
    *,
    hide: Callable[[str], str] = log.hide,
) -> list[str]:
    """Tell every sink that ``settings`` name how the run ended; a sentence for each that failed.

    Never raises: what is in the registry is there, whoever hears of it. ``hide`` takes secrets out
    of a text; the log's own knows those that it was told.
    """
    if isinstance(ended, Failure):
        ended = Failed(ended)
    failed = ended.failure if isinstance(ended, Failed) else None
    outcome = ended.so_far if isinstance(ended, Failed) else ended
    # Once more: since the check there may be a file where there was none.
    problems = places.problems(settings, outcome and outcome.archive)
    warnings = []
    for field, tell in _sinks(ended, settings, hide):
        known = problems.get(field, "")
        warning = known
        try:
            if not known:
                tell()
        except (OSError, ValueError) as error:
            known = _problem(settings, field)
            reason = error.strerror if isinstance(error, OSError) else "not a path"
            path = places.shown(getattr(settings, field))
            warning = f"{NAMES.variable(field)}: {path} could not be written: {reason}"
        # What is the failure itself need not be told twice.
        if warning and not (failed and known in failed.why):
            warnings.append(warning)
    return warnings


def _problem(settings: Settings, field: str) -> str:
    """Why the file of a field cannot be written; "" if it can, or is not asked for."""
    path: Path | None = getattr(settings, field)
    with suppress(OSError):
        if path and path.is_dir():
            return f"{NAMES.variable(field)}: {places.shown(path)} is a directory; name a file"
        if path and not path.parent.is_dir():
            return f"{NAMES.variable(field)}: there is no directory {places.shown(path.parent)}"
    return ""


def _sinks(
    ended: Outcome | Failed, settings: Settings, hide: Callable[[str], str]
) -> Iterator[tuple[str, Callable[[], None]]]:
    """Each sink's field, and what tells it. Digest and URL are for an image that is there."""
    if path := settings.result_file:
        yield "result_file", partial(files.put, path, result_file.text(ended, hide))
    published = None if isinstance(ended, Failed) or ended.dry_run else ended
    if path := settings.result_image_digest_file:
        yield "result_image_digest_file", _fresh(path, published and published.digest)
    if path := settings.result_image_url_file:
        yield "result_image_url_file", _fresh(path, published and _url(published))
    if (path := settings.github_output) and published:
        yield "github_output", partial(files.append, path, github.outputs(published))
    if path := settings.github_step_summary:
        yield "github_step_summary", partial(files.append, path, github.summary(ended, hide))


def _fresh(path: Path, text: str | None) -> Callable[[], None]:
    return partial(files.put, path, text) if text else partial(files.remove, path)


def _url(outcome: Outcome) -> str:
    """The image by its most lasting tag: hosts such as Tekton put the digest behind it."""
    return f"{outcome.repository}:{outcome.tags[0].name}" if outcome.tags else outcome.repository
