"""Where base images come from: their registry, else stand-ins under the same names."""

from __future__ import annotations

import urllib.error
import urllib.request
from collections.abc import Iterator, Mapping
from contextlib import contextmanager

_HUB = "https://registry-1.docker.io/v2/"
_PATIENCE = 5.0
"""Seconds."""


def hub_answers() -> bool:
    """Whether Docker Hub can be reached: its answer to a stranger is 401."""
    try:
        with urllib.request.urlopen(_HUB, timeout=_PATIENCE):
            return True
    except urllib.error.HTTPError as error:
        return error.code == 401
    except OSError:
        return False


@contextmanager
def available(*, real: bool) -> Iterator[Mapping[str, str]]:
    """Builder variables with which every base image of the Dockerfile can be had."""
    if real:
        yield {}
        return
    # The tests' stand-ins are made of the distribution's packages and of bin/.
    from tests.support import registry

    with registry.with_all_base_images() as running:
        yield running.env


def key(*, real: bool) -> str:
    """Changes when other base images would be taken."""
    if real:
        return "hub"
    from tests.support import base_images

    return base_images.buildkit_key()
