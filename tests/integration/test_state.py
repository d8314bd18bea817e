"""The daemon's state between builds: who may use it, when it begins anew, where it cannot be."""

from __future__ import annotations

import fcntl
import os
import re
import shutil
import signal
import subprocess
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest

from plp_builder.buildkit import trial
from tests.support import machine
from tests.support.builder import MakeWorkspace, StartBuilder
from tests.support.kept import Kept, cached, digest
from tests.support.machine import Tools

MakeKept = Callable[..., Kept]
STEPS = 5
ANEW = "the daemon's state begins anew"
NOT_KEPT = "The daemon's state cannot be kept"
WAITING = "waiting for another build to leave the daemon's state"


@pytest.fixture
def make(
    workspace: MakeWorkspace, start_builder: StartBuilder, tools: dict[str, Tools]
) -> MakeKept:
    def made(*, user: str = "root", version: str = "current") -> Kept:
        return Kept(workspace(user), start_builder, tools[version], user=user)

    return made


@pytest.fixture
def kept(make: MakeKept) -> Kept:
    return make()


@pytest.mark.parametrize("version", ["current", "compat"])
@pytest.mark.parametrize("user", ["root", "unprivileged"])
def test_state_portable_and_no_cache_give_the_same_image(
    make: MakeKept, user: str, version: str
) -> None:
    kept = make(user=user, version=version)
    cold = kept.cold()
    first, second = kept.run(), kept.run()
    assert (cached(first), cached(second)) == (0, STEPS)
    assert "cache=state" in second.output
    assert digest(kept.place.archive) == cold
    for verify in ("new", "full"):  # full: BuildKit is asked
        assert kept.built(CACHE_STRATEGY="portable", VERIFY=verify) == cold
        assert kept.built(CACHE_STRATEGY="state", VERIFY=verify) == cold
    kept.change("two")
    assert kept.built() == kept.cold()


LINKED = """\
FROM scratch AS base
COPY --chmod=755 busybox /bin/busybox
RUN ["/bin/busybox", "touch", "/below"]
FROM base
COPY {link} code /code
"""


@pytest.mark.parametrize("version", ["current", "compat"])
@pytest.mark.parametrize(("link", "unpacked"), [("--link", 0), ("", 1)])
def test_on_a_fresh_machine_nothing_is_unpacked_below_what_is_linked(
    workspace: MakeWorkspace,
    start_builder: StartBuilder,
    tools: dict[str, Tools],
    version: str,
    link: str,
    unpacked: int,
) -> None:
    dockerfile = LINKED.format(link=link)
    kept = Kept(workspace("root"), start_builder, tools[version], dockerfile=dockerfile)
    kept.run()
    shutil.rmtree(kept.state)
    kept.change("two")
    first = kept.built()
    assert len(list(kept.worker.glob("snapshots/snapshots/*/fs/below"))) == unpacked
    assert first == kept.cold()


def test_a_failed_build_leaves_a_state_for_the_next(kept: Kept) -> None:
    kept.run()
    kept.place.write({"code": "two"})
    dockerfile = kept.place.source / "Dockerfile"
    good = dockerfile.read_text()
    dockerfile.write_text(good + 'RUN ["/bin/busybox", "false"]\n')
    failed = kept.start().wait()
    assert (failed.code, failed.left_processes) == (1, ())
    dockerfile.write_text(good)
    assert cached(kept.run()) == STEPS


def test_a_wrong_dockerfile_costs_the_state_nothing(kept: Kept) -> None:
    kept.run()
    failed = kept.start(DOCKERFILE="missing").wait()
    assert failed.code == 1
    assert cached(kept.run()) == STEPS


