"""What the benchmark builds, and how it looks into archives."""

from __future__ import annotations

import json
import os
import tarfile
from pathlib import Path

import pytest

from benchmarks.rebuild import layers, packages, places
from benchmarks.rebuild.workloads import FIRST, WORKLOADS, Workload, prepare
from tests.support import layouts

SMALL = [workload for workload in WORKLOADS if workload.name in {"W1", "W2", "W5"}]


def content(source: Path) -> dict[str, bytes]:
    return {
        str(path.relative_to(source)): path.read_bytes()
        for path in source.rglob("*")
        if path.is_file()
    }


@pytest.mark.parametrize("workload", SMALL, ids=lambda workload: workload.name)
def test_an_edit_changes_one_file_and_back(workload: Workload, tmp_path: Path) -> None:
    source = prepare(workload, tmp_path / "source")
    before = content(source)
    for edit in (workload.code, workload.dependencies):
        if edit is None:
            continue
        edit(source, "second")
        changed = {name for name, data in content(source).items() if before[name] != data}
        assert len(changed) == 1
        edit(source, FIRST)
        assert content(source) == before


@pytest.mark.parametrize("workload", SMALL, ids=lambda workload: workload.name)
def test_every_user_can_read_a_source(workload: Workload, tmp_path: Path) -> None:
    mask = os.umask(0o077)
    try:
        source = prepare(workload, tmp_path / "source")
    finally:
        os.umask(mask)
    modes = {path.stat().st_mode & 0o777 for path in (source, *source.rglob("*"))}
    assert modes <= {0o755, 0o644}


def archive(path: Path, *, diff_ids: list[str] | None, docker: bool) -> Path:
    files: layouts.Files = {}
    config = {"architecture": "amd64", "os": "linux", "rootfs": {"diff_ids": diff_ids}}
    described = layouts.add_json(files, config, layouts.CONFIG)
    manifest = {"schemaVersion": 2, "config": described, "layers": []}
    layouts.finish(files, layouts.add_json(files, manifest, layouts.MANIFEST))
    if docker:
        blob = "blobs/" + str(described["digest"]).replace(":", "/")
        files["manifest.json"] = json.dumps([{"Config": blob, "Layers": []}]).encode()
    with tarfile.open(path, "w") as tar:
        for name, data in files.items():
            layouts.add_member(tar, name, data)
    return path


@pytest.mark.parametrize("docker", [False, True])
def test_the_layers_of_an_archive(docker: bool, tmp_path: Path) -> None:
    found = archive(tmp_path / "a.tar", diff_ids=["sha256:1", "sha256:2"], docker=docker)
    assert layers.diff_ids(found) == ("sha256:1", "sha256:2")
    assert layers.diff_ids(archive(tmp_path / "b.tar", diff_ids=None, docker=docker)) == ()


def test_an_archive_without_an_image(tmp_path: Path) -> None:
    with tarfile.open(tmp_path / "a.tar", "w") as tar:
        layouts.add_member(tar, "oci-layout", b"{}")
    with pytest.raises(KeyError):
        layers.diff_ids(tmp_path / "a.tar")


def test_a_hard_link_needs_no_space(tmp_path: Path) -> None:
    (tmp_path / "blobs").mkdir()
    (tmp_path / "blobs/one").write_bytes(bytes(range(256)) * 400)
    before = places.used(tmp_path)
    assert before >= 256 * 400
    os.link(tmp_path / "blobs/one", tmp_path / "two")
    assert places.used(tmp_path) == before
    assert places.used(tmp_path / "missing") == 0


@pytest.mark.parametrize(
    ("url", "age", "good"),
    [
        ("http://deb.example/debian/pool/main/h/hello/hello_2.10.deb", 1e9, True),
        ("http://deb.example/debian/dists/trixie/main/by-hash/SHA256/0123", 1e9, True),
        ("http://deb.example/debian/dists/trixie/InRelease", 3600, True),
        ("http://deb.example/debian/dists/trixie/InRelease", 1e6, False),
    ],
)
def test_what_the_proxy_may_keep(url: str, age: float, good: bool) -> None:
    assert packages.still_good(url, age) is good


def test_the_index_of_wheels() -> None:
    files = ["scikit_learn-1.9.1-cp313.whl", "scipy-1.18.1-cp313.whl", "scipy-1.18.1.tar.gz"]
    page = packages.index("scikit-learn", files)
    assert page == f'<a href="/files/{files[0]}">{files[0]}</a>'
    assert packages.index("scipy", files).count("<a") == 1
    assert packages.index("numpy", files) == ""
