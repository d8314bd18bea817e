"""Which of buildctl's last words blame the daemon's kept content; all were seen."""

from __future__ import annotations

import os
from pathlib import Path

import pytest

from plp_builder.buildkit.damage import (
    blames_state,
    blames_state_of_death,
    cut_databases,
    lacks_room,
    stops_for_lack_of_room,
    why_unsound,
)
from tests.support.bbolt import meta

ONE, TWO = "1" * 64, "2" * 64
ROOT = "/cache/state/1/root/runc-overlayfs"
SNAPSHOTS = f"{ROOT}/snapshots/snapshots"
REF = "0tax3mxz6qkrp9jhyyfz6fhe5::jc6k74a23heti3y561gfrww7v"
IMAGE = "127.0.0.1:40019/x"
GONE = "no such file or directory"
MOUNT = (
    f'mount source: "overlay", target: "{ROOT}/cachemounts/buildkit5377", fstype: overlay, flags: 0'
    f', data: "workdir={SNAPSHOTS}/15/work,upperdir={SNAPSHOTS}/15/fs,lowerdir={SNAPSHOTS}/9/fs:'
    f'{SNAPSHOTS}/4/fs,index=off", err: '
)
RUN = 'process "/bin/sh -c echo a > /b" did not complete successfully: '

DAMAGE = {
    "blob-missing": f"blob sha256:{ONE} expected at {ROOT}/content/blobs/sha256/{ONE}: "
    "blob not found: not found",
    "blob-missing-for-cache": f"failed to get reader: blob sha256:{ONE} expected at "
    f"{ROOT}/content/blobs/sha256/{ONE}: blob not found: not found",
    "blob-cut-by-igzip": "failed to compute cache key: mount callback failed on "
    "/tmp/plp-daemon-467ce793/containerd-mount1085665332: exit status 1: igzip: Error (null) does "
    "not contain a complete gzip file",
    "blob-flipped-by-igzip": "failed to compute cache key: mount callback failed on "
    "/tmp/plp-daemon-9f36b2e8/containerd-mount3756237605: exit status 1: igzip: Error encountered "
    "while decompressing file (null)",
    "blob-short": "short read: expected 1064332 bytes but got 532166: unexpected EOF",
    "blob-short-0.21": "failed to read expected number of bytes: unexpected EOF",
    "blob-flipped": f'failed commit on ref "layer-sha256:{ONE}": commit failed: rpc error: code = '
    f"FailedPrecondition desc = unexpected commit digest sha256:{TWO}, expected sha256:{ONE}: "
    "failed precondition",
    "blob-flipped-in-archive": f"unexpected digest sha256:{TWO} copied",
    "layer-flipped": "failed to compute cache key: gzip: invalid checksum",
    "layer-short": "failed to compute cache key: mount callback failed on "
    "/tmp/plp-daemon-c6bcb3dc/containerd-mount4116765939: unexpected EOF",
    "layer-missing": "failed to compute cache key: failed to get reader from content store: blob "
    f"sha256:{ONE} expected at {ROOT}/content/blobs/sha256/{ONE}: blob not found: not found",
    "manifest-short": f"children: invalid desc sha256:{ONE}: unexpected end of JSON input",
    "base-image-short": f"{IMAGE}: failed to resolve source metadata for {IMAGE}:latest: "
    "unexpected end of JSON input",
    "base-image-missing": f"{IMAGE}: failed to resolve source metadata for {IMAGE}:latest: blob "
    f"sha256:{ONE} expected at {ROOT}/content/blobs/sha256/{ONE}: blob not found: not found",
    "base-image-flipped": "failed to load cache key: mismatched image rootfs and manifest layers "
    f"[sha256:{ONE}]: invalid rootfs",
    "blob-unknown": f"content digest sha256:{ONE}: not found",
    "snapshot-missing": f"failed to walk: resolve : lstat {SNAPSHOTS}/3: {GONE}",
    "snapshot-of-dockerfile-missing": "failed to read dockerfile: failed to walk: resolve : "
    f"lstat {SNAPSHOTS}/1/fs: {GONE}",
    "snapshot-a-file": f"failed to walk: stat {SNAPSHOTS}/3/fs: not a directory",
    "parent-missing": "failed to prepare ly57f45eg1zqe25ef5qbxvtdu as 2gdib936f8qkfkcqgsh4clt0j: "
    f"failed to stat parent: stat {SNAPSHOTS}/9/fs: {GONE}",
    "copy-from-missing": "failed to compute cache key: failed to calculate checksum of ref "
    f"{REF}: failed to mount /tmp/buildkit-mount1442214427: [{{Type:overlay Source:overlay "
    f"Target: Options:[lowerdir={SNAPSHOTS}/5/fs:{SNAPSHOTS}/4/fs index=off]}}]: {GONE}",
    "mount-missing": MOUNT + GONE,
    "mount-of-run-missing": RUN + MOUNT + GONE,
    "mount-missing-0.21": GONE,
    "mount-of-run-missing-0.21": RUN + GONE,
    "snapshot-unknown": "failed to prepare msd4gybpdr9p7sd939haqsm25 as ji04yys9pi5xaevj58rs3ih6x: "
    "parent snapshot msd4gybpdr9p7sd939haqsm25 does not exist: not found",
    "snapshots-emptied": "failed to prepare msd4gybpdr9p7sd939haqsm25 as zhhymwwzhlmfeah2sf4mgsu2q:"
    ' failed to create snapshot: missing parent "buildkit/10/msd4gybpdr9p7sd939haqsm25" bucket: '
    "not found",
    "snapshot-twice": "failed to read dockerfile: failed to prepare  as t4l6xka1eumxtdnqlgneb6i11: "
    f"failed to rename: rename {SNAPSHOTS}/new-3971118844 {SNAPSHOTS}/1: file exists",
    "database-short": "failed to read dockerfile: failed to prepare  as omaftfzejwvzeyldbf7suz99p: "
    "failed to open database file: file size too small 4096",
    "database-zero": "failed to read dockerfile: failed to prepare  as xsmnbeltvyy9c3kb3b3zwr2wp: "
    "failed to open database file: invalid database",
    "database-a-directory": "failed to prepare  as lb1f5fwflobduakem8hy5rg7g: failed to open "
    f"database file: open {ROOT}/snapshots/metadata.db: is a directory",
    "database-flipped": "failed to prepare msd4gybpdr9p7sd939haqsm25 as ulgf9ipfaitousakfe189boy9: "
    f"commit failed: write {ROOT}/snapshots/metadata.db: file too large",
}

