"""Every request of a push meets every fault: what the publisher makes of it.

As often as it may try again, or less: success, and every tag right. More often: the documented
exit code. In no case does ``latest`` show what a tag of the version does not.
"""

from __future__ import annotations

import copy
import hashlib
import json
import uuid
from collections.abc import Iterable, Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from functools import partial
from pathlib import Path
from typing import NamedTuple

import pytest

from tests.support import layouts, publication, scripted_registry
from tests.support.publication import Result
from tests.support.registries import Clients
from tests.support.registry_store import Repository, digest_of
from tests.support.scripted_registry import FAULTS, ScriptedRegistry
from tests.support.skopeo import Skopeo

CREDENTIALS = ("publisher", "a-password")
REPOSITORY = "team/app"
STAYING = {"1.2.3", "main-0123456"}
MOVING = {"1.2", "1", "main", "latest"}
RETRIES = 2
AT_ONCE = 6

ENDPOINTS = (
    "ping",
    "token",
    "blob-head",
    "upload-start",
    "upload-data",
    "upload-finish",
    "manifest-put",
    "manifest-get",
)
PASSING = (
    *("408", "408-json", "429", "429-retry-after", "500", "503"),
    *("reset", "lost", "stall", "truncated", "wrong-digest", "wrong-content"),
)
"""Faults that may be gone at the next attempt."""
LASTING = ("401", "403", "404")


class Cell(NamedTuple):
    """A fault of an endpoint that comes ``times`` times, or always (None)."""

    endpoint: str
    fault: str
    times: int | None

    def __str__(self) -> str:
        return f"{self.endpoint} {self.fault} {self.times or 'always'}"


HARMLESS = frozenset(
    {
        # Nobody reads a digest there, or what is wrong with it is not the content's matter.
        *((endpoint, "wrong-digest") for endpoint in ENDPOINTS),
        *((endpoint, "wrong-content") for endpoint in ("ping", "token", "blob-head")),
        ("upload-start", "wrong-content"),
        # The answer has all it needs in its header, or is asked for by its status alone.
        *((endpoint, "truncated") for endpoint in ("ping",)),
        # 401 is how every registry with a password begins; of a blob, that it is not there yet.
        ("ping", "401"),
        ("blob-head", "404"),
    }
)
"""Faults that a push may survive however often they come: success has to be one, too."""

CODES = {"401": 2, "403": 2}
"""Exit codes of faults that last; all others are 1."""


@pytest.fixture
def archive(tmp_path: Path) -> Path:
    path = tmp_path / "image.tar"
    path.write_bytes(layouts.tar_of(layouts.two_platforms(20_000)))
    return path


def content(archive: Path) -> Repository:
    """A repository that holds what is in the archive, told by nothing but tarfile."""
    import tarfile

    found = Repository()
    with tarfile.open(archive) as tar:
        for member in tar:
            file = tar.extractfile(member)
            if file and member.name.startswith("blobs/"):
                data = file.read()
                found.blobs[digest_of(data)] = data
        index = tar.extractfile("index.json")
        assert index is not None
        (entry,) = json.load(index)["manifests"]
    waiting = [entry]
    for descriptor in waiting:
        data = found.blobs.pop(descriptor["digest"])
        found.manifests[descriptor["digest"]] = descriptor["mediaType"], data
        waiting += json.loads(data).get("manifests", ())
    found.tags = {"": entry["digest"]}
    return found


def older() -> Repository:
    """A repository with the release before: every moving tag points to it."""
    blob, config = b"an older layer", b'{"architecture":"amd64","os":"linux"}'
    files: layouts.Files = {}
    document = {
        "schemaVersion": 2,
        "mediaType": layouts.MANIFEST,
        "config": layouts.add_blob(files, config, layouts.CONFIG),
        "layers": [layouts.add_blob(files, blob, layouts.LAYER)],
    }
    data = json.dumps(document).encode()
    digest = digest_of(data)
    blobs = {digest_of(each): each for each in (blob, config)}
    return Repository(blobs, {digest: (layouts.MANIFEST, data)}, dict.fromkeys(MOVING, digest))


def variables(registry: ScriptedRegistry, archive: Path, **more: str) -> dict[str, str]:
    return {
        "PLP_ARTIFACT_PATH": str(archive),
        "PLP_IMAGE_REPOSITORY": f"{registry.address}/{REPOSITORY}",
        "PLP_TAG": "v1.2.3",
        "PLP_BRANCH": "main",
        "PLP_COMMIT_SHA": "0123456789abcdef0123456789abcdef01234567",
        "PLP_IS_DEFAULT_BRANCH": "true",
        "PLP_REGISTRY_USERNAME": CREDENTIALS[0],
        "PLP_REGISTRY_PASSWORD": CREDENTIALS[1],
        "PLP_REGISTRY_INSECURE": "true",
        "PLP_PUSH_RETRIES": str(RETRIES),
        **more,
    }


