"""Who builds: this project's builder, and upstream's script around a daemon that knows nothing.

The builder runs as whoever calls, and gives its daemon away where that is root. The script runs
as the user who gets that daemon. Both write a `docker load`-able OCI archive with the same
annotations.
"""

from __future__ import annotations

import os
import pwd
from pathlib import Path
from typing import NamedTuple

from benchmarks.rebuild import places, plan
from benchmarks.rebuild.places import Place
from benchmarks.stage import Stage, as_user
from benchmarks.subjects import SHA, URL

ANNOTATIONS = {
    "org.opencontainers.image.source": URL,
    "org.opencontainers.image.revision": SHA,
    "org.opencontainers.image.created": "2000-01-01T00:00:00Z",
}


class Surroundings(NamedTuple):
    """What every subject may need: where tools are, who has subordinate ids (None: nobody, or
    the caller), the registry with base images and the proxy with packages (empty: none)."""

    stage: Stage
    user: pwd.struct_passwd | None
    registry: str = ""
    proxy: str = ""


class Command(NamedTuple):
    """What is run, with which environment."""

    argv: list[str]
    env: dict[str, str]


class Subject:
    """One that builds. ``saved``: whose saved cache its fresh machines begin with.

    ``exact``: an unchanged build that gives other layers than the cold one is a failure, else
    worth a note. ``mounts``: it knows `RUN --mount=type=cache`. ``main``: takes part in all
    rounds.
    """

    name: str
    title: str
    exact = True
    mounts = True
    scenarios = frozenset(scenario.name for scenario in plan.SCENARIOS)
    main = True

    def __init__(self, around: Surroundings) -> None:
        self.around = around

    @property
    def saved(self) -> str:
        return self.name

    @property
    def user(self) -> pwd.struct_passwd | None:
        """Whose the directories are, and who runs the command; None for the caller."""
        return None

    def entrant(self, peer_rounds: int) -> plan.Entrant:
        """For the plan; ``peer_rounds`` is in how many rounds others than the main ones are."""
        rounds = None if self.main else peer_rounds
        return plan.Entrant(self.name, self.scenarios, self.saved, rounds)

    def place(self, home: Path, cache: Path | None = None) -> Place:
        return places.make(home, self.user, cache)

    def command(self, place: Place, source: Path, *, base: bool) -> Command:
        """What builds ``source``; ``base``: with the registry and the proxy."""
        raise NotImplementedError

    def after(self, place: Place) -> None:
        """Remove what the build left and no later one uses; the clock stands."""

    def forget(self, place: Place) -> None:
        """Make the next build a cold one."""
        places.remove(self.around.stage, *place.cache.iterdir())

    def to_save(self, place: Place) -> Path:
        """What a host keeps where it can keep but files that every machine can read."""
        return place.cache

    def size(self, place: Place) -> int | None:
        """Bytes on the disk that the next build may use; None where that cannot be told."""
        return places.used(place.cache)

    def _env(self, place: Place) -> dict[str, str]:
        return {
            "PATH": self.around.stage.path,
            "HOME": str(place.home),
            "USER": self.user.pw_name if self.user else pwd.getpwuid(os.geteuid()).pw_name,
            "XDG_RUNTIME_DIR": str(place.run),
            "TMPDIR": str(place.tmp),
            "LANG": "C.UTF-8",
        }


class Builder(Subject):
    """This project's builder with nothing set but paths, address and commit."""

    name = "builder"
    title = "builder"
    settings: dict[str, str] = {}  # noqa: RUF012 - a constant

    def command(self, place: Place, source: Path, *, base: bool) -> Command:
        env = {
            **self._env(place),
            "PYTHONPATH": str(self.around.stage.directory / "package"),
            "PYTHONDONTWRITEBYTECODE": "1",
            "PLP_SOURCE_PATH": str(source),
            "PLP_BUILD_PATH": str(place.build),
            "PLP_CACHE_PATH": str(place.cache),
            "GIT_REPOSITORY_URL": URL,
            "GIT_SHA": SHA,
            **self.settings,
        }
        if base:
            env["PLP_REGISTRY_MIRRORS"] = f"docker.io={self.around.registry}"
            env["PLP_INSECURE_REGISTRIES"] = self.around.registry
            env["PLP_BUILD_ARGS"] = f"http_proxy={self.around.proxy}"
        return Command([str(self.around.stage.python), "-m", "plp_builder"], env)

    def to_save(self, place: Place) -> Path:
        return place.cache / "buildkit"


class Portable(Builder):
    """The same where no state can be kept; begins with what the builder saved."""

    name = "portable"
    title = "builder, PLP_CACHE_STRATEGY=portable"
    scenarios = frozenset({"fresh", "fresh-code"})
    settings = {"PLP_CACHE_STRATEGY": "portable"}  # noqa: RUF012

    @property
    def saved(self) -> str:
        return Builder.name


class Original(Subject):
    """Upstream's script with import and export of a local cache."""

    name = "original"
    title = "buildctl-daemonless.sh, local cache"
    mode = "min"

    @property
    def user(self) -> pwd.struct_passwd | None:
        return self.around.user

    def command(self, place: Place, source: Path, *, base: bool) -> Command:
        stage = self.around.stage
        flags = [f"--root={place.state}", "--containerd-worker=false"]
        output = ["type=docker", "oci-mediatypes=true", f"dest={place.archive}"]
        output += [f"annotation.{key}={value}" for key, value in ANNOTATIONS.items()]
        words = ["sh", str(stage.upstream), "build", "--progress=plain"]
        words += ["--frontend=dockerfile.v0", f"--local=context={source}"]
        words += [f"--local=dockerfile={source}", f"--output={','.join(output)}"]
        if (place.cache / "index.json").exists():
            words.append(f"--import-cache=type=local,src={place.cache}")
        words.append(f"--export-cache=type=local,dest={place.cache},mode={self.mode}")
        if base:
            configuration = place.home / "buildkitd.toml"
            configuration.write_text(
                f'[registry."docker.io"]\nmirrors = ["{self.around.registry}"]\n'
                f'[registry."{self.around.registry}"]\nhttp = true\n'
            )
            flags.append(f"--config={configuration}")
            words.append(f"--opt=build-arg:http_proxy={self.around.proxy}")
        prefix = as_user(self.user) if self.user else []
        env = {
            **self._env(place),
            "BUILDKITD_FLAGS": " ".join(flags),
            # Of its own accord it gives up after 2 seconds, on a busy machine too soon.
            "BUILDCTL_CONNECT_RETRIES_MAX": "100",
            # Upstream's image brings pigz to unpack layers with, this project's igzip.
            "CONTAINERD_DISABLE_IGZIP": "1",
        }
        return Command([*prefix, *words], env)

    def after(self, place: Place) -> None:
        places.remove(self.around.stage, place.state)


class OriginalMax(Original):
    """The same with the layers of every stage."""

    name = "original-max"
    title = "buildctl-daemonless.sh, mode=max"
    mode = "max"
    scenarios = plan.PEER_SCENARIOS
    main = False
