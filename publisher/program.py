"""The installed command: what ``python -m publisher`` does, without what ``-m`` itself takes.

That is 5 ms, for runpy and what it imports.
"""

from __future__ import annotations

from typing import NoReturn

from plp_builder import early


def run() -> NoReturn:
    """Be the publisher's process until it ends, with the command line's arguments."""
    early.end_by_signals()
    from plp_builder import streams
    from publisher.__main__ import main

    streams.run(main)
