"""The scripted registry is certified here: clients and distribution v3 are the measure."""

from __future__ import annotations

import http.client
import json
import re
import tarfile
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import NamedTuple

import pytest

from tests.support import layouts, scripted_registry
from tests.support.registries import Clients, Kind, Registries
from tests.support.registry_store import digest_of
from tests.support.scripted_registry import FAULTS, WRONG, ScriptedRegistry
from tests.support.skopeo import Skopeo

CREDENTIALS = ("publisher", "a-password")


@pytest.fixture(params=["", "basic", "token"], ids=["open", "basic", "token"])
def guarded(request: pytest.FixtureRequest) -> Iterator[ScriptedRegistry]:
    with scripted_registry.running(request.param, CREDENTIALS) as registry:
        yield registry


@pytest.fixture
def scripted() -> Iterator[ScriptedRegistry]:
    with scripted_registry.running() as registry:
        yield registry


@pytest.fixture
def archive(tmp_path: Path) -> Path:
    path = tmp_path / "image.tar"
    path.write_bytes(layouts.tar_of(layouts.two_platforms(50_000)))
    return path


def top(archive: Path) -> str:
    """The digest of an archive's one entry, told by tar."""
    with tarfile.open(archive) as tar:
        file = tar.extractfile("index.json")
        assert file is not None
        digest: str = json.load(file)["manifests"][0]["digest"]
        return digest


def push(skopeo: Skopeo, registry: ScriptedRegistry, archive: Path, name: str) -> tuple[int, str]:
    options = ["--all", "--preserve-digests", "--dest-tls-verify=false"]
    options += [f"--dest-creds={':'.join(CREDENTIALS)}"] if registry.guard else []
    target = f"docker://{registry.address}/{name}"
    done = skopeo.run("copy", *options, f"oci-archive:{archive}", target)
    return done.returncode, done.stderr


def test_real_clients_push_and_pull(
    guarded: ScriptedRegistry, skopeo: Skopeo, archive: Path, tmp_path: Path
) -> None:
    """skopeo pushes; crane and regctl copy it on; each copy is the same to the byte."""
    assert push(skopeo, guarded, archive, "team/app:1.0") == (0, "")
    digest = top(archive)
    credentials = CREDENTIALS if guarded.guard else None
    clients = Clients(guarded.address, tmp_path / "home", credentials)
    assert clients.digest("team/app:1.0") == digest
    clients.crane("copy", "{}/team/app:1.0", "{}/copied/by-crane:2.0")
    clients.regctl("image", "copy", "{}/team/app:1.0", "{}/copied/by-regctl:2.0")
    copied = ("copied/by-crane", "copied/by-regctl")
    original = guarded.store.repositories["team/app"]
    for name in copied:
        there = guarded.store.repositories[name]
        assert there.tags == {"2.0": digest}
        assert there.blobs == original.blobs
        assert there.manifests == original.manifests
    for blob, data in original.blobs.items():
        assert digest_of(data) == blob
    clients.crane("pull", "--format=oci", "{}/team/app:1.0", str(tmp_path / "layout"))
    for blob, data in original.blobs.items():
        assert (tmp_path / "layout/blobs" / blob.replace(":", "/")).read_bytes() == data
    back = tmp_path / "back.tar"
    options = [f"--src-creds={':'.join(CREDENTIALS)}"] if guarded.guard else []
    pulled = skopeo.run(
        *("copy", "--all", "--preserve-digests", "--src-tls-verify=false", *options),
        *(f"docker://{guarded.address}/team/app:1.0", f"oci-archive:{back}"),
    )
    assert pulled.returncode == 0, pulled.stderr
    assert top(back) == digest


