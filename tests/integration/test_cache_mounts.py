"""What cache mounts hold is there in the next build: with the state, and carried without it."""

from __future__ import annotations

import hashlib
import io
import json
import os
import shutil
import tarfile
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from tests.support import image, machine
from tests.support.builder import MakeWorkspace, Result, RunBuilder, StartBuilder, Workspace
from tests.support.machine import Tools
from tests.support.registry import Registry

LOST = "what cache mounts hold is lost when this build ends"
KEPT, RESTORED = "cache mounts kept", "cache mounts restored"
PORTABLE = {"PLP_CACHE_STRATEGY": "portable", "PLP_CACHE_MOUNTS": "all"}

COUNT = """\
FROM scratch AS work
COPY busybox /bin/busybox
SHELL ["/bin/busybox", "sh", "-c"]
ARG NUMBER=0
RUN --mount=type=cache,target=/store echo $NUMBER >> /store/log && cp /store/log /result
FROM scratch
COPY --from=work /result /
"""
"""The image holds the numbers of all builds whose steps have met in the mount."""

TREE = r"""
FROM scratch AS work
COPY busybox /bin/busybox
SHELL ["/bin/busybox", "sh", "-c"]
ARG NUMBER=0
RUN --mount=type=cache,target=/store,uid=1000,gid=50,mode=0750 \
    --mount=type=cache,id=one,target=/one <<EOF
set -e
if [ ! -e /store/made ]; then
    echo $NUMBER > /store/made
    cd /store
    mkdir -m 1777 empty
    mkdir -p deep/$(printf '%0100d' 0)/$(printf '%0250d' 1)
    echo deep > deep/$(printf '%0100d' 0)/$(printf '%0250d' 1)/file
    echo owned > owned && chown 1234:4321 owned && chmod 4751 owned
    ln owned hard
    ln -s /nowhere/at/all dangling
    ln -s made link && chown -h 7:8 link
    mkfifo -m 0600 pipe
    dd if=/dev/zero of=sparse bs=1 count=1 seek=50000000 2>/dev/null
    echo odd > "$(printf 'two\nlines')"
    echo odd > "$(printf 'latin \351')"
    echo odd > 'quotes " and '"'"' and \ and $(x)'
    echo odd > "$(printf '%0250d\377' 2)"
    echo odd > -dash
    touch -d '2001-02-03 04:05:06' owned
    chmod 0700 /store
fi
[ -e /one/made ] || echo $NUMBER > /one/made
cd /store
find . -exec stat -c '%A %u:%g %h %s %y %N' {} + | sort > /result
find . -type f ! -name made -exec sha256sum {} + | sort >> /result
[ $(du -k sparse | cut -f 1) -lt 1000 ] && echo it is sparse >> /result
cat /store/made /one/made > /made
EOF
FROM scratch
COPY --from=work /result /made /
"""
"""The image holds a listing of a mount full of oddities, and which build has made it."""


def put(place: Workspace, dockerfile: str) -> Workspace:
    """The project, whose base is a busybox of its own."""
    busybox = Path(machine.command("busybox")).read_bytes()
    place.write({"Dockerfile": dockerfile, "busybox": busybox})
    path = place.source / "busybox"
    path.chmod(0o755)
    return place


class Builds:
    """One build after the other in a workspace, each of which runs its steps."""

    def __init__(self, place: Workspace, run: RunBuilder, user: str, tools: Tools | None) -> None:
        self.place = place
        self.number = 0
        self._run, self._user, self._tools = run, user, tools

    def env(self, variables: dict[str, str]) -> dict[str, str]:
        self.number += 1
        number = {"PLP_BUILD_ARGS": f"NUMBER={self.number}"}
        return {**self.place.env, "PLP_DEBUG": "true", **number, **variables}

    def __call__(self, **variables: str) -> Result:
        env = self.env(variables)
        result = self._run(env, user=self._user, tools=self._tools, timeout=300)
        assert result.code == 0, result.output
        assert result.left_processes == ()
        assert result.left_files == ()
        return result

    def text(self, name: str = "result") -> str:
        return image.read(self.place.archive).files[name].decode("latin-1")

    def numbers(self) -> list[str]:
        return self.text().split()


@pytest.fixture
def builds(workspace: MakeWorkspace, run_builder: RunBuilder) -> Callable[..., Builds]:
    def make(
        dockerfile: str = COUNT, *, user: str = "unprivileged", tools: Tools | None = None
    ) -> Builds:
        return Builds(put(workspace(user), dockerfile), run_builder, user, tools)

    return make


@pytest.mark.parametrize("user", ["unprivileged", "root"])
def test_the_state_keeps_them(builds: Callable[..., Builds], user: str, buildkit: Tools) -> None:
    build = builds(user=user, tools=buildkit)
    for expected in (["1"], ["1", "2"], ["1", "2", "3"]):
        result = build(PLP_CACHE_STRATEGY="state")
        assert build.numbers() == expected
        assert LOST not in result.stderr
        assert KEPT not in result.stderr


