"""Which image a cache entry belongs to."""

from __future__ import annotations

import hashlib
import json
from typing import TYPE_CHECKING

from plp_builder.annotations import public_url

if TYPE_CHECKING:
    from plp_builder.settings import Settings

_LENGTH = 40


def identity(settings: Settings, dockerfile: bytes) -> str:
    """The tag of this image's entry: the same in every build of it, another for any other.

    An image is told by its repository, context, Dockerfile's name, target and platforms.
    Without a repository, the source path, PLP_IMAGE and the ``dockerfile``'s content stand in.
    Nothing of them can be read from the tag, and credentials in the URL do not count.
    """
    url = public_url(settings.git_repository_url)
    origin = (
        [url]
        if url
        else [
            str(settings.source_path),
            *settings.image,
            hashlib.sha256(dockerfile).hexdigest(),
        ]
    )
    parts = [
        origin,
        str(settings.context),
        str(settings.dockerfile),
        settings.target,
        list(settings.platforms),
    ]
    return "plp-" + hashlib.sha256(json.dumps(parts).encode()).hexdigest()[:_LENGTH]
