"""The paths of the contract, on real directories."""

from __future__ import annotations

import errno
import os
import stat
from pathlib import Path

import pytest

from plp_builder import settings
from plp_builder.errors import (
    BuildPathNotWritable,
    CachePathNotUsable,
    ContextNotUsable,
    Failure,
    SourcePathNotUsable,
)
from plp_builder.preflight import paths, trials
from plp_builder.preflight.cache_path import check_cache
from plp_builder.preflight.finding import Finding, show
from plp_builder.preflight.paths import Paths, check_paths


class Tree:
    """A source, a build and a cache directory, and the variables that name them."""

    def __init__(self, root: Path) -> None:
        self.root = root
        self.source, self.build, self.cache = root / "s", root / "b", root / "c"
        self.source.mkdir()
        self.build.mkdir()
        (self.source / "Dockerfile").write_text("FROM scratch\n")

    def check(self, **environ: str) -> Paths:
        given = {
            "PLP_SOURCE_PATH": str(self.source),
            "PLP_BUILD_PATH": str(self.build),
            "PLP_CACHE_PATH": str(self.cache),
            **environ,
        }
        return check_paths(settings.load(given))

    def failure(self, kind: type[Failure], **environ: str) -> Failure:
        with pytest.raises(Failure) as caught:
            self.check(**environ)
        assert type(caught.value) is kind
        return caught.value


@pytest.fixture
def tree(tmp_path: Path) -> Tree:
    return Tree(tmp_path.resolve())


def refuse_to_write(monkeypatch: pytest.MonkeyPatch, directory: Path, number: int) -> None:
    """Make every write below ``directory`` fail as a disk or a mount would; root is no help."""

    def probe(where: Path) -> None:
        if where == directory:
            raise OSError(number, os.strerror(number))

    monkeypatch.setattr(trials, "write", probe)


def test_all_is_well(tree: Tree) -> None:
    found = tree.check()
    assert found == Paths(
        source=tree.source,
        context=tree.source,
        dockerfile_dir=tree.source,
        dockerfile_name="Dockerfile",
        build=tree.build,
        cache=tree.cache,
    )
    assert list(tree.build.iterdir()) == []
    assert tree.cache.is_dir()


def test_links_to_the_directories_are_followed(tree: Tree) -> None:
    for name in ("s", "b"):
        (tree.root / f"to-{name}").symlink_to(name)
    found = tree.check(
        PLP_SOURCE_PATH=str(tree.root / "to-s"), PLP_BUILD_PATH=str(tree.root / "to-b")
    )
    assert (found.source, found.build) == (tree.source, tree.build)


@pytest.mark.parametrize(
    ("variable", "kind"),
    [
        ("PLP_SOURCE_PATH", SourcePathNotUsable),
        ("PLP_BUILD_PATH", BuildPathNotWritable),
        ("PLP_CACHE_PATH", CachePathNotUsable),
    ],
)
def test_relative_paths_are_refused(tree: Tree, variable: str, kind: type[Failure]) -> None:
    failure = tree.failure(kind, **{variable: "some/where"})
    assert variable in failure.what
    assert "absolute" in failure.what


@pytest.mark.parametrize(
    ("variable", "kind"),
    [("PLP_SOURCE_PATH", SourcePathNotUsable), ("PLP_BUILD_PATH", BuildPathNotWritable)],
)
def test_missing_directories_and_files_in_their_place(
    tree: Tree, variable: str, kind: type[Failure]
) -> None:
    missing = tree.failure(kind, **{variable: str(tree.root / "none")})
    assert "no such file or directory" in missing.what
    file = tree.root / "file"
    file.touch()
    assert "not a directory" in tree.failure(kind, **{variable: str(file)}).what


def test_context(tree: Tree) -> None:
    (tree.source / "app").mkdir()
    (tree.source / "app/Dockerfile").write_text("FROM scratch\n")
    (tree.source / "link").symlink_to("app")
    for given in ("app", "./app/../app", "link"):
        assert tree.check(PLP_CONTEXT=given).context == tree.source / "app"