def test_the_state_keeps_them_when_everything_is_killed(
    builds: Callable[..., Builds], start_builder: StartBuilder
) -> None:
    build = builds(COUNT.replace("cp ", "echo he''re && [ $NUMBER != 2 ] || sleep 600; cp "))
    build(PLP_CACHE_STRATEGY="state")
    run = start_builder(build.env({"PLP_CACHE_STRATEGY": "state"}))
    run.wait_for("here")
    run.destroy()
    build(PLP_CACHE_STRATEGY="state")
    assert build.numbers() == ["1", "2", "3"]


def test_packages_stay_in_a_mount_and_out_of_the_image(
    builds: Callable[..., Builds], registry: Registry
) -> None:
    build = builds(
        "FROM debian:trixie-slim\n"
        "ARG NUMBER\n"
        "RUN --mount=type=cache,target=/var/cache/apt,sharing=locked \\\n"
        "    --mount=type=cache,target=/var/lib/apt,sharing=locked \\\n"
        "    rm -f /etc/apt/apt.conf.d/docker-clean && \\\n"
        "    find /var/cache/apt -name 'hello_*.deb' > /found && \\\n"
        "    apt-get update && apt-get install -y --no-install-recommends hello && hello > /said\n"
    )
    for found in (False, True):
        build(**registry.env, PLP_CACHE_STRATEGY="state")
        files = image.read(build.place.archive).files
        assert files["said"] == b"Hello, world!\n"
        assert (b".deb" in files["found"]) == found
        assert not [path for path in files if path.endswith(".deb") or "apt/lists/" in path]


NO_SANDBOX = {"PLP_BUILDKITD_FLAGS": "--oci-worker-no-process-sandbox"}


@pytest.mark.parametrize(
    ("user", "version", "flags"),
    [
        ("unprivileged", "current", {}),
        ("unprivileged", "compat", {}),
        ("unprivileged", "current", NO_SANDBOX),
        ("root", "current", {}),
    ],
)
def test_carried_files_are_the_same(
    builds: Callable[..., Builds],
    tools: dict[str, Tools],
    user: str,
    version: str,
    flags: dict[str, str],
) -> None:
    """Owners, modes, times, links, holes and names, on a machine that has the cache only."""
    build = builds(TREE, user=user, tools=tools[version])
    first = build(**PORTABLE, **flags)
    assert KEPT in first.stderr
    listing = build.text()
    assert listing.count("\n") == 30
    second = build(**PORTABLE, **flags)
    assert RESTORED in second.stderr
    assert KEPT not in second.stderr
    assert build.text() == listing
    assert build.text("made") == "1\n1\n"
    for path in (build.place.cache / "buildkit" / "mounts").rglob("*"):
        assert path.stat().st_mode & 0o777 == (0o755 if path.is_dir() else 0o644), path


def test_what_has_changed_is_packed_again(builds: Callable[..., Builds]) -> None:
    build = builds()
    for expected in (["1"], ["1", "2"], ["1", "2", "3"]):
        result = build(**PORTABLE)
        assert build.numbers() == expected
        assert result.stderr.count(KEPT) == 1
        assert LOST not in result.stderr
        assert len(list(build.place.cache.rglob("mount.tar"))) == 1


def test_a_fresh_machine_begins_with_what_another_has_carried(
    builds: Callable[..., Builds],
) -> None:
    """With the state on both: only the portable cache comes along."""
    build = builds()
    auto = {"PLP_CACHE_STRATEGY": "auto", "PLP_CACHE_MOUNTS": "/store"}
    assert RESTORED not in build(**auto).stderr
    assert RESTORED not in build(**auto).stderr
    shutil.rmtree(build.place.cache / "state")
    assert RESTORED in build(**auto).stderr
    assert build.numbers() == ["1", "2", "3"]
    assert RESTORED not in build(**auto).stderr


def test_a_state_holds_no_second_copy(builds: Callable[..., Builds]) -> None:
    build = builds(
        COUNT.replace("echo $N", "dd if=/dev/urandom of=/store/large bs=1M count=30; echo $N")
    )
    build(PLP_CACHE_STRATEGY="auto", PLP_CACHE_MOUNTS="all")
    large = [
        path
        for path in (build.place.cache / "state").rglob("*")
        if path.is_file() and path.stat().st_size > 20_000_000
    ]
    assert [path.name for path in large] == ["large"]


def test_without_a_cache_a_mount_begins_empty(builds: Callable[..., Builds]) -> None:
    """So BuildKit has it; what the build leaves in it is kept."""
    build = builds()
    for strategy in (PORTABLE, {"PLP_CACHE_STRATEGY": "state"}):
        build(**strategy)
        assert RESTORED not in build(**strategy, PLP_NO_CACHE="true").stderr
        assert build.numbers() == [str(build.number)]
        build(**strategy)
        assert build.numbers() == [str(build.number - 1), str(build.number)]


def test_what_is_lost_is_told_once(builds: Callable[..., Builds]) -> None:
    build = builds()
    for _ in range(2):
        assert build(PLP_CACHE_STRATEGY="portable").stderr.count(LOST) == 1
        assert build.numbers() == [str(build.number)]
    assert not list(build.place.cache.rglob("mount.tar"))
    assert LOST not in build(PLP_CACHE_STRATEGY="off").stderr


