"""Secrets, SSH agents and named contexts: whatever cannot work is told before a build."""

from __future__ import annotations

import base64
import json
import os
import stat
from pathlib import Path

import pytest

from plp_builder import settings
from plp_builder.errors import BuildContextNotUsable, Failure, SecretNotUsable, SshNotUsable
from plp_builder.preflight import inputs
from plp_builder.preflight.inputs import NamedContext, check_inputs

DIGEST, OTHER = (f"sha256:{digit * 64}" for digit in "ab")
OPENSSH = "-----BEGIN OPENSSH PRIVATE KEY-----\n{}\n-----END OPENSSH PRIVATE KEY-----\n"


def check(source: Path, **environ: str) -> tuple[NamedContext, ...]:
    return check_inputs(settings.load({"PLP_SOURCE_PATH": str(source), **environ}))


def failure(kind: type[Failure], source: Path, **environ: str) -> Failure:
    with pytest.raises(Failure) as caught:
        check(source, **environ)
    assert type(caught.value) is kind
    return caught.value


@pytest.fixture
def source(tmp_path: Path) -> Path:
    return tmp_path.resolve()


def test_nothing_given(source: Path) -> None:
    assert check(source) == ()


def test_secrets(source: Path) -> None:
    (source / "npm").write_bytes(b"x" * inputs.MAX_SECRET_SIZE)
    check(source, PLP_SECRETS=f"id=a,src={source}/npm\nid=b,env=B", B="value")


def test_every_secret_that_cannot_be_used_is_named(source: Path) -> None:
    (source / "large").write_bytes(b"x" * (inputs.MAX_SECRET_SIZE + 1))
    (source / "directory").mkdir()
    os.mkfifo(source / "fifo")
    names = ("missing", "large", "directory", "fifo")
    lines = "\n".join(f"id={name},src={source}/{name}" for name in names)
    found = failure(SecretNotUsable, source, PLP_SECRETS=lines)
    told = (found.what, *found.why)
    for name, text in zip(names, ("no such file", "500 KiB", "regular", "regular"), strict=True):
        (line,) = [line for line in told if f"secret {name}:" in line]
        assert text in line


