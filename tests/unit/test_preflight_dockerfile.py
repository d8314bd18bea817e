"""The Dockerfile: where it may be, what it may be, and what is told when it is not there."""

from __future__ import annotations

import os
from pathlib import Path

import pytest

from plp_builder.errors import DockerfileNotFound, DockerfileNotUsable, Failure
from plp_builder.preflight import dockerfile
from plp_builder.preflight.dockerfile import Copy
from plp_builder.preflight.paths import Paths, stage

FROM = b"FROM scratch\n"


class Source:
    """A source directory; the context is the source itself unless another is named."""

    def __init__(self, root: Path) -> None:
        self.path = root / "source"
        self.outside = root / "outside"
        self.path.mkdir()
        self.outside.mkdir()

    def put(self, name: str, content: bytes = FROM) -> Path:
        path = self.path / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_bytes(content)
        return path

    def link(self, name: str, target: str | Path) -> None:
        (self.path / name).symlink_to(target)

    def find(self, name: str = "Dockerfile", context: str = "") -> dockerfile.Dockerfile:
        return dockerfile.find(self.path, self.path / context, Path(name))

    def failure(self, kind: type[Failure], name: str = "Dockerfile", context: str = "") -> Failure:
        with pytest.raises(Failure) as caught:
            self.find(name, context)
        assert type(caught.value) is kind
        return caught.value


@pytest.fixture
def source(tmp_path: Path) -> Source:
    return Source(tmp_path.resolve())


def test_a_plain_one_is_read_where_it_is(source: Source) -> None:
    source.put("Dockerfile")
    found = source.find()
    assert (found.directory, found.name, found.copies) == (source.path, "Dockerfile", ())


def test_in_a_directory_of_its_own(source: Source) -> None:
    source.put("docker/prod.Dockerfile")
    found = source.find("docker/prod.Dockerfile")
    assert (found.directory, found.name) == (source.path / "docker", "prod.Dockerfile")
    assert found.copies == ()


def test_above_the_context_but_inside_the_source(source: Source) -> None:
    source.put("Dockerfile")
    (source.path / "app").mkdir()
    assert source.find("../Dockerfile", "app").directory == source.path


def test_missing(source: Source) -> None:
    failure = source.failure(DockerfileNotFound)
    assert failure.what == f"Dockerfile not found: {source.path}/Dockerfile"
    assert "PLP_DOCKERFILE" in failure.hint


@pytest.mark.parametrize(
    ("there", "wanted", "hint"),
    [
        (["docker/Dockerfile"], "Dockerfile", "found docker/Dockerfile: set PLP_DOCKERFILE="),
        (["dockerfile"], "Dockerfile", "found dockerfile: set PLP_DOCKERFILE=dockerfile"),
        (["Containerfile"], "Dockerfile", "found Containerfile"),
        (["Dockerfile.prod"], "Dockerfile", "found Dockerfile.prod"),
        (["app.Dockerfile"], "Dockerfile", "found app.Dockerfile"),
        (["a/b/Dockerfile"], "Dockerfile", "found a/b/Dockerfile"),
        (["x/Dockerfile", "dockerfile"], "Dockerfile", "found dockerfile, x/Dockerfile:"),
        (["Dockerfile"], "docker/Dockerfile", "set PLP_DOCKERFILE=Dockerfile"),
        (["BUILD.txt"], "build.txt", "found BUILD.txt"),
        (
            ["docker/Dockerfile"],
            "Dockerfile",
            "PLP_DOCKERFILE=docker/Dockerfile, or PLP_CONTEXT=docker if its files are meant",
        ),
        (["a/prod.dockerfile"], "Dockerfile", "or PLP_CONTEXT=a and PLP_DOCKERFILE=prod.dockerf"),
        (["a/Dockerfile"], "b/Dockerfile", "or PLP_CONTEXT=a and PLP_DOCKERFILE=Dockerfile if"),
    ],
)
def test_near_misses(source: Source, there: list[str], wanted: str, hint: str) -> None:
    for name in there:
        source.put(name)
    assert hint in source.failure(DockerfileNotFound, wanted).hint


def test_what_is_no_near_miss(source: Source) -> None:
    for name in ("a/b/c/Dockerfile", ".git/Dockerfile", "Dockerfile.dockerignore", "main.py"):
        source.put(name)
    for name in (
        "preflight/dockerfile.py",
        "Dockerfile.md",
        "Dockerfile.prod.bak",
        "Dockerfile.x~",
    ):
        source.put(name)
    assert "found" not in source.failure(DockerfileNotFound).hint


def test_a_near_miss_beside_it_suggests_no_other_context(source: Source) -> None:
    source.put("Containerfile")
    assert "PLP_CONTEXT" not in source.failure(DockerfileNotFound).hint


