"""The text of ``--help``, made from the settings model."""

from __future__ import annotations

from textwrap import wrap

from plp_builder import __version__, manual
from plp_builder.settings import NOT_IMPLEMENTED, TABLE

_HEAD = """\
plp-container-image-builder {version}

A source directory becomes one OCI image archive, by rootless BuildKit.

Usage: python -m plp_builder             build what the variables below describe
       python -m plp_builder doctor      check paths and this environment, and print a table
       python -m plp_builder --version   print the versions of builder, BuildKit and RootlessKit
       python -m plp_builder --help      print this text

An empty variable is not set. Booleans take true/false, 1/0, yes/no, on/off; sizes take units
(500k, 512MiB, 10GB), and so do durations (90, 60s, 1h30m).
"""


def text() -> str:
    """All variables in groups, with default and meaning, in at most 100 columns."""
    lines = [*_HEAD.format(version=__version__).splitlines(), *manual.table(TABLE)]
    later = wrap(
        f"Not in this version: {', '.join(NOT_IMPLEMENTED)}, the outputs registry and rootfs.",
        manual.WIDTH,
    )
    codes = "Exit codes: 0 success, 1 failure, 143 after SIGTERM, 130 after SIGINT."
    return "\n".join([*lines, "", *later, codes])