def test_nobody_gets_in_without_the_password(guarded: ScriptedRegistry, tmp_path: Path) -> None:
    if not guarded.guard:
        assert ask(guarded.address, "GET", "/v2/").status == 200
        return
    assert ask(guarded.address, "GET", "/v1/_ping").status == 404
    refused = ask(guarded.address, "PUT", "/v2/team/app/manifests/1.0", b"{}")
    assert refused.status == 401
    assert refused.headers["www-authenticate"].lower().startswith(("basic", "bearer"))
    assert not guarded.store.repositories
    clients = Clients(guarded.address, tmp_path, ("publisher", "wrong"))
    with pytest.raises(AssertionError, match=r"(?i)unauthorized|authentication"):
        clients.crane("ls", "{}/team/app")


class Answer(NamedTuple):
    """What came back; the names of headers in lower case."""

    status: int
    headers: Mapping[str, str]
    body: bytes


def ask(
    address: str, method: str, target: str, body: bytes = b"", headers: Mapping[str, str] = {}
) -> Answer:
    connection = http.client.HTTPConnection(address, timeout=30)
    try:
        connection.request(method, target, body or None, dict(headers))
        answer = connection.getresponse()
        names = {name.lower(): value for name, value in answer.getheaders()}
        return Answer(answer.status, names, answer.read())
    finally:
        connection.close()


BLOB = b"a layer"
OTHER = b"another layer"
CONFIG = b'{"architecture":"amd64","os":"linux"}'


def manifest(*layers: bytes) -> bytes:
    def descriptor(data: bytes, kind: str) -> layouts.Json:
        return {"mediaType": kind, "digest": digest_of(data), "size": len(data)}

    document = {
        "schemaVersion": 2,
        "mediaType": layouts.MANIFEST,
        "config": descriptor(CONFIG, layouts.CONFIG),
        "layers": [descriptor(layer, layouts.LAYER) for layer in layers],
    }
    return json.dumps(document).encode()


@dataclass
class Conversation:
    """A list of requests to one registry, and what each got."""

    address: str
    got: list[tuple[str, Answer]]

    def ask(
        self, method: str, target: str, body: bytes = b"", headers: Mapping[str, str] = {}
    ) -> Answer:
        answer = ask(self.address, method, target, body, headers)
        self.got.append((f"{method} {target}", answer))
        return answer

    def upload(self, data: bytes, digest: str, *, pieces: int = 1) -> None:
        where = self._path(self.ask("POST", "/v2/team/app/blobs/uploads/"))
        size = len(data) // pieces
        for number in range(pieces):
            last = number == pieces - 1
            piece = data[number * size : None if last else (number + 1) * size]
            where = self._path(self.ask("PATCH", where, piece, STREAM))
            self.ask("GET", where)
        self.ask("PUT", f"{where}&digest={digest}", b"", STREAM)

    @staticmethod
    def _path(answer: Answer) -> str:
        return re.sub(r"^https?://[^/]+", "", answer.headers["location"])


STREAM = {"Content-Type": "application/octet-stream"}
MANIFEST = {"Content-Type": layouts.MANIFEST}


