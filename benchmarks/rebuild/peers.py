"""Other builders, as they come: what they keep between builds is theirs to decide.

They take part in a few scenarios and rounds, to show where the two that are compared stand.
"""

from __future__ import annotations

import shutil
import subprocess
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest

from benchmarks.rebuild import places, plan
from benchmarks.rebuild.kaniko import executor
from benchmarks.rebuild.places import Place
from benchmarks.rebuild.subjects import ANNOTATIONS, Command, Subject, Surroundings
from scripts.set_up.step import SetupError
from tests.support import engine
from tests.support.engine import Engine

IMAGE = "plp-bench:latest"
BASE = "debian:trixie-slim"
_MIRROR = """\
[[registry]]
location = "docker.io"
[[registry.mirror]]
location = "{0}"
insecure = true
"""


class Peer(Subject):
    """A builder that needs not be there."""

    scenarios = plan.PEER_SCENARIOS
    exact = False
    main = False

    def _sh(self, place: Place, script: str, *arguments: object, **env: str) -> Command:
        return Command(
            ["sh", "-euc", script, "sh", *map(str, arguments)], {**self._env(place), **env}
        )


class Buildah(Peer):
    """Debian's buildah as the caller, with layers kept and the storage driver that it takes."""

    name = "buildah"
    title = "buildah build --layers, then push to an archive"

    def command(self, place: Place, source: Path, *, base: bool) -> Command:
        configuration = place.home / "registries.conf"
        configuration.write_text(_MIRROR.format(self.around.registry) if base else "")
        words = ["--network=host", "--layers", f"--tag={IMAGE}"]
        words += [f"--annotation={key}={value}" for key, value in ANNOTATIONS.items()]
        if base:
            words.append(f"--build-arg=http_proxy={self.around.proxy}")
        script = (
            'storage="--root=$1 --runroot=$2"; target=$3; shift 3; '
            'buildah $storage build "$@"; '
            f'buildah $storage push -q {IMAGE} "oci-archive:$target:{IMAGE}"'
        )
        return self._sh(
            place,
            script,
            *(place.cache / "storage", place.run, place.archive, *words, source),
            CONTAINERS_REGISTRIES_CONF=str(configuration),
        )

    def forget(self, place: Place) -> None:
        places.remove(self.around.stage, place.cache / "storage")


class Docker(Peer):
    """A Docker engine; what it keeps is not removed, a cold build is one with `--no-cache`."""

    name = "docker"

    def __init__(self, around: Surroundings, running: Engine) -> None:
        super().__init__(around)
        self.engine = running
        self.client, self.buildkit = _client()
        kind = "BuildKit" if self.buildkit else "classic builder"
        self.title = f"docker build ({kind}), then docker save"
        self.cold = True

    def _env(self, place: Place) -> dict[str, str]:
        env = {**super()._env(place), "DOCKER_BUILDKIT": str(int(self.buildkit))}
        return {**env, "DOCKER_HOST": self.engine.host} if self.engine.host else env

    def command(self, place: Place, source: Path, *, base: bool) -> Command:
        words = ["--network=host", f"--tag={IMAGE}"]
        if base:
            self._pull()
            words.append(f"--build-arg=http_proxy={self.around.proxy}")
        if self.cold:
            words.append("--no-cache")
        script = (
            'client=$1; target=$2; shift 2; "$client" build -q "$@"; '
            f'"$client" save -o "$target" {IMAGE}'
        )
        return self._sh(place, script, self.client, place.archive, *words, source)

    def _pull(self) -> None:
        """The base image is at hand before the clock runs."""
        if self.engine.docker("image", "inspect", BASE, check=False).returncode:
            name = f"{self.around.registry}/library/{BASE}"
            self.engine.docker("pull", "-q", name)
            self.engine.docker("tag", name, BASE)
            self.engine.docker("image", "rm", name)

    def after(self, place: Place) -> None:  # noqa: ARG002 - one for all
        self.cold = False

    def forget(self, place: Place) -> None:  # noqa: ARG002 - one for all
        self.cold = True

    def size(self, place: Place) -> None:
        """Nobody can tell: the engine may keep what others built."""