@pytest.mark.parametrize("how", ["failed", "stopped"])
def test_a_build_that_ends_early_leaves_a_state_that_is_known_to_be_one(
    kept: Kept, how: str
) -> None:
    """Its daemon has ended in order. Nothing that it has copied may be taken for unknown."""
    dockerfile = kept.place.source / "Dockerfile"
    good = dockerfile.read_text()
    kept.change("one")
    kept.run()
    code = kept.place.source / "code"
    times = code.stat()
    dockerfile.write_text(good + 'RUN ["/bin/busybox", "sh", "-c", "sleep 600; false"]\n')
    if how == "failed":
        dockerfile.write_text(good + 'RUN ["/bin/busybox", "false"]\n')
        assert kept.start().wait().code == 1
    else:
        run = kept.start()
        run.wait_for("sleep 600")
        run.send(signal.SIGTERM)
        assert run.wait().code == 143
    dockerfile.write_text(good)
    kept.change("two")
    os.utime(code, ns=(times.st_atime_ns, times.st_mtime_ns))
    result = kept.run()
    assert "cache=state" in result.output
    assert digest(kept.place.archive) == kept.cold()


@contextmanager
def held(path: Path) -> Iterator[None]:
    """Another build, as its lock shows it."""
    with path.open("r+") as file:
        fcntl.flock(file, fcntl.LOCK_EX)
        yield


@pytest.mark.parametrize("lock", ["lock", "root/buildkitd.lock"])
def test_a_state_in_use_is_waited_for_and_that_is_told(kept: Kept, lock: str) -> None:
    kept.run()
    with held(kept.state / lock):
        run = kept.start()
        run.wait_for(WAITING)
    result = run.wait()
    assert result.code == 0, result.output
    assert 'at_most="600 s"' in result.output
    assert "cache=state" in result.output
    assert cached(result) == STEPS


@pytest.mark.parametrize("seconds", ["0", "1"])
def test_a_state_in_use_for_too_long_is_done_without(kept: Kept, seconds: str) -> None:
    cold = kept.cold()
    kept.run()
    with held(kept.state / "lock"):
        result = kept.run(CACHE_LOCK_TIMEOUT=seconds)
    assert "Another build still uses the daemon's state" in result.output
    assert f"waited for {seconds} s" in result.output
    assert "cache=portable" in result.output
    assert cached(result) == STEPS
    assert digest(kept.place.archive) == cold


def test_a_build_that_waits_can_be_stopped(kept: Kept) -> None:
    kept.run()
    with held(kept.state / "lock"):
        run = kept.start()
        run.wait_for(WAITING)
        run.send(signal.SIGTERM)
        result = run.wait()
    assert result.code == 143, result.output


def at_once(make: MakeKept, rounds: int, **variables: str) -> None:
    """Four projects with one cache directory, all changed in each round."""
    projects = [make() for _ in range(4)]
    for round_ in range(rounds):
        for number, project in enumerate(projects):
            project.change(f"project {number} round {round_}")
        cache = str(projects[0].place.cache)
        runs = [project.start(CACHE_PATH=cache, **variables) for project in projects]
        for project, run in zip(projects, runs, strict=True):
            result = run.wait(600)
            assert result.code == 0, result.output
            assert result.left_processes == ()
            built = digest(project.place.archive)
            assert built == project.cold()
    assert list((projects[0].state).glob("aside-*")) == []


def test_four_builds_at_once(make: MakeKept) -> None:
    at_once(make, 1)


def test_four_builds_at_once_of_which_none_waits(make: MakeKept) -> None:
    at_once(make, 1, CACHE_LOCK_TIMEOUT="0")


@pytest.mark.soak
@pytest.mark.timeout(3600)
@pytest.mark.parametrize("patience", ["600", "0", "3"])
def test_four_builds_at_once_ten_times(make: MakeKept, patience: str) -> None:
    at_once(make, 10, CACHE_LOCK_TIMEOUT=patience)