def test_another_context_is_suggested_as_seen_from_the_source(source: Source) -> None:
    source.put("app/docker/Dockerfile")
    with pytest.raises(DockerfileNotFound) as caught:
        source.find("Dockerfile", "app")
    assert "PLP_DOCKERFILE=docker/Dockerfile, or PLP_CONTEXT=app/docker if" in caught.value.hint


def test_many_near_misses_are_counted(source: Source) -> None:
    for number in range(9):
        source.put(f"service-{number}/Dockerfile")
    assert "(and 6 more)" in source.failure(DockerfileNotFound).hint


def test_the_search_for_near_misses_ends(source: Source) -> None:
    for number in range(2100):
        (source.path / f"n{number:04}").touch()
    source.put("z/Dockerfile")
    source.failure(DockerfileNotFound)


def test_absolute(source: Source) -> None:
    path = source.put("Dockerfile")
    source.failure(DockerfileNotUsable, str(path))


def test_a_link_inside_the_source_is_copied(source: Source) -> None:
    """BuildKit would not follow it out of the directory of the link."""
    source.put("docker/real")
    source.link("Dockerfile", "docker/real")
    found = source.find()
    assert (found.directory, found.name) == (source.path, "Dockerfile")
    assert found.copies == (Copy(source.path / "docker/real", "Dockerfile"),)


def test_an_own_ignore_file_goes_with_the_link(source: Source) -> None:
    """It stands beside the link, whose name it bears."""
    source.put("docker/real")
    source.put("docker/real.dockerignore", b"wrong")
    own = source.put("Dockerfile.dockerignore", b"right")
    source.link("Dockerfile", "docker/real")
    assert source.find().copies[1:] == (Copy(own, "Dockerfile.dockerignore"),)


def test_a_directory_that_is_a_link_needs_no_copy(source: Source) -> None:
    source.put("real/Dockerfile")
    source.link("docker", "real")
    found = source.find("docker/Dockerfile")
    assert (found.directory, found.copies) == (source.path / "real", ())


@pytest.mark.parametrize("name", ["Docker file", "Dockerfile[1]", "D*", "?", "Dockerfilé", "-x"])
def test_a_name_that_buildkit_takes_for_a_pattern_is_copied(source: Source, name: str) -> None:
    path = source.put(name)
    ignore = source.put(f"{name}.dockerignore", b"")
    assert source.find(name).copies == (
        Copy(path, "Dockerfile"),
        Copy(ignore, "Dockerfile.dockerignore"),
    )


@pytest.mark.parametrize("name", ["Dockerfile.dockerignore", ".dockerignore"])
def test_an_ignore_file_that_is_a_link_is_copied(source: Source, name: str) -> None:
    """BuildKit would silently ignore it, and send what it should not."""
    path = source.put("Dockerfile")
    target = source.put("docker/ignored", b"secret\n")
    source.link(name, target)
    assert source.find().copies == (
        Copy(path, "Dockerfile"),
        Copy(target, "Dockerfile.dockerignore"),
    )


def test_an_own_ignore_file_comes_before_the_context_s(source: Source) -> None:
    source.put("Dockerfile")
    source.put("Dockerfile.dockerignore", b"")
    source.put("other", b"")
    source.link(".dockerignore", "other")
    assert source.find().copies == ()


def test_an_ignore_file_that_leads_nowhere_is_told(source: Source) -> None:
    source.put("Dockerfile")
    source.link(".dockerignore", "none")
    (finding,) = source.find().findings
    assert finding.ok is None
    assert ".dockerignore" in finding.text


def test_an_ignore_file_outside_the_source_is_refused(source: Source) -> None:
    source.put("Dockerfile")
    (source.outside / "ignore").touch()
    source.link(".dockerignore", source.outside / "ignore")
    assert "leads out" in source.failure(DockerfileNotUsable).what


def test_an_ignore_file_that_is_no_file_is_refused(source: Source) -> None:
    source.put("Dockerfile")
    (source.path / ".dockerignore").mkdir()
    assert "a directory" in source.failure(DockerfileNotUsable).what


@pytest.mark.parametrize("target", ["../outside/Dockerfile", "/etc/hostname", "/dev/null"])
def test_a_link_out_of_the_source(source: Source, target: str) -> None:
    (source.outside / "Dockerfile").write_bytes(FROM)
    source.link("Dockerfile", target)
    assert "leads out of the source directory" in source.failure(DockerfileNotUsable).what


def test_a_way_out_of_the_source(source: Source) -> None:
    (source.outside / "Dockerfile").write_bytes(FROM)
    source.failure(DockerfileNotUsable, "../outside/Dockerfile")


def test_a_link_to_a_neighbour_with_the_same_beginning(source: Source) -> None:
    """/x/source-2 is not inside /x/source."""
    neighbour = source.path.with_name("source-2")
    neighbour.mkdir()
    (neighbour / "Dockerfile").write_bytes(FROM)
    source.link("Dockerfile", neighbour / "Dockerfile")
    source.failure(DockerfileNotUsable)


