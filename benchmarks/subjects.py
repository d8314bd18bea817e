"""What is compared: the builder's whole process against upstream's daemonless script.

Both build the same context with the same annotations, import and export the same kind of local
cache, and write a `docker load`-able OCI archive. "builder" is the builder as it comes, which also
keeps the daemon's state; "portable" has the same caches as the script, and a daemon that begins
with nothing, too.
"""

from __future__ import annotations

import os
import pwd
import shutil
import subprocess
from dataclasses import dataclass
from pathlib import Path
from typing import Literal

from benchmarks.measure import Run, run
from benchmarks.stage import Stage, as_user

Side = Literal["builder", "portable", "upstream"]
URL = "https://git.example/team/project.git"
SHA = "0123456789abcdef0123456789abcdef01234567"

# The builder gives its daemon away when it is root and somebody has subordinate ids. Where
# both daemons are to run as root, nobody has any, for these processes alone.
NOBODY_HAS_SUBORDINATE_IDS = (
    "unshare",
    "--mount",
    "sh",
    "-euc",
    'mount --bind /dev/null /etc/subuid; mount --bind /dev/null /etc/subgid; exec "$@"',
    "sh",
)


@dataclass(frozen=True, slots=True)
class Variant:
    """Who runs the two: ``user`` None for root with a daemon as root."""

    name: str
    user: pwd.struct_passwd | None


@dataclass(frozen=True, slots=True)
class Place:
    """The directories of one side of one variant."""

    stage: Stage
    variant: Variant
    side: Side
    home: Path

    @classmethod
    def make(cls, stage: Stage, variant: Variant, side: Side) -> Place:
        """Create the directories below the stage, owned by the variant's user."""
        place = cls(stage, variant, side, stage.directory / f"{variant.name}-{side}")
        place.home.mkdir()
        for directory in (place.home, place.run_directory, place.build, place.cache):
            directory.mkdir(exist_ok=True)
            directory.chmod(0o700 if directory == place.run_directory else 0o755)
            if variant.user is not None:
                os.chown(directory, variant.user.pw_uid, variant.user.pw_gid)
        return place

    @property
    def build(self) -> Path:
        return self.home / "build"

    @property
    def cache(self) -> Path:
        return self.home / "cache"

    @property
    def state(self) -> Path:
        return self.home / "state"

    @property
    def run_directory(self) -> Path:
        return self.home / "run"

    def forget(self) -> None:
        """Empty the cache directory."""
        self._remove(*self.cache.iterdir())

    def build_once(self, context: Path, *, memory: bool = False) -> Run:
        """Build the context; what upstream's daemon leaves behind goes after the clock stopped."""
        command = self._upstream(context) if self.side == "upstream" else self._builder()
        variant = self.variant.user
        prefix = NOBODY_HAS_SUBORDINATE_IDS if variant is None else as_user(variant)
        result = run(
            [*prefix, *command], self._environment(context), self.stage.directory, memory=memory
        )
        if self.side == "upstream":
            self._remove(self.state)
        return result

    def archive(self) -> Path:
        return self.build / "container-image.tar"

    def _environment(self, context: Path) -> dict[str, str]:
        env = {
            "PATH": self.stage.path,
            "HOME": str(self.home),
            "USER": self.variant.user.pw_name if self.variant.user else "root",
            "XDG_RUNTIME_DIR": str(self.run_directory),
            "LANG": "C.UTF-8",
        }
        if self.side == "upstream":
            return {**env, "BUILDKITD_FLAGS": f"--root={self.state} --containerd-worker=false"}
        if self.side == "portable":
            env["PLP_CACHE_STRATEGY"] = "portable"
        return {
            **env,
            "PYTHONPATH": str(self.stage.directory / "package"),
            "PYTHONDONTWRITEBYTECODE": "1",
            "PLP_SOURCE_PATH": str(context),
            "PLP_BUILD_PATH": str(self.build),
            "PLP_CACHE_PATH": str(self.cache),
            "GIT_REPOSITORY_URL": URL,
            "GIT_SHA": SHA,
        }

    def _builder(self) -> list[str]:
        return [str(self.stage.python), str(self.stage.builder)]

    def _upstream(self, context: Path) -> list[str]:
        cache = self.cache / "buildkit"
        annotations = ("source=" + URL, "revision=" + SHA, "created=2000-01-01T00:00:00Z")
        output = ["type=docker", "oci-mediatypes=true", f"dest={self.archive()}"]
        output += [f"annotation.org.opencontainers.image.{text}" for text in annotations]
        words = ["sh", str(self.stage.upstream), "build", "--progress=plain"]
        words += ["--frontend=dockerfile.v0", f"--local=context={context}"]
        words += [f"--local=dockerfile={context}", f"--output={','.join(output)}"]
        if (cache / "index.json").exists():
            words.append(f"--import-cache=type=local,src={cache}")
        return [*words, f"--export-cache=type=local,dest={cache},mode=max"]

    def _remove(self, *paths: Path) -> None:
        """Remove what may belong to subordinate ids, which only root or their owner can."""
        if os.geteuid() == 0:
            for path in paths:
                if path.is_dir() and not path.is_symlink():
                    shutil.rmtree(path, ignore_errors=True)
                else:
                    path.unlink(missing_ok=True)
            return
        command = ["rootlesskit", "rm", "-rf", *map(str, paths)]
        env = {**os.environ, "PATH": self.stage.path}
        subprocess.run(command, env=env, check=False, capture_output=True)
