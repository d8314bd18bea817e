"""An unchanged build of nothing that can change unseen asks no daemon; every other one does."""

from __future__ import annotations

import os
import shutil
import subprocess
import time
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from plp_builder.oci import archive
from tests.support import image, machine
from tests.support.builder import MakeWorkspace, Result, RunBuilder, Workspace
from tests.support.kept import Kept, cached
from tests.support.machine import Tools
from tests.support.registry import Registry
from tests.support.site import Site

RECALLED = "nothing to solve"
_AGE = 0.05
"""Seconds after which files are not young any more."""


class Builds:
    """Builds of one project, one after the other, each of which succeeds."""

    def __init__(self, place: Workspace, run: RunBuilder, registry: Registry) -> None:
        self.place = place
        self._run = run
        self._env = {**place.env, **registry.env}

    def write(self, **files: str) -> None:
        self.place.write(files)
        time.sleep(_AGE)

    def __call__(self, **variables: str) -> Result:
        self.place.archive.unlink(missing_ok=True)
        own = "GIT_SHA", "SOURCE_DATE_EPOCH"
        given = {name if name in own else f"PLP_{name}": value for name, value in variables.items()}
        result = self._run({**self._env, **given}, timeout=300)
        assert result.code == 0, result.output
        assert result.left_processes == ()
        assert result.left_files == ()
        with self.place.archive.open("rb") as file:
            archive.verify(file)
        return result

    def recalled(self, **variables: str) -> bool:
        return RECALLED in self(**variables).output

    def file(self, name: str) -> str:
        return image.read(self.place.archive).text(name)


@pytest.fixture
def build(workspace: MakeWorkspace, run_builder: RunBuilder, registry: Registry) -> Builds:
    return Builds(workspace("unprivileged"), run_builder, registry)


@pytest.fixture
def site() -> Iterator[Site]:
    with Site() as found:
        yield found


def digest_of(registry: Registry, name: str) -> str:
    words = [machine.command("crane"), "digest", "--insecure", f"{registry.address}/{name}"]
    return subprocess.run(words, check=True, capture_output=True, text=True).stdout.strip()


CODE = "COPY code /code\n"
FIXED = {
    "a file": "FROM scratch",
    "a local archive": "FROM scratch\nADD code rootfs.tar /",
    "a base": "FROM BASE\nWORKDIR /work\nRUN echo hi >hi",
    "a named base": "ARG B=BASE\nFROM ${B} AS one\nFROM one\nRUN echo hi >/hi",
    "a file of an image": "FROM scratch\nCOPY --from=BASE /etc/passwd /",
    "a mount of an image": "FROM scratch\nRUN --mount=from=BASE,source=/bin,target=/bin echo",
    "a cache mount": "FROM BASE\nRUN --mount=type=cache,target=/m date >/m/date",
    "a script": "FROM BASE\nRUN <<EOF\necho 'ADD http://x /'\n\n: [1/2] FROM a\nEOF",
}


@pytest.mark.parametrize("kind", FIXED)
def test_what_cannot_change_unseen_is_recalled(
    build: Builds, registry: Registry, kind: str
) -> None:
    base = f"busybox@{digest_of(registry, 'library/busybox:latest')}"
    with (build.place.source / "rootfs.tar").open("wb") as file:
        subprocess.run(["tar", "c", "-C", "/etc", "passwd"], stdout=file, check=True)
    build.write(Dockerfile=f"{FIXED[kind].replace('BASE', base)}\n{CODE}", code="one")
    first = build(IMAGE="app/name:1.0")
    assert RECALLED not in first.output
    solved = image.read(build.place.archive)
    assert build.recalled(IMAGE="app/name:1.0")
    again = build(IMAGE="app/name:1.0")
    assert RECALLED in again.output
    recalled = image.read(build.place.archive)
    assert recalled.config == solved.config
    assert recalled.manifest["layers"] == solved.manifest["layers"]
    assert cached(build(IMAGE="app/name:1.0", VERIFY="full")) == cached(again)
    build.write(code="two")
    assert not build.recalled(IMAGE="app/name:1.0")
    assert build.file("code") == "two"