def test_a_cache_that_is_read_only_is_restored_from(builds: Callable[..., Builds]) -> None:
    build = builds(user="unprivileged")
    build(**PORTABLE)
    directories = [build.place.cache, *build.place.cache.rglob("*")]
    for path in directories:
        path.chmod(0o555 if path.is_dir() else 0o444)
    try:
        if os.access(build.place.cache, os.W_OK) and os.geteuid() != 0:
            pytest.skip("modes do not matter here")
        result = build(**PORTABLE)
    finally:
        for path in directories:
            path.chmod(0o755 if path.is_dir() else 0o644)
    assert build.numbers() == ["1", "2"]
    assert result.stderr.count("cannot be written") == 1
    assert "Cache mounts could not" not in result.stderr


MEMBERS: dict[str, list[tuple[str, bytes, dict[str, object]]]] = {
    "above": [("../../../../plp-hostile", tarfile.REGTYPE, {})],
    "absolute": [("/plp-hostile", tarfile.REGTYPE, {})],
    "device": [("./device", tarfile.CHRTYPE, {"devmajor": 1, "devminor": 3})],
    "link": [
        ("./out", tarfile.SYMTYPE, {"linkname": "/bin"}),
        ("./out/busybox", tarfile.REGTYPE, {}),
    ],
    "hard link": [("./shadow", tarfile.LNKTYPE, {"linkname": "/etc/shadow"})],
    "attribute": [("./file", tarfile.REGTYPE, {"pax_headers": {"SCHILY.xattr.user.plp": "here"}})],
    "stranger": [("./stranger", tarfile.REGTYPE, {"uid": 3_000_000_000})],
}


def hostile(name: str) -> bytes:
    """An archive that nobody has packed."""
    if name == "noise":
        return os.urandom(100_000)
    buffer = io.BytesIO()
    with tarfile.open(fileobj=buffer, mode="w") as archive:
        for path, kind, more in MEMBERS[name]:
            member = tarfile.TarInfo(path)
            member.type = kind
            for key, value in more.items():
                setattr(member, key, value)
            data = b"hostile" if kind == tarfile.REGTYPE else b""
            member.size = len(data)
            archive.addfile(member, io.BytesIO(data))
    return buffer.getvalue()


def replace(cache: Path, data: bytes) -> None:
    """Put an archive in the place of the only one, as its record says."""
    (archive,) = cache.rglob("mount.tar")
    (record,) = cache.rglob("mounts/*/*.json")
    digest = hashlib.sha256(data).hexdigest()
    archive.write_bytes(data)
    archive.parent.rename(archive.parent.with_name(digest))
    known = json.loads(record.read_text())
    record.write_text(json.dumps({**known, "archive": digest, "size": len(data)}))


def test_extended_attributes_come_along(builds: Callable[..., Builds]) -> None:
    build = builds()
    build(**PORTABLE)
    replace(build.place.cache, hostile("attribute"))
    assert RESTORED in build(**PORTABLE).stderr
    (packed,) = build.place.cache.rglob("mount.tar")
    with tarfile.open(packed) as archive:
        assert archive.getmember("./file").pax_headers["SCHILY.xattr.user.plp"] == "here"


@pytest.mark.parametrize(
    ("name", "refused"),
    [
        ("above", True),
        ("device", True),
        ("noise", True),
        pytest.param("absolute", False, marks=pytest.mark.soak),
        pytest.param("link", None, marks=pytest.mark.soak),
        pytest.param("hard link", True, marks=pytest.mark.soak),
        pytest.param("stranger", True, marks=pytest.mark.soak),
    ],
)
def test_a_hostile_archive_costs_the_mount_and_nothing_else(
    builds: Callable[..., Builds], name: str, refused: bool | None
) -> None:
    build = builds()
    build(**PORTABLE)
    replace(build.place.cache, hostile(name))
    result = build(**PORTABLE)
    if refused is not None:
        assert ("is damaged and was put aside" in result.stderr) == refused
    assert build.numbers() == ["2"]
    assert not Path("/plp-hostile").exists()


def damages(cache: Path) -> Iterator[Callable[[], object]]:
    (archive,) = cache.rglob("mount.tar")
    (record,) = cache.rglob("mounts/*/*.json")
    yield lambda: archive.write_bytes(archive.read_bytes().replace(b"1\n", b"7\n"))
    yield lambda: archive.write_bytes(archive.read_bytes()[:-512])
    yield archive.unlink
    yield lambda: record.write_text("{")


@pytest.mark.parametrize("number", range(4))
def test_a_damaged_archive_is_not_used(builds: Callable[..., Builds], number: int) -> None:
    build = builds()
    build(**PORTABLE)
    list(damages(build.place.cache))[number]()
    result = build(**PORTABLE)
    assert ("is damaged and was put aside" in result.stderr) == (number != 3)
    assert build.numbers() == ["2"]
    build(**PORTABLE)
    assert build.numbers() == ["2", "3"]
