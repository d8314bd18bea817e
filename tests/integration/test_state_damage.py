"""A damaged state costs time and nothing else: the same image, and a sound state afterwards."""

from __future__ import annotations

import fcntl
import json
import os
import shutil
from collections.abc import Callable
from pathlib import Path

import pytest

from tests.support.builder import MakeWorkspace, StartBuilder
from tests.support.kept import Kept, cached, digest
from tests.support.machine import Tools

MakeKept = Callable[..., Kept]
Damage = Callable[[Path], object]
STEPS = 5
ASIDE = "the daemon's state is put aside"
ANEW = "the daemon's state begins anew"


@pytest.fixture
def make(
    workspace: MakeWorkspace, start_builder: StartBuilder, tools: dict[str, Tools]
) -> MakeKept:
    def made(version: str = "current", user: str = "root") -> Kept:
        return Kept(workspace(user), start_builder, tools[version], user=user)

    return made


def blobs(root: Path) -> list[Path]:
    return list((root / "runc-overlayfs/content/blobs/sha256").iterdir())


def largest(root: Path) -> list[Path]:
    """The largest layer, as it was made and with the times of SOURCE_DATE_EPOCH.

    Which of the two is larger is chance, and so would be which one a build misses.
    """
    sizes = {path: path.stat().st_size for path in blobs(root)}
    return [path for path, size in sizes.items() if size > 0.9 * max(sizes.values())]


def snapshots(root: Path) -> list[Path]:
    return list((root / "runc-overlayfs/snapshots/snapshots").iterdir())


