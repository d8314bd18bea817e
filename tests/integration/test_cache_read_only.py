"""A cache that a build may read but not write, for real: by another user, and by its mount."""

from __future__ import annotations

import os
import subprocess
from pathlib import Path

import pytest

from tests.support.builder import MakeWorkspace, RunBuilder, Workspace
from tests.support.machine import Tools

WARNING = "cannot be written: this build imports from it and keeps nothing"
URL = {"GIT_REPOSITORY_URL": "https://git.example/app", "SOURCE_DATE_EPOCH": "1700000000"}

pytestmark = pytest.mark.skipif(os.geteuid() != 0, reason="needs several users and mounts")


def prepare(place: Workspace) -> dict[str, str]:
    place.write({"Dockerfile": "FROM scratch\nCOPY one /\nCOPY two /\n", "one": "1", "two": "2"})
    return {**place.env, **URL}


def state(cache: Path) -> dict[Path, tuple[int, int]]:
    return {path: (path.lstat().st_mtime_ns, path.lstat().st_size) for path in cache.rglob("*")}


def test_a_cache_of_root_serves_another_user(
    workspace: MakeWorkspace, run_builder: RunBuilder, buildkit: Tools
) -> None:
    roots, others = workspace("root"), workspace("unprivileged")
    assert run_builder(prepare(roots), user="root", tools=buildkit).code == 0
    before = state(roots.cache)
    env = {**prepare(others), "PLP_CACHE_PATH": str(roots.cache)}
    result = run_builder(env, user="unprivileged", tools=buildkit)
    assert result.code == 0, result.output
    assert result.stderr.count(WARNING) == 1
    assert result.stderr.count("cache-not-usable") == 1
    assert "2 of 2 cached" in result.stderr
    assert state(roots.cache) == before


def test_a_cache_that_is_mounted_read_only(
    workspace: MakeWorkspace, run_builder: RunBuilder
) -> None:
    place = workspace("root")
    env = prepare(place)
    assert run_builder(env, user="root").code == 0
    cache = str(place.cache)
    if subprocess.run(
        ["mount", "--bind", cache, cache], capture_output=True, check=False
    ).returncode:
        pytest.skip("nothing can be mounted here")
    try:
        subprocess.run(["mount", "-o", "remount,ro,bind", cache], check=True)
        result = run_builder(env, user="root")
        none = run_builder({**env, "PLP_NO_CACHE": "true"}, user="root")
    finally:
        subprocess.run(["umount", cache], check=True)
    assert result.code == 0, result.output
    assert result.stderr.count(WARNING) == 1
    assert "2 of 2 cached" in result.stderr
    assert none.code == 0, none.output
    assert "0 of 2 cached" in none.stderr
    assert none.stderr.count("cannot be written: this build keeps nothing") == 1
