"""What a daemon is still asked for, once the image is there."""

from __future__ import annotations

from types import SimpleNamespace
from typing import cast

from plp_builder import solving
from plp_builder.buildkit.daemonless import Daemon
from plp_builder.caching import Caching
from plp_builder.phases import Phases
from plp_builder.run import Run
from plp_builder.solve import SolveRequest
from plp_builder.solving import Solved, Solving


class Lacking:
    """A portable cache that has lost the image since it was looked at."""

    def __init__(self) -> None:
        self.tidied: list[object] = []

    def wants_export(self, *, all_cached: bool) -> bool:
        return all_cached

    def tidy(self, endpoint: object, *, grown: bool) -> None:
        assert not grown
        self.tidied.append(endpoint)


def no_request(**_: object) -> SolveRequest:
    raise AssertionError("nobody is there to be asked")


def test_a_daemon_that_has_ended_is_asked_for_nothing() -> None:
    caching = Lacking()
    solving.keep(
        cast("Run", SimpleNamespace(phases=Phases(0))),
        no_request,
        cast("Daemon", SimpleNamespace(endpoint="the daemon's")),
        cast("Caching", caching),
        cast("Solving", None),
        Solved(3, 3, asked=False),
    )
    assert caching.tidied == [None]
