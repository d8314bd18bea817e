"""Which builds share an entry of the portable cache."""

from __future__ import annotations

import re

import pytest

from plp_builder.cache.identity import identity
from plp_builder.settings import load

GIVEN = {
    "GIT_REPOSITORY_URL": "https://example.com/team/app.git",
    "PLP_SOURCE_PATH": "/source",
    "PLP_CONTEXT": "service",
    "PLP_DOCKERFILE": "Containerfile",
    "PLP_TARGET": "release",
    "PLP_PLATFORMS": "linux/amd64",
    "PLP_IMAGE": "example.com/app:1",
}


def tag(changes: dict[str, str] | None = None, dockerfile: bytes = b"FROM scratch") -> str:
    return identity(load(GIVEN | (changes or {})), dockerfile)


def test_a_tag_is_legal_and_tells_nothing() -> None:
    assert re.fullmatch(r"[a-z0-9-]{8,64}", tag())
    assert "app" not in tag()


@pytest.mark.parametrize(
    ("variable", "value"),
    [
        ("GIT_REPOSITORY_URL", "https://example.com/team/other.git"),
        ("PLP_CONTEXT", "other"),
        ("PLP_DOCKERFILE", "Dockerfile"),
        ("PLP_TARGET", "test"),
        ("PLP_PLATFORMS", "linux/arm64"),
        ("PLP_PLATFORMS", "linux/amd64,linux/arm64"),
    ],
)
def test_another_image_has_another_tag(variable: str, value: str) -> None:
    assert tag({variable: value}) != tag()


@pytest.mark.parametrize(
    ("variable", "value"),
    [
        ("GIT_REPOSITORY_URL", "https://user:token@example.com/team/app.git"),
        ("PLP_SOURCE_PATH", "/elsewhere"),
        ("PLP_IMAGE", "example.com/app:2"),
    ],
)
def test_the_same_repository_has_the_same_tag(variable: str, value: str) -> None:
    assert tag({variable: value}) == tag()
    assert tag(dockerfile=b"FROM other") == tag()


@pytest.mark.parametrize(
    ("variable", "value"), [("PLP_SOURCE_PATH", "/elsewhere"), ("PLP_IMAGE", "example.com/b")]
)
def test_without_a_repository_other_things_tell_images_apart(variable: str, value: str) -> None:
    without = {"GIT_REPOSITORY_URL": ""}
    assert tag(without) == tag(dict(without))
    assert tag(without | {variable: value}) != tag(without)
    assert tag(without, b"FROM other") != tag(without)


def test_parts_cannot_be_taken_for_each_other() -> None:
    one = tag({"PLP_CONTEXT": "a", "PLP_DOCKERFILE": "b/c"})
    assert one != tag({"PLP_CONTEXT": "a/b", "PLP_DOCKERFILE": "c"})
