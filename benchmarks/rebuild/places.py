"""Directories of one machine of one subject, and what they need on the disk."""

from __future__ import annotations

import os
import pwd
import shutil
import subprocess
from pathlib import Path
from typing import NamedTuple

from benchmarks.stage import Stage
from tests.support.processes import mounts_below


class Place(NamedTuple):
    """A home with all directories that a build needs. ``cache`` is what the next build finds;
    of a second build on the same machine it lies in the home of the first."""

    home: Path
    cache: Path

    @property
    def build(self) -> Path:
        return self.home / "build"

    @property
    def state(self) -> Path:
        """For a daemon that knows nothing."""
        return self.home / "state"

    @property
    def run(self) -> Path:
        return self.home / "run"

    @property
    def tmp(self) -> Path:
        return self.home / "tmp"

    @property
    def archive(self) -> Path:
        return self.build / "container-image.tar"


def make(home: Path, user: pwd.struct_passwd | None, cache: Path | None = None) -> Place:
    """Create the directories, owned by ``user`` (None: the caller)."""
    place = Place(home, cache or home / "cache")
    for directory in (home, place.cache, place.build, place.run, place.tmp):
        directory.mkdir(exist_ok=True)
        directory.chmod(0o700 if directory == place.run else 0o755)
        if user is not None and os.geteuid() == 0:
            os.chown(directory, user.pw_uid, user.pw_gid)
    return place


def remove(stage: Stage, *paths: Path) -> None:
    """Remove what may belong to subordinate ids, or be mounted."""
    if os.geteuid() != 0:
        command = ["rootlesskit", "rm", "-rf", *map(str, paths)]
        env = {**os.environ, "PATH": stage.path}
        subprocess.run(command, env=env, check=False, capture_output=True)
        return
    for path in paths:
        for point in reversed(mounts_below(path)):
            subprocess.run(["umount", "--lazy", point], check=False, capture_output=True)
        if path.is_dir() and not path.is_symlink():
            shutil.rmtree(path, ignore_errors=True)
        else:
            path.unlink(missing_ok=True)


def copy(source: Path, target: Path) -> None:
    """Copy what is in a directory into another, with owners and times."""
    target.mkdir(parents=True, exist_ok=True)
    subprocess.run(["cp", "-a", f"{source}/.", str(target)], check=True)


def used(directory: Path) -> int:
    """Bytes on the disk below a directory, every inode once; 0 if there is none."""
    seen: set[tuple[int, int]] = set()
    total = 0
    for where, directories, names in os.walk(directory):
        for name in (*directories, *names):
            try:
                status = os.lstat(Path(where, name))
            except FileNotFoundError:
                continue
            if (key := (status.st_dev, status.st_ino)) not in seen:
                seen.add(key)
                total += status.st_blocks * 512
    return total
