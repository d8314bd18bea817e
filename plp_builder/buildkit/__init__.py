"""The engine: how to reach a BuildKit daemon, and the one that this builder starts itself."""

from __future__ import annotations

from dataclasses import dataclass


@dataclass(frozen=True, slots=True)
class Endpoint:
    """Where a BuildKit daemon listens, as ``buildctl --addr`` takes it."""

    address: str

    def arguments(self) -> tuple[str, ...]:
        return ("--addr", self.address)
