"""Which cache mounts a build carries, and what it says of the others."""

from __future__ import annotations

from pathlib import Path

import pytest

from plp_builder import log
from plp_builder.cache import mounts
from plp_builder.cache.mounts import carrier as carrying
from plp_builder.cache.mounts import tool
from plp_builder.cache.mounts.carrier import Carrier
from plp_builder.errors import Failure
from plp_builder.preflight.paths import Paths
from plp_builder.settings import load
from tests.support.cache import no_check

STEP = "RUN --mount=type=cache,target=/a --mount=type=cache,id=b,target=/b make\n"


@pytest.fixture
def told(monkeypatch: pytest.MonkeyPatch) -> list[str]:
    """What the warnings say."""
    said: list[str] = []

    def tell(failure: Failure) -> None:
        said.append(" ".join((failure.what, *failure.why)))

    monkeypatch.setattr(carrying, "tell", tell)
    monkeypatch.setattr(log, "warning", lambda event, **_: said.append(event))
    return said


def carrier_for(place: Path, dockerfile: str, **variables: str) -> Carrier | None:
    (place / "Dockerfile").write_text(dockerfile)
    settings = load({"GIT_REPOSITORY_URL": "https://example.com/app", **variables})
    paths = Paths(place, place, place, "Dockerfile", place, place / "cache")
    return mounts.carrier_for(settings, paths, no_check)


def carried(place: Path, dockerfile: str, **variables: str) -> list[str]:
    carrier = carrier_for(place, dockerfile, **variables)
    assert carrier
    return [mount.id for mount in carrier.mounts]


@pytest.mark.parametrize(
    ("wanted", "expected"),
    [("", []), ("all", ["/a", "b"]), ("ALL", ["/a", "b"]), ("b", ["b"]), ("b,/a", ["/a", "b"])],
)
def test_what_is_named_is_carried(
    wanted: str, expected: list[str], tmp_path: Path, told: list[str]
) -> None:
    assert carried(tmp_path, f"FROM a\n{STEP}", PLP_CACHE_MOUNTS=wanted) == expected
    assert told == []


@pytest.mark.parametrize("dockerfile", ["FROM a\n", "FROM a\nRUN --mount=type=secret,id=x make\n"])
def test_without_cache_mounts_there_is_nothing_to_do(
    dockerfile: str, tmp_path: Path, told: list[str]
) -> None:
    assert carrier_for(tmp_path, dockerfile) is None
    assert told == []


def test_without_a_cache_there_is_nothing_to_do(tmp_path: Path, told: list[str]) -> None:
    assert carrier_for(tmp_path, f"FROM a\n{STEP}", PLP_CACHE_STRATEGY="off") is None
    paths = Paths(tmp_path, tmp_path, tmp_path, "Dockerfile", tmp_path, None)
    assert mounts.carrier_for(load({}), paths, no_check) is None
    assert told == []


def test_what_is_lost_is_told_where_it_is_lost(tmp_path: Path, told: list[str]) -> None:
    carrier = carrier_for(tmp_path, f"FROM a\n{STEP}")
    assert carrier
    carrier.tell(state=True)
    assert told == []
    carrier.tell(state=False)
    assert [text for text in told if "lost" in text] == told != []


def test_who_has_chosen_is_not_told(tmp_path: Path, told: list[str]) -> None:
    carrier = carrier_for(tmp_path, f"FROM a\n{STEP}", PLP_CACHE_MOUNTS="b")
    assert carrier
    carrier.tell(state=False)
    assert told == []


def test_what_cannot_be_carried_is_told(tmp_path: Path, told: list[str]) -> None:
    dockerfile = (
        "FROM a AS x\nRUN --mount=type=cache,id=c$C,target=/a make\n"
        "RUN --mount=type=cache,from=x,target=/f make\n"
        "RUN --mount=type=cache,target=/g make\n"
    )
    assert carried(tmp_path, dockerfile, PLP_CACHE_MOUNTS="/f,/g,/h") == ["/g"]
    (text,) = told
    assert all(part in text for part in ("id=c$C", "/f begins with", "no mount has the id /h"))


def test_build_arguments_and_platforms_count(tmp_path: Path, told: list[str]) -> None:
    dockerfile = (
        "FROM a\nARG X\nARG TARGETPLATFORM\nARG TARGETVARIANT\n"
        "RUN --mount=type=cache,id=$X$TARGETPLATFORM$TARGETVARIANT,target=/a make\n"
    )
    variables = {"PLP_BUILD_ARGS": "X=1", "PLP_PLATFORMS": "linux/arm/v7,linux/arm/v6,linux/arm64"}
    found = carried(tmp_path, dockerfile, PLP_CACHE_MOUNTS="all", **variables)
    assert found == ["1linux/arm/v7v7", "1linux/arm/v6v6", "1linux/arm64"]
    assert told == []


def test_a_namespace_makes_other_mounts_of_them(tmp_path: Path, told: list[str]) -> None:
    keys = set()
    for space in ("", "a", "b"):
        args = {"PLP_BUILD_ARGS": f"BUILDKIT_CACHE_MOUNT_NS={space}"} if space else {}
        carrier = carrier_for(tmp_path, f"FROM a\n{STEP}", PLP_CACHE_MOUNTS="b", **args)
        assert carrier
        keys.add(carrier._key(carrier.mounts[0]))
    assert len(keys) == 3


def test_nothing_waits_where_nothing_was_kept(tmp_path: Path, told: list[str]) -> None:
    carrier = carrier_for(tmp_path, f"FROM a\n{STEP}", PLP_CACHE_MOUNTS="all")
    assert carrier
    assert not carrier.waiting


@pytest.mark.parametrize(
    ("program", "loader"),
    [("/bin/sh", True), ("/usr/bin/python3", True), (__file__, None), ("/dev/null", None)],
)
def test_the_loader_of_a_program(program: str, loader: bool | None) -> None:
    if loader is None:
        with pytest.raises(ValueError, match="ELF"):
            tool._loader(Path(program))
    else:
        assert Path(tool._loader(Path(program))).is_file()
