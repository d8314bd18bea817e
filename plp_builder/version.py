"""Versions of the builder and of the tools that it drives."""

from __future__ import annotations

from collections.abc import Mapping

from plp_builder import __version__, process
from plp_builder.errors import Failure

_TIMEOUT = 10.0


def text(environ: Mapping[str, str]) -> str:
    """One line each for the builder, BuildKit and RootlessKit; "not found" where there is none."""
    return "\n".join(
        (
            f"plp-container-image-builder {__version__}",
            f"BuildKit {_of('buildkitd', environ)}",
            f"RootlessKit {_of('rootlesskit', environ)}",
        )
    )


def _of(tool: str, environ: Mapping[str, str]) -> str:
    """The first word of ``TOOL --version`` that looks like a version, without its ``v``."""
    try:
        output = process.run([tool, "--version"], env=environ, timeout=_TIMEOUT).stdout
    except Failure:
        return "not found"
    words = output.decode("utf-8", "replace").split()
    numbers = (word.removeprefix("v") for word in words)
    return next((number for number in numbers if number[:1].isdigit()), "unknown")