def test_another_version_of_buildkit_begins_anew(kept: Kept, tools: dict[str, Tools]) -> None:
    current, compat = tools["current"], tools["compat"]
    kept.run()
    for version in (compat, current):
        kept.tools = version
        cold = kept.cold()
        result = kept.run(CACHE_STRATEGY="state")
        assert ANEW in result.output
        assert cached(result) == 0
        assert digest(kept.place.archive) == cold
        assert list(kept.state.glob("aside-*")) == []
        again = kept.run(CACHE_STRATEGY="state")
        assert ANEW not in again.output
        assert cached(again) == STEPS


def test_other_subordinate_ids_begin_anew(kept: Kept) -> None:
    kept.run()
    made = kept.state / "made"
    note = made.read_text()
    first = re.search(r"ids=\(\((\d+), ", note)
    assert first, "the daemon's user has no subordinate ids"
    made.write_text(note.replace(first[1], str(int(first[1]) + 65536), 1))
    result = kept.run(CACHE_STRATEGY="state")
    assert ANEW in result.output
    assert "ids" in result.output
    assert cached(result) == 0


def test_a_machine_that_went_down_begins_anew(kept: Kept) -> None:
    cold = kept.cold()
    kept.run()
    (kept.state / "used").write_text("11111111-1111-1111-1111-111111111111")
    result = kept.run()
    assert ANEW in result.output
    assert "the machine went down" in result.output
    assert cached(result) == STEPS  # from the portable cache
    assert digest(kept.place.archive) == cold
    assert ANEW not in kept.run().output


def mount(*words: str) -> None:
    if subprocess.run(["mount", *words], capture_output=True, check=False).returncode:
        machine.missing("to be allowed to mount")


@pytest.fixture
def unmounted(kept: Kept) -> Iterator[None]:
    yield
    subprocess.run(["umount", kept.place.cache], check=False, capture_output=True)


def without_state(kept: Kept, why: str) -> None:
    """It builds with the portable cache, twice, and says why."""
    cold = kept.cold()
    for expected in (0, STEPS):
        result = kept.run()
        assert NOT_KEPT in result.output
        assert why in result.output
        assert cached(result) == expected
        assert digest(kept.place.archive) == cold
        assert "cache=portable" in result.output


@pytest.mark.usefixtures("unmounted")
def test_memory_carries_no_state(kept: Kept) -> None:
    mount("-t", "tmpfs", "tmpfs", str(kept.place.cache))
    without_state(kept, "lies on tmpfs")


@pytest.mark.usefixtures("unmounted")
def test_an_overlay_carries_no_state(kept: Kept) -> None:
    for name in ("lower", "upper", "work"):
        (kept.place.root / name).mkdir(mode=0o755)
    place = kept.place.root
    options = f"lowerdir={place}/lower,upperdir={place}/upper,workdir={place}/work"
    mount("-t", "overlay", "overlay", "-o", options, str(kept.place.cache))
    without_state(kept, "lies on overlay")


def test_a_directory_that_is_closed_to_the_daemons_user_carries_no_state(kept: Kept) -> None:
    kept.place.cache.chmod(0o700)
    without_state(kept, "is closed to uid")
    result = kept.run()
    assert "chmod o+x" in result.output


@pytest.mark.usefixtures("unmounted")
def test_a_file_system_that_is_mounted_read_only_fails_no_build(kept: Kept) -> None:
    cold = kept.cold()
    kept.run()
    mount("--bind", str(kept.place.cache), str(kept.place.cache))
    mount("-o", "remount,bind,ro", str(kept.place.cache))
    result = kept.run()
    assert cached(result) == STEPS
    assert digest(kept.place.archive) == cold


def test_a_directory_that_fails_its_trial_while_the_daemon_serves_already(kept: Kept) -> None:
    kept.replace(mount="sleep 1; echo 'mount: none today' >&2; exit 32")
    without_state(kept, "no overlay can be mounted: mount: none today")
    assert not kept.root.exists()