@pytest.mark.parametrize(
    "given", ["..", "app/../../b", "out", "../s-2", "/", "none", "Dockerfile", "loop"]
)
def test_context_outside_or_no_directory(tree: Tree, given: str) -> None:
    (tree.source / "app").mkdir()
    (tree.root / "s-2").mkdir()
    (tree.source / "out").symlink_to(tree.build)
    (tree.source / "loop").symlink_to("loop")
    assert "PLP_CONTEXT" in tree.failure(ContextNotUsable, PLP_CONTEXT=given).what


@pytest.mark.parametrize(
    ("number", "advice"),
    [
        (errno.EACCES, "owner"),
        (errno.EROFS, ":ro"),
        (errno.ENOSPC, "space"),
        (errno.EDQUOT, "space"),
        (errno.EIO, "PLP_BUILD_PATH"),
    ],
)
def test_build_directory_does_not_take_a_file(
    tree: Tree, monkeypatch: pytest.MonkeyPatch, number: int, advice: str
) -> None:
    refuse_to_write(monkeypatch, tree.build, number)
    failure = tree.failure(BuildPathNotWritable)
    assert "directory is not writable" in failure.what
    assert advice in failure.hint


def test_build_path_is_not_looked_at_when_nothing_is_written(tree: Tree) -> None:
    assert tree.check(PLP_OUTPUTS="none", PLP_BUILD_PATH="/nowhere/b").build == Path("/nowhere/b")


def test_a_directory_in_the_place_of_the_archive(tree: Tree) -> None:
    (tree.build / "container-image.tar").mkdir()
    assert "is a directory" in tree.failure(BuildPathNotWritable).what
    tree.check(PLP_ARCHIVE_NAME="other.tar")


def test_an_old_archive_stays_as_it_is(tree: Tree) -> None:
    old = tree.build / "container-image.tar"
    old.write_text("old")
    before = old.stat()
    tree.check()
    assert old.stat() == before


def test_an_archive_that_the_sticky_bit_protects(
    tree: Tree, monkeypatch: pytest.MonkeyPatch
) -> None:
    """In a directory like /tmp, a file of somebody else's cannot be replaced."""
    (tree.build / "container-image.tar").touch()
    owner = tree.build.stat().st_uid
    monkeypatch.setattr(os, "geteuid", lambda: owner + 1)
    tree.check()
    tree.build.chmod(0o777 | stat.S_ISVTX)
    assert "sticky" in tree.failure(BuildPathNotWritable).what
    monkeypatch.setattr(os, "geteuid", lambda: owner)
    tree.check()


def test_probe_by_name_where_files_without_a_name_are_not_known(
    tree: Tree, monkeypatch: pytest.MonkeyPatch
) -> None:
    real, names = os.open, []

    def without_tmpfile(path: Path, flags: int, mode: int = 0o777) -> int:
        if flags & os.O_TMPFILE == os.O_TMPFILE:
            raise OSError(errno.EOPNOTSUPP, "Operation not supported")
        names.append(Path(path).parent)
        return real(path, flags, mode)

    monkeypatch.setattr(os, "open", without_tmpfile)
    paths.check_build(tree.build, "a.tar", ("archive",))
    assert names == [tree.build]
    assert list(tree.build.iterdir()) == []


def test_a_full_disk_is_noticed_by_writing(tree: Tree, monkeypatch: pytest.MonkeyPatch) -> None:
    """It still takes an empty file."""

    def full(_descriptor: int, _data: bytes) -> int:
        raise OSError(errno.ENOSPC, "No space left on device")

    monkeypatch.setattr(os, "write", full)
    assert "no space left" in tree.failure(BuildPathNotWritable).what


def test_cache_is_made_with_its_parents(tree: Tree) -> None:
    cache = tree.root / "x/y/z"
    assert tree.check(PLP_CACHE_PATH=str(cache)).cache == cache
    assert cache.is_dir()


def test_a_cache_can_be_checked_without_making_it(
    tree: Tree, monkeypatch: pytest.MonkeyPatch
) -> None:
    cache = tree.root / "x/y"
    assert check_cache(cache, make=False) == (cache, None)
    assert not (tree.root / "x").exists()
    refuse_to_write(monkeypatch, tree.root, errno.EROFS)
    found, warning = check_cache(cache, make=False)
    assert found is None
    assert warning is not None
    tree.cache.mkdir()
    assert check_cache(tree.cache, make=False) == (tree.cache, None)


