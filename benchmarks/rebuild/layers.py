"""What is in an archive: the digests of its unpacked layers."""

from __future__ import annotations

import json
import tarfile
from pathlib import Path
from typing import Any, cast


def diff_ids(archive: Path) -> tuple[str, ...]:
    """The layers of the only image in an OCI or Docker archive.

    Raises OSError, tarfile.TarError, KeyError or ValueError for anything else.
    """
    with tarfile.open(archive) as tar:
        members = {member.name.removeprefix("./"): member for member in tar}

        def read(name: str) -> Any:
            file = tar.extractfile(members[name])
            if file is None:
                raise ValueError(f"{name} in {archive} is no file")
            return json.load(file)

        def blob(descriptor: dict[str, str]) -> Any:
            return read("blobs/" + descriptor["digest"].replace(":", "/"))

        if "manifest.json" in members:
            config = read(read("manifest.json")[0]["Config"])
        else:
            document = blob(read("index.json")["manifests"][0])
            if "manifests" in document:
                document = blob(document["manifests"][0])
            config = blob(document["config"])
    return tuple(cast("list[str]", config["rootfs"]["diff_ids"] or []))
