"""A file that changed behind an equal size and time is in the next image all the same.

A daemon keeps its copy of the context; every image is compared with that of a daemon without one.
"""

from __future__ import annotations

import json
import os
import random
import struct
import subprocess
import tarfile
import time
from collections.abc import Callable, Iterator, Mapping
from pathlib import Path
from typing import NamedTuple

import pytest

from plp_builder.cache import context
from tests.support import daemon
from tests.support.builder import MakeWorkspace, RunBuilder, Workspace
from tests.support.daemon import Daemon
from tests.support.machine import Tools, User

_YOUNG = 0.05
"""Until files have an age, so that it is not their youth that makes them doubtful."""

TIME = 1_700_000_000_123_456_789
CAPABILITY = ("security.capability", struct.pack("<5I", 0x02000001, 1 << 10, 0, 0, 0))
DOCKERFILE = """\
FROM scratch AS part
COPY tree/inner /part/
FROM scratch AS whole
COPY --from=extra . /extra/
COPY tree /tree/
FROM scratch AS amd64
COPY tree/one tree/inner/two /
FROM scratch AS arm64
COPY tree/one tree/three /
FROM ${TARGETARCH} AS each
"""


class Kept(NamedTuple):
    """A daemon that keeps its copies, one that never has any, and what is known of the copies."""

    keeping: Daemon
    cold: Daemon
    directory: Path

    def build(
        self,
        source: Path,
        *,
        target: str = "whole",
        rule: bool = True,
        meanwhile: Callable[[Path], None] = lambda _: None,
    ) -> str:
        """The image's digest, from the daemon that keeps copies; they are doubted by the rule.

        ``meanwhile`` happens after the fingerprint is taken and before the daemon reads.
        """
        time.sleep(_YOUNG)
        places = {
            "context": source,
            "dockerfile": source,
            "plp-context-0": source / "extra",
        }
        file = self.directory / "known"
        known, before = context.read(file), context.take(places)
        assert before.problem == ""
        if rule and before.doubt(known):
            known = None
            done = self.keeping.buildctl("prune", "--all", "--filter", "type==source.local")
            assert done.returncode == 0, done.stderr
        file.unlink(missing_ok=True)
        began = context.clock()
        meanwhile(source)
        digest = self._solve(self.keeping, source, target)
        learned = context.learn(known, before, context.take(places), began)
        assert learned is not None
        assert learned.write(file)
        return digest

    def doubt(self, source: Path) -> str:
        """What the rule says of the next build."""
        return context.take({"context": source}).doubt(context.read(self.directory / "known"))

    def from_nothing(self, source: Path, *, target: str = "whole") -> str:
        """The image's digest, from a daemon without any copy."""
        self.cold.forget()
        return self._solve(self.cold, source, target)

    def _solve(self, by: Daemon, source: Path, target: str) -> str:
        metadata = self.directory / "metadata.json"
        by.solve(
            source,
            f"--local=plp-context-0={source / 'extra'}",
            "--opt=context:extra=local:plp-context-0",
            f"--opt=target={target}",
            f"--opt=platform={'linux/amd64,linux/arm64' if target == 'each' else 'linux/amd64'}",
            "--output=type=oci,rewrite-timestamp=true",
            f"--metadata-file={metadata}",
        )
        return str(json.loads(metadata.read_text())["containerimage.digest"])


@pytest.fixture(scope="module", params=["current", "compat"])
def daemons(
    request: pytest.FixtureRequest, tools: Mapping[str, Tools]
) -> Iterator[tuple[Daemon, Daemon]]:
    wanted = tools[request.param]
    with daemon.running(wanted) as keeping, daemon.running(wanted) as cold:
        yield keeping, cold


@pytest.fixture
def kept(daemons: tuple[Daemon, Daemon], tmp_path: Path) -> Kept:
    keeping, cold = daemons
    keeping.forget()
    return Kept(keeping, cold, tmp_path)


@pytest.fixture
def source(tmp_path: Path) -> Path:
    return checkout(tmp_path / "source", "a")


