"""What a build sees of the portable cache."""

from __future__ import annotations

from pathlib import Path

import pytest

from plp_builder import log
from plp_builder.cache import merging, portable
from plp_builder.cache.identity import identity
from plp_builder.errors import CacheNotUsable, Failure
from plp_builder.preflight.paths import Paths
from plp_builder.settings import Settings, load
from tests.support.cache import Cache, export, no_check


@pytest.fixture
def paths(tmp_path: Path) -> Paths:
    (tmp_path / "Dockerfile").write_text("FROM scratch\n")
    return Paths(
        source=tmp_path,
        context=tmp_path,
        dockerfile_dir=tmp_path,
        dockerfile_name="Dockerfile",
        build=tmp_path,
        cache=tmp_path / "cache",
    )


@pytest.fixture
def told(monkeypatch: pytest.MonkeyPatch) -> list[Failure]:
    """The warnings, which otherwise go to the log."""
    warnings: list[Failure] = []
    monkeypatch.setattr(portable, "tell", warnings.append)
    return warnings


def given(**variables: str) -> Settings:
    return load({"GIT_REPOSITORY_URL": "https://example.com/app", **variables})


def is_off(cache: portable.BuildCache) -> bool:
    return not cache.imports and cache.export is None


def build(settings: Settings, paths: Paths) -> tuple[int, str]:
    """One build with the cache: how many entries it imports, and the mode it exports with."""
    with portable.opened(settings, paths, no_check) as cache:
        if cache.export is None:
            return len(cache.imports), ""
        staged = cache._staged
        assert staged is not None
        assert staged.directory == cache.export.path
        export(staged, [b"one"])
        cache.keep()
        return len(cache.imports), cache.export.mode


def test_what_one_build_kept_the_next_imports(paths: Paths, told: list[Failure]) -> None:
    settings = given(PLP_CACHE_MODE="min")
    assert build(settings, paths) == (0, "min")
    assert build(settings, paths) == (1, "min")
    assert paths.cache is not None
    assert Cache(paths.cache).tags() == [identity(settings, b"")]
    assert told == []


def test_a_build_from_nothing_imports_nothing_and_is_kept(
    paths: Paths, told: list[Failure]
) -> None:
    build(given(), paths)
    assert build(given(PLP_NO_CACHE="true"), paths) == (0, "max")
    assert told == []


@pytest.mark.parametrize("off", ["strategy", "paths"])
def test_without_a_cache_nothing_is_made(paths: Paths, off: str, told: list[Failure]) -> None:
    assert paths.cache is not None
    place = paths.cache
    if off == "strategy":
        assert build(given(PLP_CACHE_STRATEGY="off"), paths) == (0, "")
    else:
        without = Paths(
            paths.source, paths.context, paths.dockerfile_dir, "Dockerfile", paths.build, None
        )
        assert build(given(), without) == (0, "")
    assert not place.exists()
    assert told == []


def test_a_build_that_fails_leaves_the_cache_as_it_was(paths: Paths, told: list[Failure]) -> None:
    build(given(), paths)
    assert paths.cache is not None
    before = sorted((paths.cache / "buildkit").rglob("*"))
    with pytest.raises(RuntimeError), portable.opened(given(), paths, no_check):
        raise RuntimeError
    assert sorted((paths.cache / "buildkit").rglob("*")) == before


def test_a_dockerfile_that_vanished_costs_the_cache(paths: Paths, told: list[Failure]) -> None:
    (paths.source / "Dockerfile").unlink()
    assert build(given(), paths) == (0, "")
    assert [type(warning) for warning in told] == [CacheNotUsable]


def test_a_cache_that_cannot_be_staged_costs_a_warning(paths: Paths, told: list[Failure]) -> None:
    assert paths.cache is not None
    paths.cache.touch()
    assert build(given(), paths) == (0, "")
    assert [type(warning) for warning in told] == [CacheNotUsable]


def test_a_failure_of_the_cache_is_told_from_a_failure_of_the_build(
    paths: Paths, told: list[Failure]
) -> None:
    with portable.opened(given(), paths, no_check) as cache:
        assert cache.export is not None
        place = cache.export.path
        assert not cache.give_up("error: failed to solve: process did not complete")
        assert cache.export is not None
        assert cache.give_up(f"error: could not open {place}/index.json: is a directory")
        assert is_off(cache)
        assert not place.exists()
        cache.keep()
    assert [type(warning) for warning in told] == [CacheNotUsable]


def test_a_remark_about_the_cache_is_no_failure_of_it(paths: Paths, told: list[Failure]) -> None:
    """On a disk without fs-verity buildctl names the directory in a warning of every build."""
    with portable.opened(given(), paths, no_check) as cache:
        assert cache.export is not None
        remark = f'time="now" level=warning msg="failed check" path={cache.export.path}'
        assert not cache.give_up(f"{remark}\nDockerfile:4\nerror: failed to solve: exit code: 3")
        assert not cache.give_up(remark)
        assert cache.export is not None
    assert told == []


def test_the_bound_is_the_setting(paths: Paths, monkeypatch: pytest.MonkeyPatch) -> None:
    sizes: list[int] = []
    real = merging.keep

    def keep(staged: object, *, max_size: int, **rest: object) -> None:
        sizes.append(max_size)
        real(staged, max_size=max_size, **rest)  # type: ignore[arg-type]

    monkeypatch.setattr(merging, "keep", keep)
    build(given(PLP_CACHE_MAX_SIZE="5MB"), paths)
    assert sizes == [5_000_000]


def test_a_warning_tells_what_why_and_the_next_step(monkeypatch: pytest.MonkeyPatch) -> None:
    said: list[tuple[str, dict[str, object]]] = []
    monkeypatch.setattr(log, "warning", lambda event, **keys: said.append((event, keys)))
    portable.tell(CacheNotUsable("what", why=["a", "b"], hint="next"))
    portable.tell(CacheNotUsable("what", hint=""))
    assert said == [
        ("what", {"name": "cache-not-usable", "why": "a; b", "hint": "next"}),
        ("what", {"name": "cache-not-usable"}),
    ]
