"""The installed command: what ``python -m plp_builder`` does, without what ``-m`` itself takes.

That is 5 ms, for runpy and what it imports.
"""

from __future__ import annotations

from plp_builder import early

TYPE_CHECKING = False  # for the type checker, without importing typing
if TYPE_CHECKING:
    from typing import NoReturn


def run() -> NoReturn:
    """Be the builder's process until it ends, with the command line's arguments."""
    early.end_by_signals()
    from plp_builder.__main__ import main  # isort: skip - first, since it puts other imports off
    from plp_builder import streams

    streams.run(main)
