"""The project's images in a Docker engine: loaded, run, looked at, and removed again."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager, nullcontext
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any
from unittest.mock import patch

from scripts.images.build import Wanted, archive
from scripts.set_up.step import SetupError
from tests.support.engine import Engine

_UNMASKED = "systempaths=unconfined"
OLDER = "0.21.1"
"""The BuildKit of the original, which the build argument can still ask for."""

PRIVILEGED: Mapping[str, Any] = {"privileged": True}
UNCONFINED: Mapping[str, Any] = {"security_opt": ["seccomp=unconfined", "apparmor=unconfined"]}
UNMASKED: Mapping[str, Any] = {
    "security_opt": ["seccomp=unconfined", "apparmor=unconfined", _UNMASKED]
}


def load(engine: Engine, wanted: Wanted) -> str:
    """The reference of an image of this very source, loaded into the engine."""
    try:
        path = archive(wanted)
    except SetupError as error:
        raise AssertionError(str(error)) from None
    engine.docker("load", "--quiet", "--input", str(path))
    return wanted.reference


@dataclass(frozen=True, slots=True)
class Outcome:
    """How a container ended: exit code, and both streams as `docker logs` shows them."""

    code: int
    log: str


@dataclass(slots=True)
class Containers:
    """Starts containers by testcontainers, and removes them with their anonymous volumes."""

    engine: Engine
    image: str
    started: list[Any] = field(default_factory=list)

    def start(
        self,
        mounts: Mapping[str | Path, str] | None = None,
        env: Mapping[str, str] | None = None,
        command: Sequence[str] = (),
        image: str = "",
        **options: Any,
    ) -> Any:
        """A started testcontainers container; ``mounts`` map a source to ``/place:mode``.

        ``options`` are docker-py's: privileged, security_opt, user, read_only and so on.
        """
        from testcontainers.core.container import DockerContainer

        container = DockerContainer(image or self.image)
        for source, place in (mounts or {}).items():
            path, _, mode = place.partition(":")
            container.with_volume_mapping(str(source), path, mode or "rw")
        for path, option in options.pop("tmpfs", {}).items():
            container.with_tmpfs_mount(path, option or None)
        container.with_envs(**(env or {}))
        if command:
            container.with_command(list(command))
        self.started.append(container)
        words = list(options.pop("security_opt", ()))
        with _nothing_masked() if _UNMASKED in words else nullcontext():
            words = [word for word in words if word != _UNMASKED]
            return container.with_kwargs(**options, security_opt=words).start()

    def run(self, *arguments: Any, timeout: float = 120, **options: Any) -> Outcome:
        """Start a container and wait for its end."""
        container = self.start(*arguments, **options)
        return self.ended(container, timeout)

    def ended(self, container: Any, timeout: float = 120) -> Outcome:
        """Wait for a container's end, and remove it."""
        wrapped = container.get_wrapped_container()
        code = wrapped.wait(timeout=timeout)["StatusCode"]
        log = wrapped.logs().decode("utf-8", "replace")
        self.remove(container)
        return Outcome(code, log)

    def remove(self, container: Any) -> None:
        """End and remove a container, with its anonymous volumes."""
        container.stop(force=True, delete_volume=True)
        self.started.remove(container)

    def remove_all(self) -> None:
        """The same for what a test has left running."""
        for container in list(self.started):
            self.remove(container)


@contextmanager
def _nothing_masked() -> Iterator[None]:
    """Let docker-py ask for what the client calls systempaths=unconfined."""
    from docker.types import HostConfig

    def unmasked(**options: Any) -> Any:
        return HostConfig(**options) | {"MaskedPaths": [], "ReadonlyPaths": []}

    with patch("docker.models.containers.HostConfig", unmasked):
        yield
