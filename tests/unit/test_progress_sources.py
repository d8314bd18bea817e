"""Which builds are made of nothing that can be another thing next time, by their steps' names."""

from __future__ import annotations

import pytest

from plp_builder.progress.sources import are_fixed

ONE, OTHER = (f"sha256:{letter * 64}" for letter in "ab")
OWN = (
    "[internal] load build definition from Dockerfile",
    "[internal] load .dockerignore",
    "[internal] load build context",
    "exporting to oci image format",
    "exporting cache to client directory",
    "importing cache manifest from 127.0.0.1:1/x@sha256:0",
)
LOADED = f"[internal] load metadata for docker.io/library/debian:12@{ONE}"


@pytest.mark.parametrize(
    "names",
    [
        (),
        ("[1/1] COPY a b",),
        ("[base 1/2] WORKDIR /a", "[base 2/2] RUN <<EOF (a: b...)"),
        ("[linux/arm64 base  1/12] RUN a\nADD http://b /",),
        ("[1/1] ADD rootfs.tar.gz /",),
        ('[1/1] ADD --chown=0 ["a-b_c*.tar", "./d?", "/"]',),
        (LOADED, f"[one 1/2] FROM docker.io/library/debian:12@{ONE}"),
        (LOADED, f"FROM docker.io/library/debian:12@{ONE}"),
        (LOADED,),
        ("[context extra] load .dockerignore", "[context extra] load from client"),
    ],
)
def test_fixed(names: tuple[str, ...]) -> None:
    assert are_fixed((*OWN, *names))


@pytest.mark.parametrize(
    "names",
    [
        ("",),
        ("something else",),
        ("[internal] load remote build context",),
        ("[internal] load metadata for docker.io/library/debian:12",),
        (f"[internal] load metadata for docker.io/library/debian:12@{ONE[:-1]}",),
        (f"[internal] load metadata for docker.io/library/debian:12@{ONE}x",),
        (f"[1/2] FROM docker.io/library/debian:12@{ONE}",),
        (LOADED, f"[1/2] FROM docker.io/library/debian:12@{OTHER}"),
        (LOADED, "[1/2] FROM docker.io/library/debian:12"),
        ("[1/1] ADD https://host/file /",),
        ("[1/1] ADD git@host:repository /",),
        ("[1/1] ADD $NAME /",),
        (r'[1/1] ADD ["http\u003a//host/file", "/file"]',),
        (r'[1/1] ADD ["\u0024{NAME}", "/"]',),
        (r"[1/1] ADD [git@h\u003ax.git, /]",),
        ("[1/1] ADD --checksum=sha256:0 file /",),
        ("[1/1] UNKNOWN a",),
        ("resolve image config for docker-image://docker.io/docker/dockerfile:1",),
        (f"resolve image config for docker-image://docker.io/docker/dockerfile:1@{ONE}",),
        ("[context extra] https://host/file",),
        ("[context extra] OCI load from client",),
        ("https://host/repository.git",),
    ],
)
def test_not_fixed(names: tuple[str, ...]) -> None:
    assert not are_fixed((*OWN, *names))
