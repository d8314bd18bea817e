"""What a daemon is told before it ends, so that its state stays small and holds no secret."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from contextlib import suppress
from typing import TYPE_CHECKING

from plp_builder import log
from plp_builder.buildkit import pruning
from plp_builder.errors import ArchiveInvalid, Failure, StateDamaged, TimedOut

if TYPE_CHECKING:
    from plp_builder.buildkit import Endpoint
    from plp_builder.cache.state import State
    from plp_builder.process import Begun

_SMALLEST_SHARE = 10
"""The daemon's part of the bound is at least this fraction, however large the images beside it."""


class Tidying:
    """For one build; ``said`` is whether its records hold something in any case.

    ``env`` is for buildctl.
    """

    def __init__(self, env: Mapping[str, str], *, said: bool) -> None:
        self._env = env
        self._said = said
        self._forgetting: Begun | None = None

    def heard(self, said: bool) -> None:
        """A solve is over in which steps have ``said`` something, or none has."""
        self._said |= said

    def forget(self, state: State, endpoint: Endpoint) -> None:
        """Have the daemon forget what steps have said, while other things happen. Never raises.

        Once nothing else is solved, and only where something was said, or where many records wait.
        """
        if (self._said or state.records.due) and not self._forgetting:
            state.records.not_harmless()  # until it has been told
            with suppress(Failure):
                self._forgetting = pruning.histories(endpoint, self._env)

    def forgotten(self, state: State | None) -> None:
        """Wait until it has forgotten, if it was told to. Raises StateDamaged, TimedOut."""
        begun, self._forgetting = self._forgetting, None
        if begun:
            pruning.finish(begun)
            if state:
                state.records.forgotten()

    def tidy(
        self,
        state: State,
        endpoint: Endpoint | None,
        *,
        bound: int,
        images: Callable[[], int],
        grown: bool,
    ) -> None:
        """See that ``state`` stays within ``bound`` bytes, with the ``images`` beside it.

        These tidies up, too, and tells their size; it may raise OSError and ArchiveInvalid.
        ``endpoint`` is the daemon's, None where it was not asked to solve, and ``grown`` is whether
        anything was built. Never raises.
        """
        if endpoint:
            self.forget(state, endpoint)
        try:
            left = max(bound - images(), bound // _SMALLEST_SHARE)
            if endpoint and grown and not state.growth.is_harmless(left):
                state.growth.measured(pruning.to_size(endpoint, self._env, left))
            self.forgotten(state)
        except (OSError, ArchiveInvalid, StateDamaged, TimedOut) as error:
            log.warning("the daemon's state could not be tidied up", reason=str(error))
        else:
            state.ended(solved=endpoint is not None)
