"""The portable cache as a registry for real daemons: lazy, private, and gone with the build."""

from __future__ import annotations

import http.client
import os
import shutil
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Self

import pytest

from plp_builder.cache import index, staging
from plp_builder.cache.serving import CacheRegistry
from plp_builder.errors import CacheDamaged, Failure
from plp_builder.oci import layout
from plp_builder.oci.distribution import Reply, Request
from plp_builder.oci.model import Descriptor
from plp_builder.solve import LocalCache, RegistryCache
from tests.support import machine
from tests.support.builder import MakeWorkspace, RunBuilder
from tests.support.daemon import Daemon, context, running
from tests.support.machine import Tools
from tests.support.portable_build import Built, opened_read_only

STAGES = """\
FROM scratch AS first
COPY file0 /
COPY file1 /
FROM scratch
COPY file2 /
COPY --from=first /file1 /from-first
COPY file3 /
"""
ALL = 5
FILES = [b"zero" * 100_000, b"one", b"two" * 100_000, b"three"]


@pytest.fixture(scope="module")
def daemons() -> Iterator[dict[str, Daemon]]:
    with (
        running(machine.tools("current")) as current,
        running(machine.tools("compat")) as compat,
    ):
        yield {"current": current, "compat": compat}


@pytest.fixture(params=["current", "compat"])
def daemon(request: pytest.FixtureRequest, daemons: dict[str, Daemon]) -> Daemon:
    """Each version of BuildKit, with nothing left of earlier builds."""
    daemons[request.param].forget()
    return daemons[request.param]


@pytest.fixture
def source(tmp_path: Path) -> Path:
    """A project of two stages; the first one's layers are not in the image."""
    made = context(tmp_path / "source", FILES)
    (made / "Dockerfile").write_text(STAGES)
    return made


@pytest.fixture
def asked(monkeypatch: pytest.MonkeyPatch) -> list[str]:
    """The paths that any registry of the cache was asked for and had, without names."""
    paths: list[str] = []
    real = CacheRegistry.answer

    def answer(self: CacheRegistry, request: Request) -> Reply:
        reply = real(self, request)
        if reply.status.startswith("2") and request.method == "GET":
            paths.append(request.path.split("/", 3)[-1])
        return reply

    monkeypatch.setattr(CacheRegistry, "answer", answer)
    return paths


def entry(cache: Path, tag: str = "app") -> Descriptor:
    found = index.read(cache / "buildkit").entries
    return next(each for each in found if index.tag_of(each) == tag)


def layers(cache: Path) -> list[str]:
    """Digests of the layers that the entry holds."""
    nodes = layout.reachable(cache / "buildkit", entry(cache))
    return [str(node.descriptor.digest) for node in nodes if "layer" in node.descriptor.media_type]


def test_an_unchanged_image_fetches_its_own_layers_alone(
    daemon: Daemon, source: Path, tmp_path: Path, asked: list[str]
) -> None:
    cache = tmp_path / "cache"
    cold = Built(daemon, source, cache)
    daemon.forget()
    warm = Built(daemon, source, cache)
    assert [type(each) for each in warm.imports] == [RegistryCache]
    assert warm.cached == warm.steps == ALL
    assert warm.digest == cold.digest
    assert cold.exported
    assert not warm.exported
    fetched = {path.removeprefix("blobs/") for path in asked}
    assert len(fetched & set(layers(cache))) == 3 < len(layers(cache))
    assert cold.warnings + warm.warnings == []


def test_what_is_not_fetched_stays_in_the_cache(
    daemon: Daemon, source: Path, tmp_path: Path
) -> None:
    """The first stage is never unpacked when only the last step changes."""
    cache = tmp_path / "cache"
    Built(daemon, source, cache)
    before = layers(cache)
    daemon.forget()
    (source / "file3").write_bytes(b"changed")
    changed = Built(daemon, source, cache)
    assert (changed.cached, changed.exported) == (ALL - 1, True)
    after = layers(cache)
    assert len(after) == len(before) == ALL
    assert len(set(after) & set(before)) == ALL - 1
    daemon.forget()
    again = Built(daemon, source, cache)
    assert again.cached == ALL
    assert again.digest == changed.digest


def test_what_is_there_is_not_written_again(daemon: Daemon, source: Path, tmp_path: Path) -> None:
    cache = tmp_path / "cache"
    Built(daemon, source, cache)
    before = inodes(cache)
    daemon.forget()
    (source / "file3").write_bytes(b"changed")
    Built(daemon, source, cache)
    after = inodes(cache)
    assert len(after.keys() - before.keys()) == 3  # a layer, the entry, its configuration
    assert all(after[name] == before[name] for name in after.keys() & before.keys())


