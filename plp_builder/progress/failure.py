"""Why a solve failed: BuildKit's events and buildctl's last words → the failure to end with."""

from __future__ import annotations

import re
from collections.abc import Sequence

from plp_builder.errors import ArchiveNotWritten, BaseImageNotAvailable, BuildFailed, Failure
from plp_builder.progress import hints
from plp_builder.progress.model import Model
from plp_builder.progress.step import CANCELED, Step
from plp_builder.terminal import printable, shorten
from plp_builder.tuples import NamedTuple

SHOWN_LINES = 20
SHOWN_EXCERPT = 15
SHOWN_LENGTH = 300

_ERROR = "error: "
_RULE = re.compile(r"-{20,}$")
_HEAD = re.compile(r"\S.*:\d+$")
_PREFIXES = re.compile(
    r"^(?:failed to solve: |rpc error: code = \w+ desc = |(?:Unknown|Canceled|ResourceExhausted|"
    r"NotFound|InvalidArgument|FailedPrecondition|PermissionDenied|Unavailable|Internal): )+"
)
_TRACE = re.compile(r"\.go:\d+ \+0x[0-9a-f]+$")
"""A line of a Go program's traceback."""
_EMPTY_LINE = re.compile(r"\s*\d+ \|\s*$")
_STAGE = re.compile(r"^\[[^\]]*\] ")
_EXIT_CODE = re.compile(r"did not complete successfully: exit code: (\d+)$")
_IMAGE = re.compile(
    r"failed to resolve source metadata for (?P<image>\S+): (?P<reason>.*)", re.DOTALL
)
_ARCHIVE = re.compile(r"write /dev/stdout: (?P<reason>[^\n]+)")
_NOT_AT_HAND = "PLP_OFFLINE is set, so no registry is asked, and the image is not at hand"


class LastWords(NamedTuple):
    """What buildctl printed at its end: the error, and the Dockerfile's lines it points to."""

    error: str = ""
    excerpt: tuple[str, ...] = ()


def last_words(texts: Sequence[str]) -> LastWords:
    """Find the error and the excerpt in buildctl's plain lines; both may be missing.

    The excerpt is a head ``Dockerfile:4``, a rule of dashes, numbered lines of which ``>>>``
    marks those that failed, and a rule again (solver/errdefs/source.go). A long one is cut around
    its marks.
    """
    excerpt: tuple[str, ...] = ()
    error: list[str] = []
    number = 0
    while number < len(texts):
        text = texts[number]
        if text.startswith(_ERROR):
            error = [text.removeprefix(_ERROR), *texts[number + 1 :]]
            break
        if _HEAD.match(text) and number + 1 < len(texts) and _RULE.match(texts[number + 1]):
            body: list[str] = []
            number += 2
            while number < len(texts) and not _RULE.match(texts[number]):
                body.append(texts[number])
                number += 1
            excerpt = (text, *_around_marks(body))
        number += 1
    return LastWords(_message("\n".join(error)), excerpt)