WORDS = (*DAMAGE.values(), "invalid database", f"lstat {SNAPSHOTS}/1: {GONE}")
"""What a step may print, or be asked to run."""

OTHERS = {
    "nothing": "",
    "exit-code": RUN + "exit code: 1",
    "killed": RUN + "exit code: 137",
    "no-user": RUN + "unable to find user nobody: no matching entries in passwd file",
    "no-mount-source": RUN + f"open /nope: {GONE}",
    "not-a-directory": "mkdir /w: not a directory",
    "copy": "failed to compute cache key: failed to calculate checksum of ref "
    f'{REF}: "/missing": not found',
    "copy-words": "failed to compute cache key: failed to calculate checksum of ref "
    f'{REF}: "{SNAPSHOTS}/1: {GONE}": not found',
    "base-unknown-host": "registry.invalid/x: failed to resolve source metadata for "
    'registry.invalid/x:latest: failed to do request: Head "https://registry.invalid/v2/x": dial '
    "tcp: lookup registry.invalid: no such host",
    "base-without-config": f"{IMAGE}: failed to resolve source metadata for {IMAGE}:latest: failed "
    f"to copy: httpReadSeeker: failed open: could not fetch content descriptor sha256:{ONE} "
    "(application/vnd.oci.image.config.v1+json) from remote: not found",
    "base-500": f"{IMAGE}: failed to resolve source metadata for {IMAGE}:latest: unexpected status "
    f"from HEAD request to http://{IMAGE}: 500 Internal Server Error",
    "base-other-digest": f"{IMAGE}@sha256:{TWO}: failed to resolve source metadata for "
    f'{IMAGE}@sha256:{TWO}: failed commit on ref "manifest-sha256:{TWO}": unexpected commit digest '
    f"sha256:{ONE}, expected sha256:{TWO}: failed precondition",
    "secret": "secret x: not found",
    "ssh": 'no SSH key "" forwarded from the client',
    "syntax": "dockerfile parse error on line 4: unknown instruction: RUNN (did you mean RUN?)",
    "target": 'target stage "x" could not be found',
    "add-404": "failed to load cache key: invalid response status 404",
    "add-cut-off": "failed to load cache key: unexpected EOF",
    "add-checksum": f"digest mismatch sha256:{ONE}: sha256:{TWO}",
    "add-git": "failed to load cache key: error fetching default branch for repository x: git "
    "stderr:\nfatal: repository 'x' not found\n: exit status 128",
    "add-broken-archive": "unexpected EOF",
    "disk-full": "failed to prepare  as xsmnbeltvyy9c3kb3b3zwr2wp: failed to create temp dir: "
    f"mkdir {SNAPSHOTS}/new-1: no space left on device",
    "disk-full-by-lease": "failed to create lease: write /x: no space left on device",
    "stopped": "failed to create lease: context canceled",
    "daemon-gone": "failed to receive status: rpc error: code = Unavailable desc = error reading "
    "from server: EOF",
    "too-many-layers": MOUNT + "invalid argument",
}