def checkout(root: Path, letter: str) -> Path:
    """A source whose files are all of one size and time, with ``letter`` for content."""
    files = ("one", "two", "three", "inner/one", "inner/two", "inner/deep/one", "other/one")
    for name in files:
        write(root / "tree" / name, letter * 8)
    for name in ("one", "two"):
        write(root / "extra" / name, letter * 8)
    link(root / "tree" / "linked", root / "tree" / "inner" / "two")
    (root / "tree" / "link").symlink_to("one")
    (root / "Dockerfile").write_text(DOCKERFILE)
    return normalise(root)


def normalise(root: Path) -> Path:
    """Give all the same time that have another: no more than that changes."""
    for path in root.rglob("*"):
        if path.lstat().st_mtime_ns != TIME and path.name != "visible":
            os.utime(path, ns=(TIME, TIME), follow_symlinks=False)
    return root


def write(path: Path, data: str) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(data)


def swap(one: Path, other: Path) -> None:
    third = one.with_name("third")
    one.rename(third)
    other.rename(one)
    third.rename(other)


def again(path: Path, data: str) -> None:
    path.unlink()
    write(path, data)


def arrive(path: Path, data: str) -> None:
    new = path.with_name("arriving")
    write(new, data)
    new.rename(path)


def give(path: Path, to: Path, data: str) -> None:
    path.rename(to)
    write(path, data)


def relink(path: Path, target: str) -> None:
    path.unlink()
    path.symlink_to(target)


def link(path: Path, target: Path) -> None:
    path.unlink(missing_ok=True)
    path.hardlink_to(target)


def _swapped(root: Path) -> None:
    write(root / "tree/one", "b" * 8)
    normalise(root)
    swap(root / "tree/one", root / "tree/two")


def _directories(root: Path) -> None:
    write(root / "tree/other/one", "b" * 8)
    swap(root / "tree/other", root / "tree/inner")


def _second_name(root: Path) -> None:
    write(root / "tree/one", "b" * 8)
    link(root / "tree/two", root / "tree/one")


CASES: dict[str, Callable[[Path], None]] = {
    "content": lambda root: write(root / "tree/one", "b" * 8),
    "content of a named context": lambda root: write(root / "extra/one", "b" * 8),
    "mode": lambda root: (root / "tree/one").chmod(0o755),
    "link target": lambda root: relink(root / "tree/link", "two"),
    "renamed": lambda root: arrive(root / "tree/one", "b" * 8),
    "swapped": _swapped,
    "directories swapped": _directories,
    "deleted and made again": lambda root: again(root / "tree/one", "b" * 8),
    "a second name": _second_name,
    "one of two names": lambda root: again(root / "tree/linked", "b" * 8),
    "content of two names": lambda root: write(root / "tree/linked", "b" * 8),
    "a longer file of two names": lambda root: write(root / "tree/linked", "b" * 9),
    "capability": lambda root: os.setxattr(root / "tree/one", *CAPABILITY),
    "capability of a directory": lambda root: os.setxattr(root / "tree/inner", *CAPABILITY),
}
HARMLESS = {"mode", "link target", "one of two names", "a longer file of two names", "capability"}
"""What BuildKit sees itself; and it loses a file's capabilities as it writes its content."""


@pytest.mark.parametrize("case", CASES)
def test_the_image_is_that_of_a_daemon_without_a_copy(kept: Kept, source: Path, case: str) -> None:
    kept.build(source)
    CASES[case](source)
    normalise(source)
    cold = kept.from_nothing(source)
    assert kept.build(source) == cold
    assert kept.build(source) == cold


@pytest.mark.parametrize("case", sorted(CASES.keys() - HARMLESS))
def test_without_the_rule_the_image_is_stale(kept: Kept, source: Path, case: str) -> None:
    """What the rule is for: as soon as BuildKit sees such a change itself, it can go."""
    kept.build(source)
    CASES[case](source)
    normalise(source)
    assert kept.build(source, rule=False) != kept.from_nothing(source)


def test_an_unchanged_context_is_not_sent_again(kept: Kept, source: Path) -> None:
    kept.build(source)
    assert kept.doubt(source) == ""
    write(source / "tree/one", "b" * 8)
    assert kept.doubt(source) == ""
    kept.build(source)
    assert kept.doubt(source) == ""


