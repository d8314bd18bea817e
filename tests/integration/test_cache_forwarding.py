"""What an image's export has written need not be written again for the cache."""

from __future__ import annotations

import re
import subprocess
import threading
from collections.abc import Iterator
from pathlib import Path

import pytest

from plp_builder.cache import staging
from plp_builder.cache.forwarding import Forwarding
from plp_builder.cache.portable import BuildCache
from plp_builder.cache.verification import Record, verify
from plp_builder.errors import Failure
from plp_builder.oci import layout, model
from plp_builder.settings import load
from tests.support import layouts
from tests.support.builder import MakeWorkspace, StartBuilder
from tests.support.kept import Kept
from tests.support.machine import Tools
from tests.support.processes import until

PATIENCE = 30.0


def nothing() -> None:
    return None


@pytest.fixture
def places(tmp_path: Path) -> tuple[Path, Path]:
    """The blobs of two layouts."""
    found = tmp_path / "source" / layout.BLOBS, tmp_path / "target" / layout.BLOBS
    for place in found:
        place.mkdir(parents=True)
    return found


@pytest.fixture
def elsewhere(tmp_path: Path) -> Iterator[Path]:
    """The blobs of a layout on another file system."""
    place = tmp_path / "elsewhere"
    place.mkdir()
    mounted = subprocess.run(["mount", "-t", "tmpfs", "tmpfs", place], check=False)
    if mounted.returncode:
        pytest.skip("no file system can be mounted here")
    blobs = place / layout.BLOBS
    blobs.mkdir(parents=True)
    yield blobs
    subprocess.run(["umount", place], check=True)


def bring(place: Path, name: str) -> None:
    """As BuildKit does: written elsewhere, then moved there whole."""
    ingest = place.parent.parent / "data"
    ingest.write_text(name)
    ingest.rename(place / name)


def begin(source: Path, target: Path) -> Forwarding:
    return Forwarding(source.parent.parent, target.parent.parent)


def test_what_comes_is_there_at_once_and_what_was_there_stays_away(
    places: tuple[Path, Path],
) -> None:
    source, target = places
    bring(source, "old")
    forwarding = begin(source, target)
    for name in ("one", "two", "three"):
        bring(source, name)
        until((target / name).exists, PATIENCE)
        assert (target / name).samefile(source / name)
    assert forwarding.end() == {"one", "two", "three"}
    assert sorted(path.name for path in target.iterdir()) == ["one", "three", "two"]


def test_what_comes_after_the_end_stays_away(places: tuple[Path, Path]) -> None:
    source, target = places
    forwarding = begin(source, target)
    bring(source, "one")
    until((target / "one").exists, PATIENCE)
    forwarding.end()
    bring(source, "two")
    assert forwarding.end() == {"one"}
    assert not (target / "two").exists()


def test_what_the_cache_has_itself_stays_as_it_is(places: tuple[Path, Path]) -> None:
    source, target = places
    (target / "one").write_text("own")
    forwarding = begin(source, target)
    bring(source, "one")
    bring(source, "two")
    until((target / "two").exists, PATIENCE)
    assert forwarding.end() == {"two"}
    assert (target / "one").read_text() == "own"


def test_another_disk_gets_nothing(places: tuple[Path, Path], elsewhere: Path) -> None:
    source, _ = places
    forwarding = begin(source, elsewhere)
    bring(source, "one")
    until(lambda: all(each.name != "forwarding" for each in threading.enumerate()), PATIENCE)
    bring(source, "two")
    assert forwarding.end() == frozenset()
    assert list(elsewhere.iterdir()) == []


def test_a_layout_without_blobs_has_none_to_give(tmp_path: Path) -> None:
    assert Forwarding(tmp_path / "missing", tmp_path).end() == frozenset()


def test_what_was_verified_in_the_one_is_known_in_the_other(tmp_path: Path) -> None:
    files: layouts.Files = {}
    top = model.parse_descriptor(layouts.add_image(files, (b"one", b"two")), "the image")
    warnings: list[Failure] = []
    staged = staging.prepare(tmp_path / "cache", "app", check=nothing, warn=warnings.append)
    assert staged
    cache = BuildCache(load({}), staged, nothing, warnings.append)
    images = tmp_path / "layout"
    (images / layout.BLOBS).mkdir(parents=True)
    with cache.forwarding(images):
        layouts.write(images, files)
        last = staged.directory / list(files)[-1]
        until(last.exists, PATIENCE)
    needed = [node.descriptor for node in layout.reachable(images, top)]
    known = Record.read(images)
    assert verify(images, needed, known, check=nothing) == []
    known.write(images)
    cache.recognize(images)
    found = Record.read(staged.directory)
    for descriptor in needed:
        status = layout.blob_status(staged.directory, descriptor)
        assert found.holds(descriptor.digest.encoded, status)
    # BuildKit has exported nothing, and what lies there is none of what it has begun.
    assert cache.wants_export(all_cached=False)
    cache.keep()
    assert warnings == []
    assert not staged.directory.exists()


def test_a_new_layer_gets_into_the_portable_cache(
    workspace: MakeWorkspace, start_builder: StartBuilder, tools: dict[str, Tools]
) -> None:
    kept = Kept(workspace("root"), start_builder, tools["current"])
    kept.run()
    kept.change("two")
    output = kept.run(DEBUG="true").output
    assert re.search(r"the cache's export was spared blobs +number=\d+\n", output)
    cold = kept.cold()
    assert kept.built(CACHE_STRATEGY="portable") == cold
