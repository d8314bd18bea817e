"""The whole publisher and real registries of every kind, read back by crane and regctl."""

from __future__ import annotations

import uuid
from collections.abc import Mapping
from pathlib import Path

import pytest

from tests.support import layouts, publication
from tests.support.publication import Result
from tests.support.registries import KINDS, PASSWORD, GuardedRegistry, Kind, Registries
from tests.support.skopeo import Skopeo

TAGS = {"1.2.3", "1.2", "1", "main-0123456", "main", "latest"}
GUARDED = [kind for kind in KINDS if kind.guard != "open"]
TLS = [kind for kind in KINDS if kind.guard == "tls"]
PLAIN = [kind for kind in KINDS if kind.guard != "tls"]


class Published:
    """One archive, a repository nobody has used, and a publisher for them."""

    def __init__(self, registry: GuardedRegistry, skopeo: Skopeo, directory: Path) -> None:
        self.registry = registry
        self.name = f"team/{uuid.uuid4().hex}"
        self.clients = registry.clients(directory / "clients")
        self._skopeo = skopeo
        self._directory = directory
        files: layouts.Files = {}
        images = [
            layouts.add_image(
                files,
                [uuid.uuid4().bytes, b"shared layer"],
                architecture=architecture,
                platform={"architecture": architecture, "os": "linux"},
            )
            for architecture in ("amd64", "arm64")
        ]
        index = {"schemaVersion": 2, "mediaType": layouts.INDEX, "manifests": images}
        entry = layouts.add_json(files, index, layouts.INDEX)
        self.digest = entry["digest"]
        self.blobs = {name.rpartition("/")[2]: data for name, data in files.items()}
        self.archive = directory / "image.tar"
        self.archive.write_bytes(layouts.tar_of(layouts.finish(files, entry)))

    def run(self, env: Mapping[str, str | None] | None = None) -> Result:
        given: dict[str, str | None] = {
            **self.registry.env,
            "PLP_ARTIFACT_PATH": str(self.archive),
            "PLP_IMAGE_REPOSITORY": f"{self.registry.address}/{self.name}",
            "PLP_TAG": "v1.2.3",
            "PLP_BRANCH": "main",
            "PLP_IS_DEFAULT_BRANCH": "true",
            "PLP_COMMIT_SHA": "0123456789abcdef0123456789abcdef01234567",
            "PLP_PUSH_RETRIES": "1",
            **(env or {}),
        }
        whole = {name: value for name, value in given.items() if value is not None}
        home = self._directory / uuid.uuid4().hex
        result = publication.run(whole, self._skopeo, home)
        assert not result.left_files
        assert PASSWORD not in result.stderr
        return result


@pytest.fixture
def published(
    request: pytest.FixtureRequest,
    skopeo: Skopeo,
    guarded_registries: Registries,
    tmp_path: Path,
) -> Published:
    """For tests that are parametrized with kinds of registries, indirectly."""
    return Published(guarded_registries[request.param], skopeo, tmp_path)


def kinds(*which: Kind) -> pytest.MarkDecorator:
    return pytest.mark.parametrize("published", which, ids="-".join, indirect=True)


@kinds(*KINDS)
def test_what_is_published_is_read_back_by_others(published: Published, tmp_path: Path) -> None:
    result = published.run()
    assert result.code == 0, result.stderr
    assert result.document["digest"] == published.digest
    assert published.clients.digests(published.name) == dict.fromkeys(TAGS, published.digest)
    for tag in ("1.2.3", "latest"):
        assert published.clients.digest(f"{published.name}:{tag}") == published.digest
    layout = tmp_path / "layout"
    reference = f"{{}}/{published.name}:1.2.3"
    published.clients.crane("pull", "--format=oci", reference, str(layout))
    pulled = {path.name: path.read_bytes() for path in (layout / "blobs/sha256").iterdir()}
    sent = {name: data for name, data in published.blobs.items() if len(name) == 64}
    assert pulled == sent
    published.registry.requests()
    again = published.run()
    assert again.code == 0, again.stderr
    assert {tag["state"] for tag in again.document["tags"]} == {"unchanged"}
    asked = published.registry.requests()
    assert {line.partition(" ")[0] for line in asked} == {"GET"}


@kinds(*GUARDED)
def test_a_wrong_password_is_an_authentication_failure(published: Published) -> None:
    result = published.run({"PLP_REGISTRY_PASSWORD": "not-this-one", "PLP_PUSH_RETRIES": "5"})
    assert (result.code, result.error) == (2, "authentication-failed"), result.stderr
    assert "PLP_REGISTRY_PASSWORD" in result.stderr
    assert "not-this-one" not in result.stderr
    assert published.clients.tags(published.name) == set()


@kinds(*GUARDED)
def test_no_password_is_an_authentication_failure(published: Published) -> None:
    nobody = dict.fromkeys(("PLP_REGISTRY_USERNAME", "PLP_REGISTRY_PASSWORD"))
    result = published.run(nobody)
    assert (result.code, result.error) == (2, "authentication-failed"), result.stderr
    assert "no credentials were given" in result.stderr


@kinds(*TLS)
def test_an_unknown_authority_names_the_variable(published: Published) -> None:
    result = published.run({"PLP_REGISTRY_CA_PATH": None})
    assert (result.code, result.error) == (1, "registry-not-reachable"), result.stderr
    assert "PLP_REGISTRY_CA_PATH" in result.stderr
    assert not result.document["tags"]
    assert result.document.get("retries", 0) == 0
    assert not published.registry.requests()


@kinds(*TLS)
def test_certificates_need_not_be_checked(published: Published) -> None:
    """For test registries: PLP_REGISTRY_INSECURE is TLS without checks, where there is TLS."""
    env = {"PLP_REGISTRY_CA_PATH": None, "PLP_REGISTRY_INSECURE": "true"}
    result = published.run(env)
    assert result.code == 0, result.stderr
    assert published.clients.digest(f"{published.name}:latest") == published.digest


@kinds(*PLAIN)
def test_plain_http_names_the_variable(published: Published) -> None:
    result = published.run({"PLP_REGISTRY_INSECURE": None})
    assert (result.code, result.error) == (1, "registry-not-reachable"), result.stderr
    assert "PLP_REGISTRY_INSECURE=true" in result.stderr
    assert not published.registry.requests()