@pytest.mark.parametrize("before", ["error: failed to solve: ", "failed to solve: ", ""])
@pytest.mark.parametrize("words", DAMAGE.values(), ids=DAMAGE)
def test_damage_is_blamed_on_the_state(words: str, before: str) -> None:
    assert blames_state(f"{before}{words}\n")


@pytest.mark.parametrize("words", OTHERS.values(), ids=OTHERS)
def test_nothing_else_is(words: str) -> None:
    assert not blames_state(f"error: failed to solve: {words}\n")


@pytest.mark.parametrize("words", WORDS)
@pytest.mark.parametrize("end", ["exit code: 1", f"open /nope: {GONE}"])
def test_what_a_step_was_asked_to_run_is_never_looked_at(words: str, end: str) -> None:
    command = f'echo \\"{words}\\"\n{words}\n'
    said = f'process "/bin/sh -c {command}" did not complete successfully: {end}'
    assert not blames_state(f"error: failed to solve: {said}")


@pytest.mark.parametrize("words", WORDS)
def test_nor_is_the_excerpt_of_the_dockerfile(words: str) -> None:
    excerpt = f"Dockerfile:2\n----\n   2 | >>> RUN echo {words} && false\n----\n"
    assert not blames_state(f"{excerpt}error: failed to solve: {RUN}exit code: 1")
    assert not blames_state(f"{excerpt}error: failed to solve: secret x: not found")


DEATHS = {
    "page": "panic: assertion failed: Page expected to be: 7, but self identifies as 10952",
    "page-0.21": "panic: runtime error: slice bounds out of range",
    "mapped": "unexpected fault address 0x7fac2dac7000\nfatal error: fault\n[signal SIGBUS: bus]",
    "thrown": "fatal: morestack on g0",
}
STARTS = {
    "invalid": "buildkitd: invalid database",
    "short": "buildkitd: file size too small 4096",
    "directory": f"buildkitd: open {ROOT}/containerdmeta.db: is a directory",
    "lock": "buildkitd: open /x/buildkitd.lock: is a directory\ncould not lock /x/buildkitd.lock",
    "locked": "could not lock /x/buildkitd.lock, another instance running?",
    "hangs": "buildkitd was not ready within PLP_START_TIMEOUT (60 s)\nit said nothing",
}
OTHER_DEATHS = {
    "killed": "buildkitd was ended by a signal before it was ready",
    "killed-in-a-room": "buildkitd ended with code 137 before it was ready",
    "full": "buildkitd: mkdir /x: no space left on device",
    "threads": "runtime: failed to create new OS thread (have 5 already; errno=11)\nfatal error: x",
    "memory": "fatal error: runtime: out of memory",
    "flag": "buildkitd: unknown flag: --oops",
    "configuration": "buildkitd: failed to load config from /x: toml: line 1",
    "address": "buildkitd: listen unix /x/sock: bind: address already in use",
}


@pytest.mark.parametrize("ready", [False, True])
@pytest.mark.parametrize("words", DEATHS.values(), ids=DEATHS)
def test_a_crash_is_blamed_on_the_state(words: str, *, ready: bool) -> None:
    assert blames_state_of_death(f"buildkitd ended with code 2\n{words}", ready=ready)


@pytest.mark.parametrize("words", STARTS.values(), ids=STARTS)
def test_so_is_what_keeps_it_from_starting_but_not_what_ends_it_later(words: str) -> None:
    assert blames_state_of_death(words, ready=False)
    assert not blames_state_of_death(words, ready=True)


@pytest.mark.parametrize("ready", [False, True])
@pytest.mark.parametrize("words", OTHER_DEATHS.values(), ids=OTHER_DEATHS)
def test_want_and_wrong_options_are_not(words: str, *, ready: bool) -> None:
    assert not blames_state_of_death(words, ready=ready)