def test_another_checkout_moved_to_the_same_path(kept: Kept, source: Path, tmp_path: Path) -> None:
    other = checkout(tmp_path / "other", "b")
    kept.build(source)
    swap(source, other)
    assert kept.build(source) == kept.from_nothing(source)
    swap(source, other)
    assert kept.build(source) == kept.from_nothing(source)


def test_another_checkout_mounted_at_the_same_path(
    kept: Kept, source: Path, tmp_path: Path
) -> None:
    other = checkout(tmp_path / "other", "b")
    first = kept.build(source)
    subprocess.run(["mount", "--bind", other, source], check=True)
    try:
        second = kept.build(source)
        assert second == kept.from_nothing(source)
    finally:
        subprocess.run(["umount", source], check=True)
    assert first != second
    assert kept.build(source) == first


@pytest.mark.parametrize("targets", [("whole", "whole"), ("whole", "part"), ("part", "whole")])
def test_two_projects_in_turn(
    kept: Kept, source: Path, tmp_path: Path, targets: tuple[str, str]
) -> None:
    projects = dict(zip((source, checkout(tmp_path / "other", "b")), targets, strict=True))
    cold = {path: kept.from_nothing(path, target=target) for path, target in projects.items()}
    for _ in range(2):
        for path, target in projects.items():
            assert kept.build(path, target=target) == cold[path]


def test_another_target_in_between(kept: Kept, source: Path) -> None:
    """It needs other files, and BuildKit drops from its copy what no step asks for."""
    kept.build(source)
    write(source / "tree/one", "b" * 8)
    normalise(source)
    kept.build(source, target="part")
    write(source / "tree/inner/one", "c" * 8)
    normalise(source)
    assert kept.build(source) == kept.from_nothing(source)
    assert kept.build(source, target="part") == kept.from_nothing(source, target="part")


def test_a_copy_of_an_earlier_build(kept: Kept, source: Path) -> None:
    """Platforms that need other files have a copy each, and one platform alone renews one."""

    def change(letter: str, time: int) -> None:
        write(source / "tree/one", letter * 8)
        os.utime(source / "tree/one", ns=(time, time))

    kept.build(source, target="each")
    change("b", TIME + 1)
    kept.build(source, target="amd64")
    kept.build(source, target="amd64")
    change("c", TIME)
    assert kept.build(source, target="each") == kept.from_nothing(source, target="each")


def test_a_file_that_changes_while_the_image_is_built(kept: Kept, source: Path) -> None:
    """The copy has what the fingerprint never saw."""

    def change(root: Path, letter: str) -> None:
        write(root / "tree/one", letter * 8)
        os.utime(root / "tree/one", ns=(TIME + 1, TIME + 1))

    kept.build(source, meanwhile=lambda root: change(root, "b"))
    change(source, "c")
    assert kept.build(source) == kept.from_nothing(source)


def mutate(root: Path, dice: random.Random, data: str) -> str:
    """Change the source at random; what was done comes back."""
    files = sorted(
        path
        for path in (*(root / "tree").rglob("*"), *(root / "extra").rglob("*"))
        if path.is_file() and not path.is_symlink() and path.name != "visible"
    )
    one, other = dice.sample(files, 2)
    actions: dict[str, Callable[[], object]] = {
        "content": lambda: write(one, data),
        "longer": lambda: write(one, data + data),
        "made again": lambda: again(one, data),
        "renamed": lambda: arrive(one, data),
        "replaced": lambda: give(other, one, data),
        "swapped": lambda: swap(one, other),
        "directories": lambda: swap(root / "tree/inner", root / "tree/other"),
        "linked": lambda: link(one, other),
        "link target": lambda: relink(root / "tree/link", dice.choice(["one", "two"])),
        "mode": lambda: one.chmod(dice.choice([0o644, 0o755, 0o600])),
        "capability": lambda: os.setxattr(one.parent, *CAPABILITY),
        "new": lambda: write(one.with_name(f"new{dice.randrange(3)}"), data),
    }
    done = [dice.choice(sorted(actions)) for _ in range(dice.choice([1, 1, 1, 2]))]
    for name in done:
        if one.exists() and other.exists():
            actions[name]()
    return f"{done} {one.relative_to(root)} {other.relative_to(root)}"


