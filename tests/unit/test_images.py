"""What `make image` builds from, and how it weighs what comes out."""

from __future__ import annotations

import io
import json
import tarfile
from pathlib import Path

from scripts.images.build import Wanted, inputs
from scripts.images.contents import Layer, weigh


def packed(files: dict[str, bytes]) -> bytes:
    """A tar of files."""
    buffer = io.BytesIO()
    with tarfile.open(fileobj=buffer, mode="w") as tar:
        for name, content in files.items():
            member = tarfile.TarInfo(name)
            member.size = len(content)
            tar.addfile(member, io.BytesIO(content))
    return buffer.getvalue()


def test_only_what_the_dockerfile_can_see_decides_whether_to_build_again(tmp_path: Path) -> None:
    (tmp_path / "package/__pycache__").mkdir(parents=True)
    for name in ("Dockerfile", "README.md", "secret", "package/a.py", "package/__pycache__/a.pyc"):
        (tmp_path / name).write_text("")
    (tmp_path / ".dockerignore").write_text("*\n!README.md\n!package\n**/__pycache__\n")
    found = [str(path.relative_to(tmp_path)) for path in inputs(tmp_path)]
    assert found == ["Dockerfile", "README.md", "package/a.py"]


def test_an_older_buildkit_gets_a_tag_of_its_own() -> None:
    assert Wanted("builder").reference == "plp-container-image-builder:latest"
    assert Wanted("builder", "0.21.1").reference == "plp-container-image-builder:buildkit-0.21.1"


def test_layers_above_the_base_image_are_weighed_unpacked(tmp_path: Path) -> None:
    history = [
        {"created_by": "# debian.sh"},
        {"created_by": "ENV A=1 # buildkit", "empty_layer": True},
        {"created_by": "RUN /bin/sh -c make # buildkit"},
        {"created_by": "COPY /a /b # buildkit"},
    ]
    layers = [{"base": b"x" * 1000}, {"one": b"x" * 20, "two": b"x" * 3}, {"three": b"x" * 4}]
    manifest = [{"Config": "config", "Layers": ["0", "1", "2"]}]
    members = {str(number): packed(layer) for number, layer in enumerate(layers)}
    members["config"] = json.dumps({"history": history}).encode()
    members["manifest.json"] = json.dumps(manifest).encode()
    archive = tmp_path / "image.tar"
    archive.write_bytes(packed(members))
    weight = weigh(archive)
    assert weight.base == 1000
    assert weight.layers == (Layer("make", 23), Layer("COPY /a /b", 4))
    assert weight.above == 27