def converse(address: str) -> list[tuple[str, Answer]]:
    """All that a publisher asks for, in good and in bad order."""
    talk = Conversation(address, [])
    app = "/v2/team/app"
    talk.ask("GET", "/v2/")
    for elsewhere in ("/v1/_ping", "/v2/team/app/nothing", "/elsewhere"):
        assert talk.ask("GET", elsewhere).status == 404
        talk.got.pop()  # no client reads more than that
    for method in ("HEAD", "GET"):
        talk.ask(method, f"{app}/manifests/1.0")
        talk.ask(method, f"{app}/manifests/{WRONG}")
        talk.ask(method, f"{app}/blobs/{digest_of(BLOB)}")
    talk.ask("GET", f"{app}/tags/list")
    talk.upload(BLOB, digest_of(BLOB))
    talk.upload(OTHER, digest_of(OTHER), pieces=3)
    talk.upload(CONFIG, digest_of(CONFIG))
    talk.upload(b"some bytes", digest_of(b"quite other bytes"))
    nowhere = f"{app}/blobs/uploads/00000000-0000-0000-0000-000000000000"
    talk.ask("PATCH", nowhere, b"bytes", STREAM)
    for method in ("HEAD", "GET"):
        talk.ask(method, f"{app}/blobs/{digest_of(OTHER)}")
    talk.ask("GET", f"{app}/blobs/{digest_of(OTHER)}", b"", {"Range": "bytes=2-5"})
    good, digest = manifest(BLOB, OTHER), digest_of(manifest(BLOB, OTHER))
    talk.ask("PUT", f"{app}/manifests/1.0", b"this is no JSON", MANIFEST)
    talk.ask("PUT", f"{app}/manifests/1.0", manifest(b"never sent"), MANIFEST)
    talk.ask("PUT", f"{app}/manifests/{WRONG}", good, MANIFEST)
    talk.ask("PUT", f"{app}/manifests/{digest}", good, MANIFEST)
    talk.ask("PUT", f"{app}/manifests/1.0", good, MANIFEST)
    talk.ask("PUT", f"{app}/manifests/1.0", good, MANIFEST)
    for method in ("HEAD", "GET"):
        for what in ("1.0", digest, "2.0"):
            talk.ask(method, f"{app}/manifests/{what}", b"", {"Accept": layouts.MANIFEST})
    talk.ask("GET", f"{app}/tags/list")
    talk.ask("POST", f"/v2/team/two/blobs/uploads/?mount={digest_of(BLOB)}&from=team/app")
    talk.ask("POST", f"/v2/team/two/blobs/uploads/?mount={WRONG}&from=team/app")
    talk.ask("HEAD", f"/v2/team/two/blobs/{digest_of(BLOB)}")
    return talk.got


COMPARED = ("content-type", "docker-content-digest", "content-range", "etag", "content-length")


def comparable(said: str, answer: Answer, address: str) -> object:
    """What of an answer must be the same of every registry."""
    body: object = answer.body
    if answer.status >= 400:
        codes = [error["code"] for error in json.loads(answer.body or b'{"errors":[]}')["errors"]]
        body = codes
    elif said.endswith("/tags/list"):
        body = json.loads(answer.body)
    headers = {name: answer.headers.get(name, "") for name in COMPARED}
    # The wording of these, and with it the length, are each registry's own.
    if answer.status >= 400 or said.endswith("/tags/list"):
        headers.pop("content-length")
        headers["content-type"] = headers["content-type"].partition(";")[0]
    headers["range"] = answer.headers.get("range", "")
    headers["version"] = answer.headers["docker-distribution-api-version"]
    location = answer.headers.get("location", "").replace(address, "ADDRESS")
    uploads = re.compile(r"(uploads/)[0-9a-f-]+(\?.*)?")
    return (
        uploads.sub(r"\1UPLOAD", said),
        answer.status,
        {name: value for name, value in headers.items() if value},
        uploads.sub(r"\1UPLOAD", location),
        body,
    )


def test_it_answers_like_distribution(
    scripted: ScriptedRegistry, guarded_registries: Registries
) -> None:
    real = guarded_registries[Kind("registry", "open")]
    theirs = [comparable(*got, real.address) for got in converse(real.address)]
    ours = [comparable(*got, scripted.address) for got in converse(scripted.address)]
    assert len(ours) == len(theirs) > 40
    for mine, reference in zip(ours, theirs, strict=True):
        assert mine == reference


def test_a_fault_comes_as_often_as_was_said(scripted: ScriptedRegistry) -> None:
    scripted.fail("ping", FAULTS["503"], 2, skip=1)
    assert [ask(scripted.address, "GET", "/v2/").status for _ in range(4)] == [200, 503, 503, 200]
    assert [seen.answer for seen in scripted.seen] == ["200", "503", "503", "200"]
    scripted.fail("manifest-head", FAULTS["404"], None, where="/1.0")
    for tag, code in (("1.0", 404), ("2.0", 404), ("1.0", 404)):
        assert ask(scripted.address, "HEAD", f"/v2/a/manifests/{tag}").status == code
    assert [seen.answer for seen in scripted.seen[4:]] == ["404"] * 3
    scripted.forgive()
    scripted.fail("*", FAULTS["429-retry-after"])
    assert ask(scripted.address, "GET", "/v2/").headers["retry-after"] == "1"