def cut(path: Path, size: int | None = None) -> None:
    os.truncate(path, path.stat().st_size // 2 if size is None else size)


def flip(path: Path) -> None:
    data = bytearray(path.read_bytes())
    for position in range(len(data) // 3, len(data), 1 + len(data) // 7):
        data[position] ^= 0xFF
    path.write_bytes(data)


def zero(path: Path) -> None:
    path.write_bytes(bytes(path.stat().st_size))


def spoil_pages(path: Path) -> None:
    """The headers of all pages of a database but those that tell what it is."""
    data = bytearray(path.read_bytes())
    for position in range(2 * 4096, len(data), 4096):
        data[position : position + 16] = b"\xff" * 16
    path.write_bytes(data)


def spoil_metas(path: Path) -> None:
    """The two pages that tell what a database is."""
    data = bytearray(path.read_bytes())
    for position in (0, 4096):
        data[position + 16 : position + 64] = b"\xff" * 48
    path.write_bytes(data)


def replaced(path: Path) -> None:
    path.unlink()
    path.mkdir()


WAYS: dict[str, Damage] = {
    "missing": lambda path: path.unlink(),
    "empty": lambda path: cut(path, 0),
    "cut": cut,
    "cut to a page": lambda path: cut(path, 4096),
    "zero": zero,
    "flipped": flip,
    "spoilt pages": spoil_pages,
    "spoilt metas": spoil_metas,
    "a directory": replaced,
}
DATABASES = (
    "cache.db",
    "history.db",
    "runc-overlayfs/containerdmeta.db",
    "runc-overlayfs/metadata_v2.db",
    "runc-overlayfs/snapshots/metadata.db",
)


def each(paths: Callable[[Path], list[Path]], way: Damage) -> Damage:
    return lambda root: [way(path) for path in paths(root)]


def database(name: str, way: Damage) -> Damage:
    return lambda root: way(root / name)


KINDS: dict[str, Damage] = {
    **{f"{name} {way}": database(name, does) for name in DATABASES for way, does in WAYS.items()},
    **{f"blobs {way}": each(blobs, WAYS[way]) for way in ("missing", "empty", "cut", "flipped")},
    **{f"a blob {way}": each(largest, WAYS[way]) for way in ("missing", "empty", "cut", "flipped")},
    "snapshots missing": each(snapshots, shutil.rmtree),
    "snapshots' files missing": each(snapshots, lambda path: shutil.rmtree(path / "fs")),
    "no snapshots": lambda root: shutil.rmtree(root / "runc-overlayfs/snapshots/snapshots"),
    "no content": lambda root: shutil.rmtree(root / "runc-overlayfs/content"),
    "no worker": lambda root: shutil.rmtree(root / "runc-overlayfs"),
    "no worker's name": lambda root: (root / "runc-overlayfs/workerid").unlink(),
    "lock a directory": lambda root: replaced(root / "buildkitd.lock"),
}

SAMPLE = {
    "runc-overlayfs/containerdmeta.db cut": ANEW,
    "runc-overlayfs/metadata_v2.db zero": ASIDE,
    "runc-overlayfs/snapshots/metadata.db missing": ASIDE,
    "a blob missing": ASIDE,
    "a blob empty": ANEW,
    "blobs flipped": ASIDE,
    "snapshots missing": ASIDE,
    "lock a directory": ASIDE,
    "cache.db missing": "",
    "history.db cut": "",
}
"""With what is said of it."""


def survive(kept: Kept, damage: Damage, said: str | None = None) -> None:
    """Build on a damaged state, with the code as it was and with a change."""
    for code in ("one", "two"):
        kept.change("one")
        kept.run()
        damage(kept.root)
        kept.change(code)
        cold = kept.cold()
        result = kept.run(START_TIMEOUT="20s")
        assert result.left_processes == ()
        assert digest(kept.place.archive) == cold
        if said is not None:
            assert {said} >= {text for text in (ASIDE, ANEW) if text in result.output}
            assert said in result.output
        assert list(kept.state.glob("aside-*")) == []
        again = kept.run()
        assert cached(again) == STEPS
        assert digest(kept.place.archive) == cold
        assert ASIDE not in again.output
    damage(kept.root)
    assert kept.built(START_TIMEOUT="20s") == kept.cold()  # maybe without a solve
    kept.change("three")
    assert kept.built(START_TIMEOUT="20s") == kept.cold()


@pytest.mark.parametrize("kind", SAMPLE)
def test_damage(make: MakeKept, kind: str) -> None:
    survive(make(), KINDS[kind], SAMPLE[kind])


@pytest.mark.parametrize("user", ["root", "unprivileged"])
def test_damage_of_another_version_and_user(make: MakeKept, user: str) -> None:
    survive(make("compat", user), KINDS["snapshots missing"], ASIDE)


@pytest.mark.soak
@pytest.mark.parametrize("version", ["current", "compat"])
@pytest.mark.parametrize("kind", KINDS)
def test_damage_of_every_kind(make: MakeKept, kind: str, version: str) -> None:
    survive(make(version), KINDS[kind])


def test_a_daemon_that_hangs_at_its_start_gets_another_state(make: MakeKept) -> None:
    kept = make()
    cold = kept.cold()
    kept.run()
    with (kept.worker / "containerdmeta.db").open("r+b") as file:
        fcntl.flock(file, fcntl.LOCK_EX)
        result = kept.run(START_TIMEOUT="3s", VERIFY="full")
        assert ASIDE in result.output
        assert digest(kept.place.archive) == cold
    assert cached(kept.run()) == STEPS


def test_a_step_that_fails_is_not_blamed_on_the_state(make: MakeKept) -> None:
    kept = make()
    kept.run()
    dockerfile = kept.place.source / "Dockerfile"
    words = "failed to open database file /runc-overlayfs/snapshots/1: invalid database"
    text = f'RUN ["/bin/busybox", "sh", "-c", "echo {words}; exit 3"]\n'
    dockerfile.write_text(dockerfile.read_text() + text)
    result = kept.start().wait()
    assert result.code == 1
    assert ASIDE not in result.output
    assert result.output.count("exit code: 3") <= 2, result.output


@pytest.mark.parametrize("version", ["current", "compat"])
@pytest.mark.parametrize("way", ["missing", "empty", "cut", "flipped"])
def test_damaged_layers_that_were_never_unpacked(make: MakeKept, way: str, version: str) -> None:
    """A state that began with what the portable cache has."""
    kept = make(version)
    kept.run()
    shutil.rmtree(kept.state)
    kept.run()
    each(blobs, WAYS[way])(kept.root)
    kept.change("two")
    assert kept.built() == kept.cold()
    kept.change("three")
    assert kept.built() == kept.cold()


@pytest.mark.parametrize("way", ["missing", "empty", "cut", "flipped"])
def test_damaged_images_beside_the_state_are_made_again(make: MakeKept, way: str) -> None:
    kept = make()
    cold = kept.cold()
    kept.run()
    for path in (kept.state / "layout/blobs/sha256").iterdir():
        path.chmod(0o644)
        WAYS[way](path)
    result = kept.run()
    assert digest(kept.place.archive) == cold
    assert cached(result) == STEPS
    assert ASIDE not in result.output


@pytest.mark.parametrize("blob", ["manifest", "config", "layer"])
def test_images_that_may_not_be_read_are_made_again(make: MakeKept, blob: str) -> None:
    """As another user's umask may leave them."""
    kept = make(user="unprivileged")
    first = kept.built()
    blobs = kept.state / "layout/blobs/sha256"
    manifest = json.loads((blobs / first.removeprefix("sha256:")).read_bytes())
    needed = {"manifest": first, "config": manifest["config"]["digest"]}
    needed["layer"] = manifest["layers"][-1]["digest"]
    (blobs / needed[blob].removeprefix("sha256:")).chmod(0)
    assert kept.built() == first
    assert cached(kept.run()) == STEPS


@pytest.mark.parametrize("name", ["layout", "layout/blobs", "layout/blobs/sha256"])
def test_images_that_cannot_be_kept_fail_no_build(make: MakeKept, name: str) -> None:
    kept = make(user="unprivileged")
    first = kept.built()
    closed = kept.state / name
    mode = closed.stat().st_mode
    closed.chmod(0)
    try:
        assert "name=state-not-carried" in kept.run().output
    finally:
        closed.chmod(mode)
    assert digest(kept.place.archive) == first


@pytest.mark.parametrize("name", ["context", "made", "layout/index.json", "layout/oci-layout"])
@pytest.mark.parametrize("way", ["missing", "empty", "zero", "a directory"])
def test_damaged_notes_about_the_state_cost_time_at_most(
    make: MakeKept, name: str, way: str
) -> None:
    kept = make()
    cold = kept.cold()
    kept.run()
    WAYS[way](kept.state / name)
    kept.run()
    assert digest(kept.place.archive) == cold
    kept.change("two")
    assert kept.built() == kept.cold()
