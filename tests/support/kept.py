"""A small project that is built again and again with one cache directory."""

from __future__ import annotations

import json
import re
import tarfile
from collections.abc import Mapping
from pathlib import Path

from tests.support.base_images import static_busybox
from tests.support.builder import Result, Run, StartBuilder, Workspace
from tests.support.machine import Tools

DOCKERFILE = """\
FROM scratch AS base
COPY --chmod=755 busybox /bin/busybox
RUN ["/bin/busybox", "sh", "-c", "/bin/busybox mkdir /data && echo base > /data/base"]
FROM base
RUN --mount=type=cache,target=/kept \\
    ["/bin/busybox", "sh", "-c", "echo run >> /kept/log; /bin/busybox cp /data/base /data/copy"]
COPY code /code
RUN --mount=type=cache,target=/kept \\
    ["/bin/busybox", "sh", "-c", "echo run >> /kept/log; /bin/busybox cat /code > /data/code"]
"""


def digest(archive: Path) -> str:
    """The digest of the one image in an archive."""
    with tarfile.open(archive) as tar:
        index = tar.extractfile("index.json")
        assert index is not None
        [entry] = json.load(index)["manifests"]
    return str(entry["digest"])


class Kept:
    """``run`` builds with what earlier builds have kept, ``cold`` without any of it."""

    def __init__(
        self,
        place: Workspace,
        start: StartBuilder,
        tools: Tools,
        *,
        user: str = "root",
        dockerfile: str = DOCKERFILE,
    ) -> None:
        self.place = place
        self.tools = tools
        self._start = start
        self._user = user
        self._dockerfile = dockerfile
        self._replaced = ""
        place.write({"Dockerfile": dockerfile, "busybox": static_busybox().read_bytes()})
        self.change("one")

    @property
    def state(self) -> Path:
        """Where the state is kept."""
        return self.place.cache / "state/1"

    @property
    def root(self) -> Path:
        """The daemon's own part of it."""
        return self.state / "root"

    @property
    def worker(self) -> Path:
        """The part of that with layers and images."""
        return self.root / "runc-overlayfs"

    def change(self, code: str) -> None:
        """Change the project's code."""
        self.code = code
        self.place.write({"code": code})

    def replace(self, **programs: str) -> None:
        """Let builds find shell scripts of these texts in place of programs."""
        directory = self.place.root / "bin"
        directory.mkdir(mode=0o755, exist_ok=True)
        for name, text in programs.items():
            (directory / name).write_text(f"#!/bin/sh\n{text}\n")
            (directory / name).chmod(0o755)
        self._replaced = f"{directory}:"

    def start(self, **variables: str | None) -> Run:
        """Start a build; ``variables`` are the builder's, without PLP_."""
        given = {f"PLP_{name}": value for name, value in variables.items()}
        given["PATH"] = self._replaced + self.tools.path
        env: Mapping[str, str | None] = {
            **self.place.env,
            "SOURCE_DATE_EPOCH": "1700000000",
            **given,
        }
        return self._start(env, user=self._user, tools=self.tools)

    def run(self, **variables: str | None) -> Result:
        """A build that succeeds."""
        result = self.start(**variables).wait(300)
        assert result.code == 0, result.output
        return result

    def built(self, **variables: str | None) -> str:
        """The digest of what a build gives."""
        self.run(**variables)
        return digest(self.place.archive)

    def cold(self) -> str:
        """The digest of what a build without any cache gives for this code."""
        key = self.tools.name, self._dockerfile, self.code
        if key not in _COLD:
            _COLD[key] = self.built(CACHE_STRATEGY="off")
        return _COLD[key]


_COLD: dict[tuple[str, str, str], str] = {}


def cached(result: Result) -> int:
    """How many steps were cached, as the builder tells it."""
    found = re.search(r"steps: +(\d+) of \d+ cached", result.output)
    assert found, result.output
    return int(found[1])
