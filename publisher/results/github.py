"""What GitHub Actions shows and hands on: a step's outputs, and its summary in Markdown."""

from __future__ import annotations

import os
import re
from collections.abc import Callable

from plp_builder.telling import why
from plp_builder.terminal import human_duration, human_size, printable
from publisher.results.model import Failed, Outcome

_MARKUP = re.compile(r"([\\`*_{}\[\]()#+!|~$-])")
_FENCE = re.compile(r"`{3,}")


def outputs(outcome: Outcome) -> str:
    """The lines for ``GITHUB_OUTPUT``: ``digest``, ``image`` and, one a line, ``tags``.

    The delimiter of the list is random, so that no value can end it.
    """
    references = [f"{outcome.repository}:{tag.name}" for tag in outcome.tags]
    delimiter = f"end-{os.urandom(16).hex()}"
    lines = [f"digest={outcome.digest}", f"image={outcome.image}", f"tags<<{delimiter}"]
    return "\n".join([*lines, *references, delimiter, ""])


def summary(ended: Outcome | Failed, hide: Callable[[str], str]) -> str:
    """A section for ``GITHUB_STEP_SUMMARY``; ``hide`` takes secrets out of what others said."""
    lines: list[str] = []
    outcome = ended.so_far if isinstance(ended, Failed) else ended
    if isinstance(ended, Failed):
        failure = ended.failure
        lines += [f"### Not published: {_plain(failure.name)}", ""]
        lines += [_plain(hide(printable(failure.what))), ""]
        if reasons := [_FENCE.sub("``", hide(line)) for line in why(failure)]:
            lines += ["```text", *reasons, "```", ""]
        hint = " ".join(printable(line) for line in failure.hint.splitlines())
        lines += [f"Next: {_plain(hide(hint))}", ""] if hint else []
    elif ended.dry_run:
        lines += ["### Would publish (dry run)", ""]
    else:
        lines += ["### Published", ""]
    if outcome:
        lines += _facts(outcome)
        lines += [f"- {_plain(hide(printable(note)))}" for note in outcome.notes]
    return "\n".join([*lines, ""])


def _facts(outcome: Outcome) -> list[str]:
    size = human_size(outcome.archive_size)
    lines = [
        f"`{outcome.image}`",
        "",
        f"{_plain(', '.join(outcome.platforms) or 'no platform')}; archive of {size}, "
        f"{human_size(outcome.sent)} sent in {human_duration(outcome.seconds)}",
        "",
    ]
    if outcome.tags:
        lines += ["| Tag | | Before |", "|---|---|---|"]
        lines += [
            f"| `{tag.name}` | {tag.state} | {f'`{tag.previous}`' if tag.previous else ''} |"
            for tag in outcome.tags
        ]
        lines.append("")
    return lines


def _plain(text: str) -> str:
    """``text`` as Markdown that shows it as it is: no markup, no HTML, no cell of a table."""
    escaped = text.replace("&", "&amp;").replace("<", "&lt;").replace(">", "&gt;")
    return _MARKUP.sub(r"\\\1", escaped)