def explain(model: Model, stderr_tail: Sequence[str] = (), *, dockerfile: str = "") -> Failure:
    """Why the build failed: a `BuildFailed`, a `BaseImageNotAvailable` or an `ArchiveNotWritten`.

    ``stderr_tail`` are the last plain lines of buildctl; the model has kept its own when it is
    left out. ``dockerfile`` is PLP_DOCKERFILE, since BuildKit knows only the last part of it.
    Raises nothing: what is not understood is told in BuildKit's words.
    """
    words = last_words(tuple(stderr_tail) or tuple(model.texts))
    words = words._replace(excerpt=_with_path(words.excerpt, dockerfile))
    step = _failed_step(model, words.error)
    error = words.error or (_message(step.error) if step else "")
    output = list(step.lines) if step else []
    case = hints.Case(
        error,
        _STAGE.sub("", step.name) if step else "",
        "\n".join(output),
        "\n".join(words.excerpt),
    )
    why = [*output[-SHOWN_LINES:], *words.excerpt]
    archive = _ARCHIVE.search(error)
    if archive:
        return _archive_not_written(archive["reason"], error)
    image = _IMAGE.search(error)
    if image:
        what = f"image {printable(image['image'])} is not available"
        offline = hints.is_offline(error)
        reason = _NOT_AT_HAND if offline else image["reason"].removeprefix(f"{image['image']}: ")
        return BaseImageNotAvailable(
            what, why=_clean((*words.excerpt, reason)), hint=hints.image_hint(case)
        )
    if not error and not step:
        crashed = any(_TRACE.search(text) for text in model.texts)
        return BuildFailed(
            "buildctl crashed" if crashed else "buildctl ended without saying why",
            why=_clean(list(model.texts)[-SHOWN_LINES:]),
            hint=hints.CRASHED if crashed else hints.DEFAULT,
        )
    if error.endswith(CANCELED):
        return BuildFailed("the build was cancelled", why=_clean(why), hint="Start it again.")
    what, told = _what(step, error)
    if not told:
        why.append(error)
    return BuildFailed(what, why=_clean(why), hint=hints.hint(case))


def _archive_not_written(reason: str, error: str) -> ArchiveNotWritten:
    reason = shorten(printable(reason), SHOWN_LENGTH)
    if "no space left" in reason or "quota" in reason:
        return ArchiveNotWritten(
            f"the archive does not fit in PLP_BUILD_PATH: {reason}",
            why=_clean([error]),
            hint="Free some space there, or set PLP_BUILD_PATH to another disk. "
            "An older archive there is as it was.",
        )
    return ArchiveNotWritten(
        f"the archive cannot be written to PLP_BUILD_PATH: {reason}",
        why=_clean([error]),
        hint="Check the disk of PLP_BUILD_PATH and the limits of file sizes, or set "
        "PLP_BUILD_PATH to another disk. An older archive there is as it was.",
    )


def _with_path(excerpt: tuple[str, ...], dockerfile: str) -> tuple[str, ...]:
    """The excerpt with the Dockerfile's whole path in its head, if it is about that file."""
    name, _, line = excerpt[0].rpartition(":") if excerpt else ("", "", "")
    if name and name == dockerfile.rpartition("/")[2]:
        return (f"{dockerfile}:{line}", *excerpt[1:])
    return excerpt


def _what(step: Step | None, error: str) -> tuple[str, bool]:
    """One sentence, and whether it says all that the error says."""
    if step is None:
        first, _, rest = error.partition("\n")
        return shorten(printable(first), SHOWN_LENGTH), not rest and len(first) <= SHOWN_LENGTH
    name = shorten(" ".join(printable(_STAGE.sub("", step.name)).split()), 120)
    code = _EXIT_CODE.search(error)
    if code:
        return f'step "{name}" failed with exit code {code[1]}', True
    path = hints.missing_path(error)
    if path:
        return f'step "{name}" failed: "{printable(path)}" not found', True
    return f'step "{name}" failed', False


def _failed_step(model: Model, error: str) -> Step | None:
    """The step that the error is about; others may have failed because of it, or beside it."""
    for step in model.steps.values():
        if step.error and _message(step.error) in error:
            return step
    return model.failed


def _message(error: str) -> str:
    """BuildKit's error without the names of the layers it came through, fit to be shown."""
    lines = (printable(line).rstrip() for line in error.splitlines())
    return _PREFIXES.sub("", "\n".join(lines).strip())


def _around_marks(body: list[str]) -> list[str]:
    while body and _EMPTY_LINE.match(body[-1]):
        body.pop()
    if len(body) <= SHOWN_EXCERPT:
        return body
    first = next((number for number, line in enumerate(body) if ">>>" in line), 0)
    start = max(0, min(first - 2, len(body) - SHOWN_EXCERPT))
    return body[start : start + SHOWN_EXCERPT]


def _clean(lines: Sequence[str]) -> tuple[str, ...]:
    return tuple(
        shorten(printable(part), SHOWN_LENGTH).rstrip()
        for line in lines
        for part in (line.splitlines() or [""])
    )