@contextmanager
def registry_with_older(guard: str) -> Iterator[ScriptedRegistry]:
    with scripted_registry.running(guard, CREDENTIALS) as registry:
        registry.store.repositories[REPOSITORY] = copy.deepcopy(older())
        yield registry


def run_cell(cell: Cell, archive: Path, skopeo: Skopeo, directory: Path) -> list[str]:
    """What is wrong with what the publisher did in this cell: a sentence each."""
    home = directory / uuid.uuid4().hex
    more = {"PLP_STALL_TIMEOUT": "3s"} if cell.fault == "stall" else {}
    with registry_with_older("token" if cell.endpoint == "token" else "basic") as registry:
        registry.fail(cell.endpoint, FAULTS[cell.fault], cell.times)
        result = publication.run(variables(registry, archive, **more), skopeo, home)
        registry.forgive()
        met = any(seen.endpoint == cell.endpoint for seen in registry.seen)
        problems = [] if met else ["no request met the fault"]
        problems += wrong_outcome(cell, result)
        problems += wrong_tags(registry, content(archive), result)
        if result.code == 0:
            clients = Clients(registry.address, home / "clients", CREDENTIALS)
            read = clients.regctl("manifest", "head", f"{{}}/{REPOSITORY}:1.2.3").strip()
            if read != content(archive).tags[""]:
                problems.append(f"regctl reads {read}")
    return [f"{skopeo.name}, {cell}: {problem}\n{result.stderr}" for problem in problems]


def wrong_outcome(cell: Cell, result: Result) -> Iterator[str]:
    """The exit code and what a failure leaves behind."""
    known = {1, CODES.get(cell.fault, 1)}
    enough = cell.times is not None and cell.times <= RETRIES
    if (cell.endpoint, cell.fault) in HARMLESS:
        allowed = {0, *known}
    elif enough and (cell.endpoint, cell.fault) == ("manifest-get", "404"):
        allowed = {0}  # so it was before the first push
    elif cell.fault in PASSING:
        allowed = {0} if enough else {1}
    else:
        allowed = {CODES.get(cell.fault, 1)}
    if result.code not in allowed:
        yield f"exit code {result.code}, not {sorted(allowed)}"
    if result.left_files:
        yield f"left {result.left_files}"
    if result.code and not result.error:
        yield "no error in the result"


def wrong_tags(registry: ScriptedRegistry, wanted: Repository, result: Result) -> Iterator[str]:
    """What a user would get by a tag who pulls now."""
    digest = wanted.tags[""]
    tags = registry.tags(REPOSITORY)
    repository = registry.store.repositories[REPOSITORY]
    if result.code == 0:
        if tags != dict.fromkeys(STAYING | MOVING, digest):
            yield f"tags {tags}"
        if not wanted.blobs.items() <= repository.blobs.items():
            yield "blobs are missing"
        if not wanted.manifests.items() <= repository.manifests.items():
            yield "manifests are missing"
    before = older().tags
    moved = {name for name in MOVING if tags[name] != before[name]}
    if moved and {tags.get(name) for name in STAYING} != {digest}:
        yield f"{sorted(moved)} moved before the tags that stay were right: {tags}"
    if "latest" in moved and {tags[name] for name in MOVING - {"latest"}} != {digest}:
        yield f"latest is ahead: {tags}"
    told = {tag["name"] for tag in result.document.get("tags", ()) if tag["state"] == "pushed"}
    if lied := [name for name in told if tags.get(name) != digest]:
        yield f"told as pushed, but is not: {lied}"


def run_cells(
    each: Iterable[Cell], archive: Path, skopeo: Skopeo, directory: Path
) -> tuple[int, list[str]]:
    """Several cells at the same time: most of it is waiting."""
    run = partial(run_cell, archive=archive, skopeo=skopeo, directory=directory)
    with ThreadPoolExecutor(AT_ONCE) as pool:
        problems = list(pool.map(run, each))
    return len(problems), [problem for cell in problems for problem in cell]


SAMPLE = (
    Cell("blob-head", "500", 2),
    Cell("upload-start", "429-retry-after", 1),
    Cell("upload-data", "reset", 2),
    Cell("upload-data", "stall", 1),
    Cell("upload-finish", "lost", 1),
    Cell("upload-finish", "403", None),
    Cell("manifest-put", "truncated", 2),
    Cell("manifest-put", "wrong-content", 1),
    Cell("manifest-put", "503", None),
    Cell("manifest-get", "408", 2),
    Cell("manifest-get", "wrong-content", None),
    Cell("upload-start", "404", None),
    Cell("token", "401", None),
    Cell("token", "503", 1),
)