@pytest.mark.parametrize("kind", ["file", "dangling link"])
def test_what_a_build_could_not_make_a_cache_of(tree: Tree, kind: str) -> None:
    path = tree.root / "odd"
    path.touch() if kind == "file" else path.symlink_to("nothing")
    for given in (path, path / "below"):
        for make in (False, True):
            with pytest.raises(CachePathNotUsable):
                check_cache(given, make=make)


@pytest.mark.parametrize(
    ("given", "meant"),
    [
        ("examples/hello", "/here/examples/hello"),
        ("./a/../b", "/here/b"),
        ("..", "/"),
        ("~/cache", "/home/me/cache"),
        ("~", "/home/me"),
        ("~other/a", "/here/~other/a"),
        ("a/~/b", "/here/a/~/b"),
    ],
)
def test_what_a_relative_path_most_likely_means(given: str, meant: str) -> None:
    assert trials.whole(given, "/here", "/home/me") == meant


def test_the_hint_of_a_relative_path_can_be_pasted(
    tree: Tree, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tree.root)
    failure = tree.failure(SourcePathNotUsable, PLP_SOURCE_PATH="s/../s")
    assert f"PLP_SOURCE_PATH={tree.source}." in failure.hint


def test_no_cache_directory_when_caching_is_off(tree: Tree) -> None:
    assert tree.check(PLP_CACHE_STRATEGY="off").cache is None
    assert not tree.cache.exists()


@pytest.mark.parametrize("below", ["", "/below"])
def test_a_file_is_no_cache(tree: Tree, below: str) -> None:
    tree.cache.touch()
    tree.failure(CachePathNotUsable, PLP_CACHE_PATH=f"{tree.cache}{below}")


@pytest.mark.parametrize("number", [errno.EROFS, errno.EACCES, errno.ENOSPC])
def test_an_unwritable_cache_costs_a_warning(
    tree: Tree, monkeypatch: pytest.MonkeyPatch, number: int
) -> None:
    tree.cache.mkdir()
    refuse_to_write(monkeypatch, tree.cache, number)
    found = tree.check()
    assert found.cache is None
    (warning,) = found.findings
    assert (warning.name, warning.ok) == ("cache path", None)


@pytest.mark.parametrize("number", [errno.EROFS, errno.EACCES])
def test_a_cache_that_can_only_be_read_is_used(
    tree: Tree, monkeypatch: pytest.MonkeyPatch, number: int
) -> None:
    """What warns of it during a build is the cache; the finding is for the doctor."""
    (tree.cache / "buildkit").mkdir(parents=True)
    (tree.cache / "buildkit/index.json").touch()
    refuse_to_write(monkeypatch, tree.cache, number)
    found = tree.check()
    assert (found.cache, found.findings) == (tree.cache, ())
    path, finding = check_cache(tree.cache)
    assert path == tree.cache
    assert finding is not None
    assert "builds import from it and keep nothing" in finding.text


def test_a_cache_that_cannot_be_made_costs_a_warning(tree: Tree) -> None:
    name = "n" * 300
    found = tree.check(PLP_CACHE_PATH=str(tree.root / name))
    assert found.cache is None
    assert len(found.findings) == 1


def test_build_and_cache_inside_the_context_are_warned_about(tree: Tree) -> None:
    found = tree.check(PLP_BUILD_PATH=str(tree.source), PLP_CACHE_PATH=str(tree.source / ".cache"))
    assert [(finding.name, finding.ok) for finding in found.findings] == [
        ("build path", None),
        ("cache path", None),
    ]


def test_build_inside_the_source_but_not_the_context(tree: Tree) -> None:
    (tree.source / "app").mkdir()
    (tree.source / "out").mkdir()
    (tree.source / "app/Dockerfile").write_text("FROM scratch\n")
    found = tree.check(PLP_CONTEXT="app", PLP_BUILD_PATH=str(tree.source / "out"))
    assert found.findings == ()


@pytest.mark.parametrize(
    ("path", "shown"),
    [("/a b/ü", "/a b/ü"), ("/a\nb\x1b", "/a\\nb\\x1b"), ("/\udcff", "/\\udcff")],
)
def test_paths_are_safe_to_print(path: str, shown: str) -> None:
    assert show(path) == shown


def test_a_finding_needs_no_hint() -> None:
    assert Finding("a", True, "b").hint == ""