def test_a_full_disk_is_told_by_its_words() -> None:
    assert lacks_room(
        f"failed to create temp dir: mkdir {SNAPSHOTS}/new-1: no space left on device"
    )
    assert lacks_room("write /x: disk quota exceeded")
    assert not lacks_room("no such file or directory")


def blob(root: Path, worker: str, name: str, data: bytes) -> None:
    directory = root / worker / "content/blobs/sha256"
    directory.mkdir(parents=True, exist_ok=True)
    (directory / name).write_bytes(data)


def test_a_blob_without_content_is_seen(tmp_path: Path) -> None:
    (tmp_path / "cache.db").touch()
    blob(tmp_path, "runc-overlayfs", ONE, b"layer")
    assert why_unsound(tmp_path) == ""
    blob(tmp_path, "runc-overlayfs", TWO, b"")
    assert why_unsound(tmp_path) == "a blob in it has lost its content"


def test_where_nothing_is_kept_nothing_is_unsound(tmp_path: Path) -> None:
    (tmp_path / "runc-overlayfs").mkdir()
    assert why_unsound(tmp_path) == ""
    assert why_unsound(tmp_path / "missing") == ""


LARGE_PAGES = meta(8, 1, page_size=65536) + meta(9, 2, page_size=65536)


CUT_OR_NOT = pytest.mark.parametrize(
    ("metas", "size", "cut"),
    [
        (meta(8, 1) + meta(9, 2), 9 * 4096, False),
        (meta(8, 1) + meta(9, 2), 16 * 4096, False),
        (meta(8, 1) + meta(9, 2), 9 * 4096 - 1, True),
        (meta(9, 2) + meta(8, 1), 8 * 4096, True),
        (meta(8, 1) + meta(9, 2, wrong=1), 8 * 4096, False),
        (meta(8, 1, wrong=1) + meta(9, 2), 8 * 4096, True),
        (meta(8, 1, wrong=1) + meta(9, 2, wrong=1), 4096, False),
        (meta(8, 1) + meta(9, 2), 4096, True),
        (LARGE_PAGES, 9 * 65536, False),
        (LARGE_PAGES, 8 * 65536, True),
        (b"", 0, False),
        (b"", 65536, False),
        (b"\xff" * 8192, 8192, False),
    ],
)


@pytest.mark.parametrize("name", ["containerdmeta.db", "metadata_v2.db", "snapshots/metadata.db"])
@CUT_OR_NOT
def test_a_database_that_was_cut_off_is_seen(
    tmp_path: Path, name: str, metas: bytes, size: int, cut: bool
) -> None:
    path = tmp_path / "runc-overlayfs" / name
    path.parent.mkdir(parents=True)
    path.write_bytes(metas[:size].ljust(size, b"\0"))
    assert why_unsound(tmp_path) == (f"{name} was cut off" if cut else "")


@pytest.mark.parametrize("name", ["cache.db", "history.db"])
@CUT_OR_NOT
def test_one_that_the_daemon_makes_anew_is_told_apart(
    tmp_path: Path, name: str, metas: bytes, size: int, cut: bool
) -> None:
    path = tmp_path / name
    path.write_bytes(metas[:size].ljust(size, b"\0"))
    assert why_unsound(tmp_path) == ""
    assert cut_databases(tmp_path) == ([path] if cut else [])


@pytest.mark.parametrize("kind", ["directory", "link", "fifo"])
def test_one_that_is_no_file_is_too(tmp_path: Path, kind: str) -> None:
    (tmp_path / "elsewhere").write_bytes(meta(8, 1) + meta(9, 2))
    path = tmp_path / "runc-overlayfs/metadata_v2.db"
    path.parent.mkdir()
    if kind == "directory":
        path.mkdir()
    elif kind == "link":
        path.symlink_to(tmp_path / "elsewhere")
    else:
        os.mkfifo(path)
    assert why_unsound(tmp_path) == ""


FULL = "failed to write: write /x/root/y: no space left on device"


@pytest.mark.parametrize(
    ("said", "stops"),
    [
        (f"error: failed to solve: {FULL}", True),
        (f"noise\nerror: failed to solve: {FULL}", True),
        (f"{FULL}\nerror: failed to solve: not found", False),
        ('error: failed to solve: process "dd" did not complete successfully: exit code: 1', False),
        (f'error: process "{FULL}" did not complete successfully: exit code: 1', False),
    ],
)
def test_a_full_disk_is_told_from_a_step_that_meets_one(said: str, *, stops: bool) -> None:
    assert stops_for_lack_of_room(said) is stops
