"""The engine: how to reach a BuildKit daemon, and the one that this builder starts itself."""

from __future__ import annotations

from plp_builder.tuples import NamedTuple


class Endpoint(NamedTuple):
    """Where a BuildKit daemon listens, as ``buildctl --addr`` takes it."""

    address: str

    def arguments(self) -> tuple[str, ...]:
        return ("--addr", self.address)