@pytest.mark.parametrize("rounds", [12, pytest.param(200, marks=pytest.mark.soak)])
def test_random_changes_with_equal_sizes_and_times(kept: Kept, source: Path, rounds: int) -> None:
    """Each round also changes a file that BuildKit sees: no layer is one of an earlier round.

    BuildKit takes a layer from its cache whose files differ only in which of them are links.
    """
    dice = random.Random(rounds)  # noqa: S311 - the same rounds every time
    done = []
    for number in range(rounds):
        done.append(mutate(source, dice, f"{number:08d}"))
        write(source / "tree/inner/visible", str(number))
        write(source / "extra/visible", str(number))
        normalise(source)
        if dice.random() < 0.25:
            kept.build(source, target="part")
        assert kept.build(source) == kept.from_nothing(source), done


READ_WHOLE = "the build context is read whole"
RECALLED = "nothing to solve"


class Builder(NamedTuple):
    """The whole builder, with a workspace of one user."""

    run: RunBuilder
    place: Workspace

    def build(self, strategy: str) -> tuple[str, str]:
        """The image's digest and the log."""
        env = {
            **self.place.env,
            "PLP_CACHE_STRATEGY": strategy,
            "PLP_DEBUG": "true",
            "PLP_BUILD_CONTEXTS": f"extra={self.place.source / 'extra'}",
            "PLP_TARGET": "whole",
            "SOURCE_DATE_EPOCH": "1",
        }
        if strategy == "off":
            del env["PLP_CACHE_PATH"]
        done = self.run(env, user=self.place.owner)
        assert done.code == 0, done.output
        with tarfile.open(self.place.archive) as tar:
            index = tar.extractfile("index.json")
            assert index is not None
            (entry,) = json.load(index)["manifests"]
        return str(entry["digest"]), done.output


@pytest.fixture
def whole(run_builder: RunBuilder, workspace: MakeWorkspace, user: User) -> Builder:
    place = workspace(user)
    checkout(place.source, "a")
    return Builder(run_builder, place)


def test_the_builder_sends_an_unchanged_context_once(whole: Builder) -> None:
    whole.build("state")
    time.sleep(_YOUNG)
    digest, log = whole.build("state")
    assert READ_WHOLE not in log
    write(whole.place.source / "tree/one", "b" * 8)
    normalise(whole.place.source)
    other, log = whole.build("state")
    assert READ_WHOLE in log
    assert "tree/one looks unchanged, but is not" in log
    assert other == whole.build("off")[0]
    assert other != digest
    assert READ_WHOLE not in whole.build("state")[1]


def times(root: Path) -> dict[Path, tuple[int, int]]:
    """What is there, with what nobody can set back."""
    return {path: (path.lstat().st_ino, path.lstat().st_ctime_ns) for path in root.rglob("*")}


@pytest.mark.parametrize("rounds", [4, pytest.param(200, marks=pytest.mark.soak)])
def test_random_changes_before_the_whole_builder(whole: Builder, rounds: int) -> None:
    """After each one a build without a change, and after every other a change that none sees."""
    source = whole.place.source
    dice = random.Random(rounds)  # noqa: S311 - the same rounds every time
    done = []
    recalled = 0
    for number in range(rounds):
        done.append(mutate(source, dice, f"{number:08d}"))
        write(source / "tree/inner/visible", str(number))
        write(source / "extra/visible", str(number))
        normalise(source)
        cold = whole.build("off")[0]
        assert whole.build("state")[0] == cold, done
        again, log = whole.build("state")
        assert again == cold, done
        recalled += RECALLED in log
        if number % 2:
            before = times(source)
            done.append(mutate(source, dice, f"{number:08d}"))
            normalise(source)
            assert (RECALLED in whole.build("state")[1]) <= (times(source) == before), done
    assert recalled >= 0.8 * rounds  # after ten solves there is something else to ask