def inodes(cache: Path) -> dict[str, int]:
    return {path.name: path.stat().st_ino for path in (cache / "buildkit/blobs/sha256").iterdir()}


def test_an_image_that_was_never_built_takes_layers_of_several_others(
    daemon: Daemon, tmp_path: Path
) -> None:
    cache = tmp_path / "cache"
    for name in ("one", "two", "three", "four"):
        made = context(tmp_path / name, [b"shared by nobody", name.encode() * 1000])
        Built(daemon, made, cache, name)
        daemon.forget()
    new = Built(daemon, context(tmp_path / "new", [b"shared by nobody", b"two" * 1000]), cache)
    assert len(new.imports) == 3
    assert (new.steps, new.cached, new.exported) == (2, 2, True)


def test_another_version_takes_them_too(
    daemons: dict[str, Daemon], source: Path, tmp_path: Path
) -> None:
    for daemon in daemons.values():
        daemon.forget()
    made, used = daemons["compat"], daemons["current"]
    Built(made, source, tmp_path / "cache")
    assert Built(used, source, tmp_path / "cache").cached == ALL
    (source / "file3").write_bytes(b"changed")
    Built(used, source, tmp_path / "cache")
    made.forget()
    assert Built(made, source, tmp_path / "cache").cached == ALL


