"""The image of an unchanged build, known without asking BuildKit.

From its cache BuildKit answers, too, but it is told of every file of the context before. Where
directories, Dockerfile and everything asked for are what they were, and the last image was made of
nothing else that can change, it is the answer: what may differ are its annotations.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from plp_builder import drafting
from plp_builder.annotations import CREATED
from plp_builder.cache.files import replacing
from plp_builder.oci import layout
from plp_builder.oci.model import parse_manifest
from plp_builder.solve.options import BUILT_IN_FRONTEND

if TYPE_CHECKING:
    from datetime import datetime

    from plp_builder.cache.context_store import Made
    from plp_builder.cache.images import Images
    from plp_builder.oci.model import Descriptor
    from plp_builder.settings import Settings
    from plp_builder.solve import SolveRequest

_EPOCH = "build-arg:SOURCE_DATE_EPOCH"


def is_wanted(settings: Settings) -> bool:
    """Whether a build that need not solve may do without: nobody asks to look again, or to see.

    Of what another frontend takes the names of its steps tell nothing.
    """
    asks = settings.no_cache or settings.pull or settings.verify == "full"
    return not asks and settings.progress != "rawjson" and settings.frontend == BUILT_IN_FRONTEND


def recalled(images: Images, made: Made, request: SolveRequest, now: datetime) -> Descriptor | None:
    """The image that a solve of ``request`` would give ``now``; its manifest is in the layout then.

    ``made`` is what the last build made of the same directories. None where only a solve can tell.
    Whether the other blobs are there remains to be seen. Raises OSError.
    """
    last = images.last
    if last is None or made.key != images.key:
        return None
    content = drafting.manifest(images.directory, last, request)
    if not content or parse_manifest(content, "the image").config.digest != made.config:
        return None
    top = drafting.described(last, content)
    path = layout.blob_path(images.directory, top.digest)
    if not path.exists():
        with replacing(path, 0o644) as file:
            file.write(content)
    if any(option.key == _EPOCH for option in request.options):
        return top
    # BuildKit's exporter (exporter/oci/export.go) tells its own time, whatever the manifest says.
    return top._replace(
        annotations={**top.annotations, CREATED: now.strftime("%Y-%m-%dT%H:%M:%SZ")}
    )