@pytest.mark.parametrize(
    ("fault", "expected"),
    [("reset", ConnectionResetError), ("lost", ConnectionResetError)],
)
@pytest.mark.parametrize("method", ["GET", "HEAD"])
def test_a_reset_is_one(
    fault: str, expected: type[Exception], method: str, scripted: ScriptedRegistry
) -> None:
    scripted.fail("*", FAULTS[fault])
    with pytest.raises(expected):
        ask(scripted.address, method, f"/v2/a/blobs/{WRONG}")


def test_a_stalled_request_ends_with_the_registry() -> None:
    with scripted_registry.running() as registry:
        registry.fail("ping", FAULTS["stall"])
        connection = http.client.HTTPConnection(registry.address, timeout=0.2)
        connection.request("GET", "/v2/")
        with pytest.raises(TimeoutError):
            connection.getresponse()
        connection.close()


def stored(registry: ScriptedRegistry) -> str:
    """A repository with one image under the tag 1.0; its digest."""
    talk = Conversation(registry.address, [])
    talk.upload(CONFIG, digest_of(CONFIG))
    talk.upload(BLOB, digest_of(BLOB))
    talk.ask("PUT", "/v2/team/app/manifests/1.0", manifest(BLOB), MANIFEST)
    return digest_of(manifest(BLOB))


def test_a_truncated_answer_is_cut(scripted: ScriptedRegistry) -> None:
    stored(scripted)
    scripted.fail("manifest-get", FAULTS["truncated"])
    with pytest.raises(http.client.IncompleteRead):
        ask(scripted.address, "GET", "/v2/team/app/manifests/1.0")
    scripted.fail("manifest-head", FAULTS["truncated"])
    scripted.fail("upload-start", FAULTS["truncated"])
    requests: list[Callable[[], Answer]] = [
        lambda: ask(scripted.address, "HEAD", "/v2/team/app/manifests/1.0"),
        lambda: ask(scripted.address, "POST", "/v2/team/app/blobs/uploads/"),
    ]
    for request in requests:
        try:
            answer = request()
        except (http.client.HTTPException, OSError):
            continue
        assert not {"location", "content-length"} <= set(answer.headers)


def test_a_wrong_digest_is_only_said(scripted: ScriptedRegistry) -> None:
    digest = stored(scripted)
    scripted.fail("manifest-get", FAULTS["wrong-digest"])
    answer = ask(scripted.address, "GET", "/v2/team/app/manifests/1.0")
    assert answer.headers["docker-content-digest"] == WRONG
    assert digest_of(answer.body) == digest


def test_wrong_content_is_stored_under_a_tag_alone(scripted: ScriptedRegistry) -> None:
    """What has a digest is compared with it, as every registry does."""
    scripted.fail("manifest-put", FAULTS["wrong-content"])
    digest = stored(scripted)
    answer = ask(scripted.address, "GET", "/v2/team/app/manifests/1.0")
    assert json.loads(answer.body) == json.loads(manifest(BLOB))
    assert digest_of(answer.body) == scripted.tags("team/app")["1.0"] != digest
    for endpoint in ("upload-data", "upload-finish"):
        scripted.fail(endpoint, FAULTS["wrong-content"])
        talk = Conversation(scripted.address, [])
        talk.upload(OTHER, digest_of(OTHER))
        assert talk.got[-1][1].status == 400
        assert b"DIGEST_INVALID" in talk.got[-1][1].body
    assert digest_of(OTHER) not in scripted.store.repositories["team/app"].blobs


@pytest.mark.parametrize("kind", ["reset", "503", "truncated"])
def test_a_client_notices(kind: str, scripted: ScriptedRegistry, archive: Path) -> None:
    """A fault that no client noticed would test nothing."""
    from tests.support import skopeo

    scripted.fail("manifest-put", FAULTS[kind], None)
    code, said = push(skopeo.find("system"), scripted, archive, "team/app:1.0")
    assert (code, bool(said)) == (1, True)
    assert scripted.tags("team/app") == {} or kind == "truncated"
