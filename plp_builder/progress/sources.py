"""Whether all that a build was made of will be the same next time, by the names of its steps.

What is not known to be so is not: names that no step here has, and sources by a name that can be
given to something else. The names are those of BuildKit's own frontend
(frontend/dockerfile/dockerfile2llb/convert.go and frontend/dockerui/config.go).
"""

from __future__ import annotations

import re
from collections.abc import Iterable

_DIGEST = r"@(?P<digest>sha256:[0-9a-f]{64})"
_OWN = re.compile(
    r"\[internal\] load (?:build definition from .+|\.dockerignore|build context)"
    r"|\[context [^\]]+\] load (?:\.dockerignore|from client)"
    r"|(?:importing cache manifest from|exporting) .+",
    re.DOTALL,
)
_IMAGE = re.compile(rf"\[internal\] load metadata for \S+{_DIGEST}")
_NUMBER = r"\[[^\]]*\d+/\d+\] "
_BASE = re.compile(rf"(?:{_NUMBER})?FROM \S+{_DIGEST}")
_STEP = re.compile(
    rf"""{_NUMBER}(?:(?:COPY|RUN|WORKDIR)\ .+|ADD\ [\w./*?=,"\[\]\ -]+)""", re.DOTALL
)
"""An ADD of anything but files has a colon, maybe behind a variable or an escape of JSON's."""


def are_fixed(steps: Iterable[str]) -> bool:
    """Whether nothing was taken but from local directories and from images by their digest.

    What a RUN step fetches does not count, as it does not for BuildKit's cache.
    """
    images, bases = set(), set()
    for name in steps:
        if image := _IMAGE.fullmatch(name):
            images.add(image["digest"])
        elif base := _BASE.fullmatch(name):
            bases.add(base["digest"])
        elif not (_OWN.fullmatch(name) or _STEP.fullmatch(name)):
            return False
    return bases <= images
