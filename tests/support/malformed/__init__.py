"""Archives that must be refused, each wrong in one way: what an attacker or a full disk leaves.

``cases()`` names them and makes them from good ones, always the same bytes, at most a few MB
each. A publisher must end with exit code 3 for every one of them, before it says a word to any
registry.
"""

from __future__ import annotations

from collections.abc import Mapping

from tests.support.malformed import documents, images, saved, tars
from tests.support.malformed.making import Make, docker_good, good

__all__ = ["Make", "cases", "docker_good", "good"]


def cases() -> Mapping[str, Make]:
    """What is wrong, and the archive that has it."""
    return {**tars.cases(), **documents.cases(), **images.cases(), **saved.cases()}