def test_faults_that_pass_are_survived(archive: Path, skopeo: Skopeo, tmp_path: Path) -> None:
    number, problems = run_cells(SAMPLE, archive, skopeo, tmp_path)
    assert number == len(SAMPLE)
    assert not problems, "\n".join(problems)


@pytest.mark.soak
@pytest.mark.timeout(3600)
@pytest.mark.parametrize("times", [RETRIES, None], ids=["retries", "always"])
@pytest.mark.parametrize("endpoint", ENDPOINTS)
def test_every_fault_everywhere(
    endpoint: str, times: int | None, archive: Path, skopeo: Skopeo, tmp_path: Path
) -> None:
    every = [Cell(endpoint, fault, times) for fault in (*PASSING, *LASTING)]
    number, problems = run_cells(every, archive, skopeo, tmp_path)
    assert number == len(PASSING) + len(LASTING)
    assert not problems, f"{len(problems)} of {number}:\n" + "\n".join(problems)


@pytest.mark.parametrize("endpoint", ["ping", "upload-start"])
def test_the_registry_says_when_to_come_back(
    endpoint: str, archive: Path, skopeo: Skopeo, tmp_path: Path
) -> None:
    """Longer than anybody would wait by themselves: skopeo 2 seconds, the publisher 6."""
    seconds = 7
    with registry_with_older("basic") as registry:
        registry.fail(endpoint, scripted_registry.busy(seconds))
        result = publication.run(variables(registry, archive), skopeo, tmp_path)
        assert result.code == 0, result.stderr
        (met,) = [number for number, seen in enumerate(registry.seen) if seen.answer == "429"]
        # Blobs that are sent at the same time go on; what was refused is not asked again.
        later = [seen.when for seen in registry.seen[met + 1 :] if seen.endpoint == endpoint]
        assert later
        if endpoint == "ping":
            assert later[0] - registry.seen[met].when >= seconds
        assert registry.seen[-1].when - registry.seen[met].when >= seconds


def test_a_second_run_completes_the_first(archive: Path, skopeo: Skopeo, tmp_path: Path) -> None:
    """What has arrived is not sent again, and a third run sends nothing at all."""
    with registry_with_older("basic") as registry:
        env = variables(registry, archive, PLP_PUSH_RETRIES="0")
        registry.fail("manifest-put", FAULTS["503"], None, where="/main-0123456")
        first = publication.run(env, skopeo, tmp_path / "first")
        assert (first.code, first.error) == (1, "push-failed"), first.stderr
        digest = content(archive).tags[""]
        assert registry.tags(REPOSITORY)["1.2.3"] == digest
        assert registry.tags(REPOSITORY)["latest"] != digest
        registry.forgive()
        registry.seen.clear()
        second = publication.run(env, skopeo, tmp_path / "second")
        assert second.code == 0, second.stderr
        assert registry.tags(REPOSITORY) == dict.fromkeys(STAYING | MOVING, digest)
        assert not [seen for seen in registry.seen if seen.endpoint.startswith("upload")]
        registry.seen.clear()
        third = publication.run(env, skopeo, tmp_path / "third")
        assert third.code == 0, third.stderr
        assert {seen.method for seen in registry.seen} == {"GET"}
        states = {tag["name"]: tag["state"] for tag in third.document["tags"]}
        assert states == dict.fromkeys(STAYING | MOVING, "unchanged")


def test_the_matrix_can_fail(archive: Path, skopeo: Skopeo, tmp_path: Path) -> None:
    """What it checks is seen where it is wrong."""
    wanted = content(archive)
    digest = wanted.tags[""]
    result = Result(0, "", {"tags": [{"name": "1.2.3", "state": "pushed"}]}, ())
    with registry_with_older("basic") as registry:
        repository = registry.store.repositories[REPOSITORY]
        assert len(list(wrong_tags(registry, wanted, result))) == 4
        failed = result._replace(code=1, document={})
        assert not list(wrong_tags(registry, wanted, failed))
        repository.tags["latest"] = digest
        assert len(list(wrong_tags(registry, wanted, failed))) == 2
        repository.tags |= dict.fromkeys(STAYING, digest)
        assert len(list(wrong_tags(registry, wanted, failed))) == 1
    always = Cell("manifest-put", "500", None)
    assert list(wrong_outcome(always, result))
    assert list(wrong_outcome(always, result._replace(code=2)))
    assert not list(
        wrong_outcome(always, result._replace(code=1, document={"error": {"name": "x"}}))
    )
    assert hashlib.sha256(wanted.manifests[digest][1]).hexdigest() == digest[7:]
