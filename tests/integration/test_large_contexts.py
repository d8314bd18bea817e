"""Contexts of a size that real projects reach, made anew from a fixed seed."""

from __future__ import annotations

import subprocess
from pathlib import Path

from tests.support import image, machine
from tests.support.builder import MakeWorkspace, RunBuilder
from tests.support.generate import large_layer, many_files


def copied(archive: Path, directory: Path) -> list[Path]:
    """The blobs of an archive, after skopeo has verified each of them."""
    command = [
        machine.command("skopeo"),
        "copy",
        "-q",
        f"oci-archive:{archive}",
        f"dir:{directory}",
    ]
    subprocess.run(command, check=True, capture_output=True)
    return sorted(directory.iterdir(), key=lambda path: path.stat().st_size)


def test_thirty_thousand_files(workspace: MakeWorkspace, run_builder: RunBuilder) -> None:
    """All of them arrive, and the second build takes them from the cache."""
    place = workspace()
    many_files(place.source / "project")
    env = {**place.env, "PLP_CONTEXT": "project"}
    assert run_builder(env, timeout=300).code == 0
    found = image.read(place.archive)
    assert len(found.files) == 30_000
    assert found.files["files/0299/029999.txt"].startswith(b"000000000029999\n")
    again = run_builder(env, timeout=300)
    assert again.code == 0
    assert "1 of 1 cached" in again.output
    assert image.read(place.archive).manifest["layers"] == found.manifest["layers"]


def test_large_layer(workspace: MakeWorkspace, run_builder: RunBuilder, tmp_path: Path) -> None:
    """A layer of 1 GiB that does not compress: the archive is sound, and nothing is left."""
    place = workspace()
    large_layer(place.source / "project")
    result = run_builder({**place.env, "PLP_CONTEXT": "project"}, timeout=500)
    assert result.code == 0, result.output
    assert result.left_files == ()
    assert copied(place.archive, tmp_path / "image")[-1].stat().st_size > 1 << 30