def test_annotations_are_those_asked_for(build: Builds) -> None:
    """Byte for byte as BuildKit would write them."""
    build.write(Dockerfile=f"FROM scratch\n{CODE}", code="one")
    build(ANNOTATIONS="a=1", GIT_SHA="0" * 40)
    for number, more in enumerate(('a=<2> & "two" ü', "a=3", "a=3\nb=4")):
        asked = {"ANNOTATIONS": more, "GIT_SHA": f"{number}" * 40}
        assert build.recalled(**asked) == ("b=4" not in more)
        recalled = image.read(build.place.archive).manifest
        assert not build.recalled(**asked, VERIFY="full")
        solved = image.read(build.place.archive).manifest
        for made in (recalled, solved):
            del made["annotations"]["org.opencontainers.image.created"]
        assert list(recalled["annotations"].items()) == list(solved["annotations"].items())
        assert recalled == solved


def test_a_reproducible_build_is_recalled_to_the_byte(build: Builds) -> None:
    build.write(Dockerfile=f"FROM scratch\n{CODE}", code="one")
    given = "org.opencontainers.image.created=1999-01-01T00:00:00Z"
    asked = {"IMAGE": "app:1", "SOURCE_DATE_EPOCH": "1700000000", "ANNOTATIONS": given}
    build(**asked)
    solved = build.place.archive.read_bytes()
    assert build.recalled(**asked)
    assert build.place.archive.read_bytes() == solved


def test_a_named_context_counts_like_the_context(build: Builds) -> None:
    build.write(Dockerfile="FROM scratch\nCOPY --from=extra file /file\n", code="one")
    build.write(**{"extra/file": "one"})
    asked = {"BUILD_CONTEXTS": f"extra={build.place.source / 'extra'}"}
    build(**asked)
    assert build.recalled(**asked)
    build.write(**{"extra/file": "two"})
    assert not build.recalled(**asked)
    assert build.file("file") == "two"


OPEN = {
    "a tag": "FROM busybox",
    "a tag below a fixed base": "FROM busybox AS one\nFROM BASE\nCOPY --from=one /etc /e",
    "a file of a tag": "FROM scratch\nCOPY --from=busybox /etc/passwd /",
    "a mount of a tag": "FROM BASE\nRUN --mount=from=busybox,target=/m cp /m/etc/passwd /",
    "an address": "FROM scratch\nADD SITE /file",
    "an address in a variable": "FROM scratch\nARG A=SITE\nADD $A /file",
    "an escaped address": 'FROM scratch\nADD ["ESCAPED", "/file"]',
    "an escaped variable": 'FROM scratch\nARG A=SITE\nADD ["\\u0024{A}", "/file"]',
    "a warning": "FROM scratch\nMAINTAINER me",
}


@pytest.mark.parametrize("kind", OPEN)
def test_what_can_change_unseen_is_solved(
    build: Builds, registry: Registry, site: Site, kind: str
) -> None:
    base = f"busybox@{digest_of(registry, 'library/busybox:latest')}"
    text = OPEN[kind].replace("BASE", base).replace("SITE", site.url)
    text = text.replace("ESCAPED", site.url.replace(":", r"\u003a"))
    build.write(Dockerfile=f"{text}\n{CODE}", code="one")
    for _ in range(3):
        assert not build.recalled()


def test_a_base_that_fetches_something_for_its_children(
    build: Builds, registry: Registry, site: Site
) -> None:
    build.write(Dockerfile=f"FROM busybox\nONBUILD ADD {site.url} /file\n", code="one")
    build()
    target = f"docker://{registry.address}/library/parent:latest"
    copy = ["copy", "--dest-tls-verify=false", f"oci-archive:{build.place.archive}", target]
    subprocess.run([machine.command("skopeo"), *copy], check=True, capture_output=True)
    base = f"parent@{digest_of(registry, 'library/parent:latest')}"
    build.write(Dockerfile=f"FROM {base}\n{CODE}")
    for content in (b"one", b"two", b"two"):
        site.content = content
        assert not build.recalled()
        assert build.file("file") == content.decode()


@pytest.fixture
def kept(
    workspace: MakeWorkspace, start_builder: Callable[..., object], tools: dict[str, Tools]
) -> Kept:
    made = Kept(workspace("root"), start_builder, tools["current"])  # type: ignore[arg-type]
    time.sleep(_AGE)
    return made


ASKS = [
    {"VERIFY": "full"},
    {"NO_CACHE": "true"},
    {"PULL": "true"},
    {"PROGRESS": "rawjson"},
    {"LABELS": "a=b"},
    {"BUILD_ARGS": "A=b"},
    {"TARGET": "base"},
    {"COMPRESSION_LEVEL": "1"},
    {"CACHE_STRATEGY": "portable"},
]