def test_a_daemon_that_dies_before_the_trial_has_ended_is_started_after_it(kept: Kept) -> None:
    cold = kept.cold()
    seen = kept.place.root / "seen"
    seen.mkdir()
    seen.chmod(0o777)
    kept.replace(
        mount=f'sleep 0.3; exec {shutil.which("mount")} "$@"',
        buildkitd=f"mkdir {seen}/once && {{ echo 'buildkitd: no luck' >&2; exit 1; }}\n"
        f'exec {kept.tools["buildkitd"]} "$@"',
    )
    result = kept.run()
    assert (seen / "once").exists()
    assert NOT_KEPT not in result.output
    assert digest(kept.place.archive) == cold
    assert cached(kept.run()) == STEPS


@pytest.fixture
def room(tmp_path: Path) -> Callable[..., subprocess.CompletedProcess[str]]:
    """Runs the trial of a directory, and then says that it went well; programs can be replaced."""

    def run(*, beside: bool = False, **programs: str) -> subprocess.CompletedProcess[str]:
        (tmp_path / "bin").mkdir(exist_ok=True)
        for name, text in {"mount": "exit 0", "umount": "exit 0", "chown": "exit 0"}.items():
            program = tmp_path / "bin" / name
            program.write_text(f"#!/bin/sh\n{programs.get(name, text)}\n")
            program.chmod(0o755)
        (tmp_path / "it's a root").mkdir(exist_ok=True)
        # What lies in the overlay is there whether it is mounted or not.
        script = trial.script(tmp_path / "it's a root", rootless=True, beside=beside)
        script += "wait\necho went well\n" if beside else "echo went well\n"
        path = f"{tmp_path}/bin:{os.environ['PATH']}"
        return subprocess.run(
            ["sh"], input=script, env={"PATH": path}, text=True, capture_output=True, check=False
        )

    return run


def test_the_trial_goes_on_where_all_goes_well(
    room: Callable[..., subprocess.CompletedProcess[str]], tmp_path: Path
) -> None:
    done = room(mount=f'echo "$@" >"{tmp_path}/mounted"')
    assert (done.returncode, done.stdout) == (0, "went well\n"), done.stderr
    assert "userxattr,volatile,lowerdir=" in (tmp_path / "mounted").read_text()
    assert list((tmp_path / "it's a root").iterdir()) == []


TRIALS_THAT_FAIL = pytest.mark.parametrize(
    ("program", "does", "reason"),
    [
        ("mount", 'echo "mount: wrong fs type" >&2; exit 32', "no overlay can be mounted: mount:"),
        ("mount", "exit 1", "no overlay can be mounted: "),
        ("chown", 'echo "chown: Invalid argument" >&2; exit 1', "subordinate ids: chown:"),
    ],
)


@TRIALS_THAT_FAIL
def test_the_trial_ends_the_room_where_something_does_not(
    room: Callable[..., subprocess.CompletedProcess[str]],
    tmp_path: Path,
    program: str,
    does: str,
    reason: str,
) -> None:
    done = room(**{program: does})
    assert (done.returncode, done.stdout) == (75, "")
    assert reason.strip() in trial.refusal(done.stderr.splitlines())
    assert list((tmp_path / "it's a root").iterdir()) == []


def test_beside_the_daemon_it_tells_that_all_goes_well(
    room: Callable[..., subprocess.CompletedProcess[str]], tmp_path: Path
) -> None:
    done = room(beside=True)
    assert (done.returncode, done.stdout) == (0, "went well\n")
    assert done.stderr.encode().splitlines() == [trial.PASSED]
    assert list((tmp_path / "it's a root").iterdir()) == []


@TRIALS_THAT_FAIL
def test_or_what_does_not_while_the_daemon_goes_on(
    room: Callable[..., subprocess.CompletedProcess[str]],
    program: str,
    does: str,
    reason: str,
) -> None:
    done = room(beside=True, **{program: does})
    assert (done.returncode, done.stdout) == (0, "went well\n")
    (line,) = done.stderr.splitlines()
    assert reason.strip() in trial.refusal([line])