class Kaniko(Peer):
    """kaniko in a container of its own, because it unpacks images over the root directory."""

    name = "kaniko"
    title = "kaniko --cache, layers in a registry on loopback"
    mounts = False

    def __init__(self, around: Surroundings, running: Engine, image: str) -> None:
        super().__init__(around)
        self.engine = running
        self.image = image
        self.forgotten = 0

    def command(self, place: Place, source: Path, *, base: bool) -> Command:
        registry = self.around.registry
        words = [f"--volume={source}:/workspace:ro", f"--volume={place.build}:/out"]
        words += ["--rm", "--network=host", self.image, "--context=dir:///workspace"]
        words += ["--dockerfile=/workspace/Dockerfile", "--no-push", f"--destination={IMAGE}"]
        words += [f"--tar-path=/out/{place.archive.name}", f"--registry-mirror={registry}"]
        words += [f"--insecure-registry={registry}", "--insecure", "--cache"]
        words += ["--cache-copy-layers", f"--cache-repo={registry}/kaniko/{self.forgotten}"]
        if base:
            words.append(f"--build-arg=http_proxy={self.around.proxy}")
        host = {"DOCKER_HOST": self.engine.host} if self.engine.host else {}
        return Command(["docker", "run", *words], {**self._env(place), **host})

    def forget(self, place: Place) -> None:  # noqa: ARG002 - one for all
        self.forgotten += 1

    def size(self, place: Place) -> None:
        """In the registry, with the other images."""


def _client() -> tuple[str, bool]:
    """A Docker client, one that can build with BuildKit if there is any."""
    clients = [path for path in (shutil.which("docker"), "/usr/bin/docker") if path]
    for client in clients:
        asked = [client, "version", "--format={{.Client.Version}}"]
        version = subprocess.run(asked, check=False, capture_output=True, text=True).stdout
        buildx = subprocess.run([client, "buildx", "version"], check=False, capture_output=True)
        if not buildx.returncode or version.partition(".")[0] in {"18", "19", "20"}:
            return client, True
    return clients[0], False


@contextmanager
def engine_for(directory: Path) -> Iterator[Engine]:
    """The machine's Docker engine, or one of our own. SetupError where there can be none."""
    try:
        with engine.available(directory) as running:
            yield running
    except pytest.skip.Exception as error:
        raise SetupError(str(error)) from error


def buildah(around: Surroundings) -> Buildah:
    """SetupError where there is no buildah."""
    if not shutil.which("buildah", path=around.stage.path):
        raise SetupError("there is no buildah")
    return Buildah(around)


def kaniko(around: Surroundings, running: Engine, directory: Path) -> Kaniko:
    """Build kaniko and import it as an image. SetupError where that fails."""
    if not around.registry:
        raise SetupError("it needs a registry for its cache")
    image = "plp-bench-kaniko:latest"
    tree = directory / "kaniko"
    (tree / "kaniko").mkdir(parents=True)
    shutil.copy(executor(), tree / "kaniko/executor")
    archive = directory / "kaniko.tar"
    subprocess.run(["tar", "-C", tree, "-cf", archive, "kaniko"], check=True)
    entry = 'ENTRYPOINT ["/kaniko/executor"]'
    path = "ENV PATH=/kaniko:/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin"
    imported = running.docker(
        "import", f"--change={entry}", f"--change={path}", str(archive), image, check=False
    )
    if imported.returncode:
        raise SetupError(imported.stderr.strip())
    return Kaniko(around, running, image)


def forget_images(running: Engine) -> None:
    """Remove the names that were given in the engine."""
    for image in (IMAGE, "plp-bench-kaniko:latest"):
        running.docker("image", "rm", "--force", image, check=False)