def test_without_hard_links_it_is_served_from_the_cache_itself(
    daemon: Daemon, source: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    cache = tmp_path / "cache"
    cold = Built(daemon, source, cache)
    daemon.forget()
    found = unlinked(cache, monkeypatch)
    warm = Built(daemon, source, cache, found=found)
    assert warm.cached == ALL
    assert warm.digest == cold.digest
    assert warm.warnings == []


def unlinked(cache: Path, monkeypatch: pytest.MonkeyPatch) -> staging.Staged:
    def cannot(*_: object, **__: object) -> None:
        raise PermissionError

    with monkeypatch.context() as patch:
        patch.setattr(os, "link", cannot)
        found = staging.prepare(cache, "app", check=lambda: None, warn=lambda _: None)
    assert found
    assert found.imports[0].path == found.layout
    return found


@pytest.mark.parametrize("change", ["", "file2"], ids=["unchanged", "changed"])
@pytest.mark.parametrize("damage", ["missing", "short", "other"])
def test_a_layer_that_cannot_be_fetched_costs_the_cache(
    daemon: Daemon,
    source: Path,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    damage: str,
    change: str,
) -> None:
    """Damaged or removed while the build goes on, where it has no links of its own."""
    cache = tmp_path / "cache"
    cold = Built(daemon, source, cache)
    daemon.forget()
    if change:
        (source / change).write_bytes(b"changed")
    found = unlinked(cache, monkeypatch)
    for digest in layers(cache):
        path = cache / "buildkit/blobs/sha256" / digest.removeprefix("sha256:")
        data = path.read_bytes()
        path.unlink()
        if damage != "missing":
            path.write_bytes(data[:-9] + (b"" if damage == "short" else b"x" * 9))
    built = Built(daemon, source, cache, found=found)
    assert [type(warning) for warning in built.warnings] == [CacheDamaged]
    assert not built.exported
    assert (built.digest == cold.digest) == (not change)
    daemon.forget()
    again = Built(daemon, source, cache)
    assert again.digest == built.digest
    assert again.exported
    daemon.forget()
    assert Built(daemon, source, cache).cached == ALL


def test_content_changed_behind_the_record_is_found(
    daemon: Daemon, source: Path, tmp_path: Path
) -> None:
    """With size, time and inode as they were; the build after it puts the layer aside."""
    cache = tmp_path / "cache"
    cold = Built(daemon, source, cache)
    daemon.forget()
    for digest in layers(cache):
        path = cache / "buildkit/blobs/sha256" / digest.removeprefix("sha256:")
        status = path.stat()
        path.chmod(0o644)
        with path.open("r+b") as file:
            file.seek(-9, os.SEEK_END)
            file.write(b"x" * 9)
        os.utime(path, ns=(status.st_atime_ns, status.st_mtime_ns))
    built = Built(daemon, source, cache)
    assert built.digest == cold.digest
    assert [type(warning) for warning in built.warnings] == [CacheDamaged]
    daemon.forget()
    after = Built(daemon, source, cache)
    assert [warning.what for warning in after.warnings if "put aside" in warning.what]
    assert after.exported
    daemon.forget()
    last = Built(daemon, source, cache)
    assert (last.cached, last.warnings) == (ALL, [])


def test_a_read_only_cache_is_served_too(daemon: Daemon, source: Path, tmp_path: Path) -> None:
    cache = tmp_path / "cache"
    cold = Built(daemon, source, cache)
    daemon.forget()
    warnings: list[Failure] = []
    warm = Built(daemon, source, cache, found=opened_read_only(cache, "app", warnings))
    assert [type(each) for each in warm.imports] == [RegistryCache]
    assert (warm.cached, warm.exported, warm.cache.layout) == (ALL, False, None)
    assert warm.digest == cold.digest


def test_where_nothing_can_listen_the_layout_is_imported(
    daemon: Daemon, source: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def cannot(_: CacheRegistry) -> CacheRegistry:
        raise OSError("Cannot assign requested address")

    cache = tmp_path / "cache"
    Built(daemon, source, cache)
    daemon.forget()
    monkeypatch.setattr(CacheRegistry, "__enter__", cannot)
    warm = Built(daemon, source, cache)
    assert [type(each) for each in warm.imports] == [LocalCache]
    assert (warm.cached, warm.warnings) == (ALL, [])


class Served:
    """A registry that runs, and who asks it."""

    def __init__(self, cache: Path, readers: frozenset[int]) -> None:
        found = staging.prepare(cache, "app", check=lambda: None, warn=lambda _: None)
        assert found
        self.staged = found
        self.registry = CacheRegistry(found.directory, found.blobs, readers)
        self.digest = found.imports[0].digest

    def __enter__(self) -> Self:
        self.registry.__enter__()
        return self

    def __exit__(self, *_: object) -> None:
        self.registry.__exit__(None, None, None)
        staging.discard(self.staged)

    @property
    def url(self) -> str:
        address, _, rest = self.registry.reference(self.digest).partition("/")
        return f"http://{address}/v2/{rest.partition('@')[0]}/manifests/{self.digest}"

    def get(self) -> int:
        host, _, path = self.url.removeprefix("http://").partition("/")
        client = http.client.HTTPConnection(host, timeout=20)
        try:
            client.request("GET", f"/{path}")
            return client.getresponse().status
        finally:
            client.close()

    def get_as(self, uid: int) -> str:
        """What another user gets: a status, or the name of an error."""
        program = (
            "import encodings.idna, os, urllib.request\n"
            f"os.setuid({uid})\n"
            "try:\n"
            f"    print(urllib.request.urlopen({self.url!r}, timeout=20).status)\n"
            "except Exception as error:\n"
            "    print(type(error).__name__)\n"
        )
        done = subprocess.run(
            [sys.executable, "-I", "-S", "-c", program],
            capture_output=True, text=True, timeout=60, check=True,
        )  # fmt: skip
        return done.stdout.strip()


@pytest.fixture
def cache(daemon: Daemon, tmp_path: Path) -> Path:
    place = tmp_path / "cache"
    Built(daemon, context(tmp_path / "source", FILES[:2]), place)
    return place


@pytest.mark.skipif(os.geteuid() != 0, reason="needs several users")
def test_only_those_who_build_are_answered(cache: Path) -> None:
    with Served(cache, frozenset({os.geteuid(), 4321})) as served:
        assert served.get() == 200
        assert served.get_as(4321) == "200"
        assert served.get_as(4322) in {"ConnectionResetError", "RemoteDisconnected"}
        assert served.get() == 200


def test_it_is_gone_with_the_build(cache: Path) -> None:
    with Served(cache, frozenset()) as served:
        assert served.get() == 200
    with pytest.raises(ConnectionRefusedError):
        served.get()


def test_the_builder_imports_from_it(
    workspace: MakeWorkspace, run_builder: RunBuilder, buildkit: Tools
) -> None:
    """Unprivileged, offline, and from another machine's cache directory."""
    place = workspace("unprivileged").write({"Dockerfile": STAGES, "file0": "0", "file1": "1"})
    place.write({"file2": "2", "file3": "3"})
    env = {
        **place.env,
        "GIT_REPOSITORY_URL": "https://git.example/app",
        "PLP_CACHE_STRATEGY": "portable",
        "PLP_LOG_FORMAT": "json",
        "PLP_DEBUG": "true",
    }
    cold = run_builder(env, tools=buildkit)
    assert cold.code == 0, cold.output
    shutil.rmtree(place.build)
    place.make()
    warm = run_builder({**env, "PLP_OFFLINE": "true"}, tools=buildkit)
    assert warm.code == 0, warm.output
    assert '"event":"the cache is served as a registry"' in warm.stderr
    assert f'"steps":{ALL},"cached":{ALL}' in warm.stderr
    assert warm.archive.exists()