@pytest.mark.parametrize("asked", ASKS, ids=lambda asked: next(iter(asked)))
def test_who_asks_for_something_else_gets_it(kept: Kept, asked: dict[str, str]) -> None:
    kept.run()
    assert RECALLED in kept.run().output
    assert RECALLED not in kept.run(**asked).output


def set_back(path: Path, content: str) -> None:
    """Other content of the same size and time."""
    before = path.stat()
    path.write_text(content)
    os.utime(path, ns=(before.st_atime_ns, before.st_mtime_ns))


def come_and_go(path: Path) -> None:
    path.with_name("visitor").write_text("here")
    path.with_name("visitor").unlink()


CHANGES: dict[str, Callable[[Path], object]] = {
    "content": lambda path: set_back(path, "two"),
    "mode": lambda path: path.chmod(0o755),
    "another file": lambda path: path.with_name("other").write_text(""),
    "a visitor": come_and_go,
    "no content": lambda path: path.unlink(),
    "ignored": lambda path: path.with_name(".dockerignore").write_text("nothing\n"),
}


@pytest.mark.parametrize("kind", CHANGES)
def test_after_a_change_it_is_solved_again(kept: Kept, kind: str) -> None:
    code = kept.place.source / "code"
    kept.run()
    CHANGES[kind](code)
    result = kept.start().wait(300)
    assert RECALLED not in result.output
    assert result.code == (1 if kind == "no content" else 0), result.output
    if kind == "content":
        kept.code = "two"
        assert image.read(kept.place.archive).text("code") == "two"


def test_after_a_failure_it_is_solved_again(kept: Kept) -> None:
    """What was seen last is not what was built last."""
    first = kept.built()
    dockerfile = kept.place.source / "Dockerfile"
    text = dockerfile.read_text()
    dockerfile.write_text(f'{text}RUN ["/bin/busybox", "false"]\n')
    time.sleep(_AGE)
    for _ in range(2):
        result = kept.start().wait(300)
        assert result.code == 1
        assert RECALLED not in result.output
    dockerfile.write_text(text)
    time.sleep(_AGE)
    assert RECALLED not in kept.run().output
    assert RECALLED in kept.run().output
    assert kept.built() == first


def test_two_projects_in_turn_are_solved(
    kept: Kept, workspace: MakeWorkspace, start_builder: Callable[..., object]
) -> None:
    other = Kept(workspace("root"), start_builder, kept.tools)  # type: ignore[arg-type]
    other.change("two")
    time.sleep(_AGE)
    shutil.rmtree(other.place.cache)
    other.place.cache.symlink_to(kept.place.cache)
    for _ in range(2):
        for project in (kept, other):
            assert RECALLED not in project.run().output
            assert image.read(project.place.archive).text("code") == project.code


@pytest.mark.parametrize("part", ["buildkit", "state/1/context", "state/1/layout", "state"])
def test_without_a_part_of_the_cache_that_is_made_again(kept: Kept, part: str) -> None:
    first = kept.built()
    path = kept.place.cache / part
    shutil.rmtree(path) if path.is_dir() else path.unlink()
    assert RECALLED not in kept.run().output
    assert path.exists()
    assert kept.built() == first
    assert RECALLED in kept.run().output


def test_a_state_that_is_asked_again_after_many_builds_without_it(kept: Kept) -> None:
    first = kept.built()
    for _ in range(15):
        assert RECALLED in kept.run().output
    kept.change("two")
    result = kept.run()
    assert cached(result) == 3
    kept.change("one")
    assert kept.built() == first


def test_a_state_that_no_daemon_can_open_is_not_needed(kept: Kept) -> None:
    first = kept.built()
    lock = kept.root / "buildkitd.lock"
    lock.unlink()
    lock.mkdir()
    assert RECALLED in kept.run().output
    assert kept.built() == first
    kept.change("two")
    assert kept.built() == kept.cold()


def test_what_the_daemon_would_refuse_is_told(kept: Kept) -> None:
    kept.run()
    config = kept.place.root / "buildkitd.toml"
    config.write_text('[frontend."dockerfile.v0"]\nenabled = false\n')
    result = kept.start(BUILDKITD_CONFIG=str(config)).wait(300)
    assert result.code == 1
    assert RECALLED not in result.output