def test_a_link_to_nothing(source: Source) -> None:
    source.link("Dockerfile", "gone")
    failure = source.failure(DockerfileNotFound)
    assert "Dockerfile not found" in failure.what
    assert "a link to gone" in failure.what


def test_a_loop(source: Source) -> None:
    source.link("Dockerfile", "other")
    source.link("other", "Dockerfile")
    assert "leads back to itself" in source.failure(DockerfileNotUsable).what


def test_a_file_in_the_place_of_a_directory(source: Source) -> None:
    source.put("docker")
    source.failure(DockerfileNotFound, "docker/Dockerfile")


def test_a_directory(source: Source) -> None:
    source.put("docker/Dockerfile")
    failure = source.failure(DockerfileNotUsable, "docker")
    assert "a directory" in failure.what
    assert failure.hint.endswith("set PLP_DOCKERFILE=docker/Dockerfile")


@pytest.mark.timeout(20)
def test_a_fifo_is_refused_without_waiting_for_a_writer(source: Source) -> None:
    os.mkfifo(source.path / "Dockerfile")
    assert "named pipe" in source.failure(DockerfileNotUsable).what


@pytest.mark.timeout(20)
def test_a_fifo_that_appears_after_the_look(source: Source) -> None:
    os.mkfifo(source.path / "Dockerfile")
    with pytest.raises(DockerfileNotUsable):
        dockerfile.read(source.path / "Dockerfile")


@pytest.mark.parametrize("content", [b"", b" \n\t\n"])
def test_an_empty_one(source: Source, content: bytes) -> None:
    source.put("Dockerfile", content)
    assert "is empty" in source.failure(DockerfileNotUsable).what


def test_a_large_one(source: Source) -> None:
    source.put("Dockerfile", b"#" * (dockerfile.MAX_SIZE + 1))
    assert "larger than 4 MiB" in source.failure(DockerfileNotUsable).what


def test_a_name_that_is_too_long(source: Source) -> None:
    source.failure(DockerfileNotUsable, "D" * 300)


def test_an_unreadable_one(source: Source, monkeypatch: pytest.MonkeyPatch) -> None:
    """Root can read everything, so the refusal is played."""
    source.put("Dockerfile")

    def denied(*_: object) -> int:
        raise PermissionError(13, "Permission denied")

    monkeypatch.setattr(os, "open", denied)
    assert "permission denied" in source.failure(DockerfileNotUsable).what


@pytest.mark.parametrize(
    ("content", "image"),
    [
        (b"# syntax=docker/dockerfile:1\nFROM x", "docker/dockerfile:1"),
        (b"#syntax = docker/dockerfile:1 \nFROM x", "docker/dockerfile:1"),
        (b"# syntax=docker/dockerfile:1 --flag\nFROM x", "docker/dockerfile:1"),
        (b"# SYNTAX=a/b\r\nFROM x", "a/b"),
        (b"\xef\xbb\xbf# syntax=a/b\nFROM x", "a/b"),
        (b"#!/usr/bin/env x\n# syntax=a/b\nFROM x", "a/b"),
        (b"# escape=`\n# syntax=a/b\nFROM x", "a/b"),
        (b"// syntax=a/b\nFROM x", "a/b"),
        (b"FROM x\n# syntax=a/b", ""),
        (b"\n# syntax=a/b\nFROM x", ""),
        (b"# a comment\n# syntax=a/b\nFROM x", ""),
        (b"# unknown=x\n# syntax=a/b\nFROM x", ""),
        (b"FROM x", ""),
        (b"", ""),
    ],
)
def test_syntax_line(content: bytes, image: str) -> None:
    assert dockerfile.syntax(content) == image


def made(source: Source, *copies: Copy) -> Paths:
    return Paths(
        source=source.path,
        context=source.path,
        dockerfile_dir=source.path,
        dockerfile_name="a b",
        build=source.outside,
        cache=None,
        copies=copies,
    )


def test_stage_copies_and_points_there(source: Source, tmp_path: Path) -> None:
    there = tmp_path / "runtime"
    there.mkdir()
    copies = (
        Copy(source.put("a b"), "Dockerfile"),
        Copy(source.put("i", b"x\n"), "Dockerfile.dockerignore"),
    )
    staged = stage(made(source, *copies), there)
    assert (staged.dockerfile_dir, staged.dockerfile_name) == (there, "Dockerfile")
    assert staged.context == source.path
    assert (there / "Dockerfile").read_bytes() == FROM
    assert (there / "Dockerfile.dockerignore").read_bytes() == b"x\n"


def test_stage_has_nothing_to_do(source: Source, tmp_path: Path) -> None:
    paths = made(source)
    assert stage(paths, tmp_path / "none") is paths


def test_stage_does_not_follow_a_link_that_came_in_between(source: Source, tmp_path: Path) -> None:
    source.put("real")
    source.link("a b", "real")
    with pytest.raises(DockerfileNotUsable):
        stage(made(source, Copy(source.path / "a b", "Dockerfile")), tmp_path)