def test_an_unreadable_secret(source: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (source / "s").touch()
    monkeypatch.setattr(os, "access", lambda *_: False)
    found = failure(SecretNotUsable, source, PLP_SECRETS=f"id=s,src={source}/s")
    assert "cannot be read by uid" in found.what


def openssh(cipher: bytes) -> bytes:
    blob = b"openssh-key-v1\0" + len(cipher).to_bytes(4, "big") + cipher + b"\0\0\0\x04none"
    return OPENSSH.format(base64.encodebytes(blob).decode().strip()).encode()


@pytest.mark.parametrize(
    "key",
    [
        openssh(b"none"),
        b"-----BEGIN RSA PRIVATE KEY-----\nMIIE\n-----END RSA PRIVATE KEY-----\n",
        b"-----BEGIN PRIVATE KEY-----\nMIIE\n-----END PRIVATE KEY-----\n",
        OPENSSH.format("not base64 at all: BuildKit's own message is better").encode(),
    ],
)
def test_ssh_keys(source: Path, key: bytes) -> None:
    (source / "key").write_bytes(key)
    check(source, PLP_SSH=f"default={source}/key,{source}/key")


@pytest.mark.parametrize(
    ("content", "text"),
    [
        (openssh(b"aes256-ctr"), "passphrase"),
        (b"-----BEGIN ENCRYPTED PRIVATE KEY-----\n", "passphrase"),
        (b"-----BEGIN RSA PRIVATE KEY-----\nProc-Type: 4,ENCRYPTED\n", "passphrase"),
        (b"ssh-ed25519 AAAA me@here\n", "public key"),
        (b"hello", "no key"),
        (b"", "no key"),
        (b"-----BEGIN PRIVATE KEY-----\n" * 5000, "larger than 100 KiB"),
    ],
)
def test_what_is_no_usable_key(source: Path, content: bytes, text: str) -> None:
    (source / "key").write_bytes(content)
    found = failure(SshNotUsable, source, PLP_SSH=f"git={source}/key")
    assert text in found.what
    assert "git" in found.what


def test_ssh_paths_that_are_neither(source: Path) -> None:
    os.mkfifo(source / "fifo")
    for name, text in (("fifo", "neither"), ("none", "no such file"), (".", "neither")):
        found = failure(SshNotUsable, source, PLP_SSH=f"default={source}/{name}")
        assert text in found.what


def test_a_key_cannot_be_read(source: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (source / "key").touch()

    def denied(*_: object) -> int:
        raise PermissionError(13, "Permission denied")

    monkeypatch.setattr(os, "open", denied)
    found = failure(SshNotUsable, source, PLP_SSH=f"default={source}/key")
    assert "permission denied" in found.what


def test_an_agent_s_socket_stands_alone(source: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    for name in ("agent", "other"):
        os.mknod(source / name, stat.S_IFSOCK | 0o600)
    (source / "key").write_text("-----BEGIN PRIVATE KEY-----\n")
    check(source, PLP_SSH=f"default={source}/agent")
    for second in ("other", "key"):
        found = failure(SshNotUsable, source, PLP_SSH=f"default={source}/agent,{source}/{second}")
        assert "one socket or several keys, not both" in str(found)
    monkeypatch.setattr(os, "access", lambda _, mode: not mode & os.W_OK)
    found = failure(SshNotUsable, source, PLP_SSH=f"default={source}/agent")
    assert f"agent cannot be opened by uid {os.geteuid()}" in str(found)


def test_context_directories(source: Path) -> None:
    (source / "lib").mkdir()
    (source / "link").symlink_to("lib")
    found = check(source, PLP_BUILD_CONTEXTS=f"a=lib\nb={source}/lib\nc=link\nd=./lib/..")
    assert found == (
        NamedContext("a", path=source / "lib"),
        NamedContext("b", path=source / "lib"),
        NamedContext("c", path=source / "lib"),
        NamedContext("d", path=source),
    )


@pytest.mark.parametrize(
    "given",
    [
        "docker-image://alpine:3",
        "https://example.com/a.git#main",
        "http://example.com/a.tar",
        "git://example.com/a",
        "git@example.com:a/b.git",
    ],
)
def test_contexts_that_buildkit_fetches(source: Path, given: str) -> None:
    assert check(source, PLP_BUILD_CONTEXTS=f"a={given}") == (NamedContext("a", source=given),)


@pytest.mark.parametrize(("name", "text"), [("none", "no such file"), ("f", "not a directory")])
def test_context_directories_that_are_none(source: Path, name: str, text: str) -> None:
    (source / "f").touch()
    found = failure(BuildContextNotUsable, source, PLP_BUILD_CONTEXTS=f"lib={name}")
    assert found.what.startswith("the build context lib: ")
    assert text in found.what


def layout(path: Path, *entries: tuple[str, str], index: object = None) -> Path:
    """An OCI layout with a blob and an entry for each pair of digest and name."""
    manifests = []
    for digest, name in entries:
        algorithm, _, encoded = digest.partition(":")
        blob = path / "blobs" / algorithm / encoded
        blob.parent.mkdir(parents=True, exist_ok=True)
        blob.write_text("{}")
        annotations = {"org.opencontainers.image.ref.name": name} if name else {}
        manifests.append(
            {
                "mediaType": "application/vnd.oci.image.manifest.v1+json",
                "digest": digest,
                "size": 2,
                "annotations": annotations,
            }
        )
    path.mkdir(exist_ok=True)
    content = {"schemaVersion": 2, "manifests": manifests} if index is None else index
    (path / "index.json").write_text(json.dumps(content))
    return path


def resolved(source: Path, reference: str) -> NamedContext:
    (found,) = check(source, PLP_BUILD_CONTEXTS=f"base=oci-layout://{reference}")
    return found


def test_a_layout_with_one_image(source: Path) -> None:
    path = layout(source / "l", (DIGEST, ""))
    expected = NamedContext("base", path=path, digest=DIGEST)
    for reference in (str(path), "l", f"{path}@{DIGEST}"):
        assert resolved(source, reference) == expected


def test_a_layout_with_the_same_image_twice(source: Path) -> None:
    path = layout(source / "l", (DIGEST, "a"), (DIGEST, "b"))
    assert resolved(source, str(path)).digest == DIGEST


def test_an_image_by_tag(source: Path) -> None:
    path = layout(source / "l", (DIGEST, "v1"), (OTHER, "example.com/app:v2"))
    assert resolved(source, f"{path}:v1").digest == DIGEST
    assert resolved(source, f"{path}:v2").digest == OTHER
    assert resolved(source, f"{path}@{OTHER}").digest == OTHER


def test_a_colon_in_the_directory_s_name(source: Path) -> None:
    path = layout(source / "l:v1", (DIGEST, "x"))
    assert resolved(source, str(path)).path == path


def unresolved(source: Path, reference: str) -> str:
    found = failure(
        BuildContextNotUsable, source, PLP_BUILD_CONTEXTS=f"base=oci-layout://{reference}"
    )
    return f"{found.what} -> {found.hint}"


def test_an_ambiguous_layout(source: Path) -> None:
    path = layout(source / "l", (DIGEST, "v1"), (OTHER, "v2"))
    told = unresolved(source, str(path))
    assert "holds 2 images" in told
    assert "v1, v2" in told
    twins = layout(source / "t", (DIGEST, "v1"), (OTHER, "v1"))
    assert "holds 2 images named v1" in unresolved(source, f"{twins}:v1")


def test_layouts_that_cannot_be_used(source: Path) -> None:
    path = layout(source / "l", (DIGEST, "v1"))
    assert "has no image v9" in unresolved(source, f"{path}:v9")
    assert "holds no blob" in unresolved(source, f"{path}@{OTHER}")
    assert "is not a digest" in unresolved(source, f"{path}@sha256:12")
    assert "is not a directory" in unresolved(source, str(source / "none"))
    assert "holds no image" in unresolved(source, str(layout(source / "empty")))
    assert "is no OCI layout" in unresolved(source, str(layout(source / "odd", index=[1])))
    (source / "bare").mkdir()
    assert "no such file" in unresolved(source, str(source / "bare"))


@pytest.mark.timeout(20)
def test_a_layout_whose_index_is_a_fifo(source: Path) -> None:
    (source / "l").mkdir()
    os.mkfifo(source / "l/index.json")
    assert "not a regular file" in unresolved(source, str(source / "l"))


def test_a_layout_with_a_huge_index(source: Path) -> None:
    path = layout(source / "l", (DIGEST, ""))
    (path / "index.json").write_bytes(b" " * (5 << 20))
    assert "larger than 4 MiB" in unresolved(source, str(path))
