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
from plp_builder.cache.verification import RECORD, Record, verify
from plp_builder.errors import Failure
from plp_builder.oci import layout, model
from plp_builder.oci.model import Digest
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


class Both:
    """An image that was forwarded from the layout ``images`` to a cache's own."""

    def __init__(self, directory: Path) -> None:
        self.warnings: list[Failure] = []
        self.images = directory / "layout"
        self.cache_layout = directory / "cache" / staging.LAYOUT
        files: layouts.Files = {}
        top = model.parse_descriptor(layouts.add_image(files, (b"one", b"two")), "the image")
        warn = self.warnings.append
        staged = staging.prepare(directory / "cache", "app", check=nothing, warn=warn)
        assert staged
        self.staged = staged.directory
        self.cache = BuildCache(load({}), staged, nothing, warn)
        (self.images / layout.BLOBS).mkdir(parents=True)
        with self.cache.forwarding(self.images):
            layouts.write(self.images, files)
            until((self.staged / list(files)[-1]).exists, PATIENCE)
        self.needed = [node.descriptor for node in layout.reachable(self.images, top)]

    def verify(self) -> list[Digest]:
        """As the builder does; the damaged ones."""
        known = Record.read(self.images)
        damaged = verify(self.images, self.needed, known, check=nothing)
        known.write(self.images)
        return [blob.digest for blob in damaged]


def test_what_was_verified_in_the_one_is_known_in_the_other(tmp_path: Path) -> None:
    both = Both(tmp_path)
    assert both.verify() == []
    both.cache.recognize(both.images)
    found = Record.read(both.staged)
    for descriptor in both.needed:
        assert found.holds(descriptor.digest.encoded, layout.blob_status(both.staged, descriptor))
    # BuildKit has exported nothing, and what lies there is none of what it has begun.
    assert both.cache.wants_export(all_cached=False)
    both.cache.keep()
    assert both.warnings == []
    assert not both.staged.exists()


def test_what_was_damaged_in_the_one_is_sent_to_the_other(tmp_path: Path) -> None:
    both = Both(tmp_path)
    layer = both.needed[-1]
    layout.blob_path(both.images, layer.digest).write_bytes(b"eno")
    (both.cache_layout / RECORD).write_text("{}")
    damaged = both.verify()
    assert damaged == [layer.digest]
    both.cache.distrust(damaged)
    assert not layout.blob_path(both.staged, layer.digest).exists()
    assert not (both.cache_layout / RECORD).exists()
    both.cache.recognize(both.images)
    names = {path.name for path in (both.staged / layout.BLOBS).iterdir()}
    assert names == {each.digest.encoded for each in both.needed} - {layer.digest.encoded}
    both.cache.close()


def test_a_new_layer_gets_into_the_portable_cache(
    workspace: MakeWorkspace, start_builder: StartBuilder, tools: dict[str, Tools]
) -> None:
    kept = Kept(workspace("root"), start_builder, tools["current"])
    kept.run()
    kept.change("two")
    output = kept.run(DEBUG="true").output
    assert re.search(r"blobs were linked for the cache's export +number=\d+\n", output)
    cold = kept.cold()
    assert kept.built(CACHE_STRATEGY="portable") == cold
