"""What is known about each project in tests/contexts: its needs, settings and outcome.

A project is copied before it is built (:meth:`Project.copy_to`), so that nothing is ever
written here and every build sees fresh inodes and times, as after a checkout.
"""

from __future__ import annotations

import shutil
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Literal

FOLDER = Path(__file__).parents[1] / "contexts"
DEBIAN = "debian:trixie-slim"

Need = Literal["busybox", "apt", "pip", "npm"]
"""``busybox``: a static busybox copied beside the Dockerfile; the others: that package
manager's registry must be reachable from a build step."""


@dataclass(frozen=True, slots=True)
class Project:
    """One folder of tests/contexts.

    ``settings`` are the variables it wants besides the five of the contract; ``{source}`` in
    a value stands for the copy's path. ``variables`` are further ones that its settings point
    to, for example a secret's. ``error`` is the stable name of the failure it must end with,
    empty for success, and ``says`` are texts that its output must hold.
    ``deterministic``: under SOURCE_DATE_EPOCH two builds give byte-identical archives.
    """

    name: str
    needs: tuple[Need, ...] = ()
    images: tuple[str, ...] = ()
    deterministic: bool = True
    error: str = ""
    says: tuple[str, ...] = ()
    settings: Mapping[str, str] = field(default_factory=dict)
    variables: Mapping[str, str] = field(default_factory=dict)

    @property
    def offline(self) -> bool:
        """True if nothing but this folder (and a busybox) is needed to build it."""
        return not self.images and set(self.needs) <= {"busybox"}

    def copy_to(self, source: Path, *, busybox: Path | None = None) -> Path:
        """Copy the project to ``source``, in place of what is there, and return it.

        ``busybox`` is a statically linked one; ValueError if it is needed and not given.
        """
        if source.exists():
            shutil.rmtree(source)
        shutil.copytree(FOLDER / self.name, source, symlinks=True, copy_function=shutil.copy)
        if "busybox" in self.needs:
            if busybox is None:
                raise ValueError(f"{self.name} needs a static busybox")
            copy = source / "busybox"
            shutil.copyfile(busybox, copy)
            copy.chmod(0o755)
        return source

    def environment(self, source: Path) -> dict[str, str]:
        """The variables of a build of the copy at ``source``, without the contract's paths."""
        settings = {
            name: value.replace("{source}", str(source)) for name, value in self.settings.items()
        }
        return {**settings, **self.variables}


PROJECTS: tuple[Project, ...] = (
    Project("scratch-file"),
    Project("no-layers"),
    Project(
        "site",
        needs=("busybox",),
        settings={"PLP_SECRETS": "id=token,env=SITE_TOKEN"},
        variables={"SITE_TOKEN": "a token that no layer, log or argument list may hold"},
    ),
    Project("heredocs", needs=("busybox",)),
    Project(
        "labels-and-args",
        needs=("busybox",),
        settings={
            "PLP_BUILD_ARGS": 'VERSION=1.2.3\nCHANNEL\nNOTE=a, "b" = c',
            "PLP_LABELS": "org.example.caller=a, b\norg.example.fixed=replaced",
        },
        variables={"CHANNEL": "stable, of course"},
    ),
    Project("dockerignore"),
    Project("own-dockerignore", settings={"PLP_DOCKERFILE": "app.Dockerfile"}),
    Project(
        "named-contexts",
        settings={"PLP_CONTEXT": "app", "PLP_BUILD_CONTEXTS": "assets={source}/assets"},
    ),
    Project("symlinked-dockerfile"),
    Project("odd-names"),
    Project("configuration"),
    Project("platforms", settings={"PLP_PLATFORMS": "linux/amd64,linux/arm64"}),
    Project("check-warnings", says=("FromAsCasing", "SecretsUsedInArgOrEnv")),
    Project("background-process", needs=("busybox",)),
    Project(
        "strange-output",
        needs=("busybox",),
        says=("latin-1: caf", "progress 100%", "no end of line"),
    ),
    Project("flood", needs=("busybox",)),
    Project("silent-step", needs=("busybox",), says=("still running",)),
    Project(
        "failing-step",
        needs=("busybox",),
        error="build-failed",
        says=("no answer: the oracle is closed", "exit code", "7"),
    ),
    Project("copy-missing", error="build-failed", says=("missing.txt",)),
    Project("syntax-error", error="build-failed", says=("COPPY",)),
    Project("base-missing", error="base-image-not-available", says=("registry.invalid",)),
    Project("debian-packages", needs=("apt",), images=(DEBIAN,), deterministic=False),
    Project("python-app", needs=("apt", "pip"), images=(DEBIAN,), deterministic=False),
    Project("node-app", needs=("apt", "npm"), images=(DEBIAN,), deterministic=False),
)


def project(name: str) -> Project:
    """The project of that name; KeyError if there is none."""
    return {known.name: known for known in PROJECTS}[name]
