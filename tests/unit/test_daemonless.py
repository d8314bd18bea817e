"""How the daemon is started, with what environment, and what its death is said to mean."""

from __future__ import annotations

import tomllib
from pathlib import Path

import pytest

from plp_builder.buildkit.command import can_wait, command, configuration
from plp_builder.buildkit.deaths import explain
from plp_builder.buildkit.options import Options, Root
from plp_builder.buildkit.room import Room, environment, preparation, sandbox_for, wrapper
from plp_builder.buildkit.runtime import Runtime
from plp_builder.buildkit.sandbox import NO_PROCESS_SANDBOX, Sandbox
from plp_builder.errors import DaemonDied, RootlessNotPermitted
from plp_builder.users import IdMap, User

RUNTIME = Runtime("/tmp/client", "/tmp/daemon")
USER = User("builder", 1000, 1000, "/home/builder")
ROOTLESS = Room(RUNTIME, USER, Sandbox.PROCESS)
WEAK = Room(RUNTIME, USER, Sandbox.NONE)
MAPPED = ROOTLESS._replace(ids=IdMap((100_000, 65_536), (200_000, 65_537)))
ROOT = Room(RUNTIME, None, Sandbox.ROOT)


def test_an_unprivileged_user_gets_the_process_sandbox_unless_proc_is_masked() -> None:
    assert sandbox_for(USER, ()) is Sandbox.PROCESS
    assert sandbox_for(USER, ("/proc/kcore",)) is Sandbox.NONE


def test_a_daemon_as_root_is_not_rootless() -> None:
    assert sandbox_for(None, ("/proc/kcore",)) is Sandbox.ROOT
    assert "rootlesskit" not in wrapper(ROOT)
    assert "rootlesskit" in wrapper(ROOTLESS)


def test_unshare_makes_the_room_of_a_user_whose_ids_it_can_map() -> None:
    words = wrapper(MAPPED)
    assert words[0] == "unshare"
    assert "--map-users=100000,1,65536" in words
    assert "--map-groups=200000,1,65537" in words
    assert "rootlesskit" not in words


def test_an_ordinary_user_maps_them_before_unshare_makes_the_rest() -> None:
    words = wrapper(MAPPED._replace(by_root=False))
    assert words == (*wrapper(ROOT),)
    assert preparation(MAPPED._replace(by_root=False)) is not None


def test_rooms_that_are_refused_are_followed_by_others_with_ever_less() -> None:
    rooms = [MAPPED]
    while another := rooms[-1].another():
        rooms.append(another)
    assert rooms == [MAPPED, ROOTLESS, WEAK]
    assert ROOT.another() is None


@pytest.mark.parametrize(
    "line",
    [
        "unshare: unrecognized option '--map-users=100000,1,65536'",
        "unshare: failed to parse uid map",
        "unshare: unshare failed: Operation not permitted",
        "unshare: failed to execute newuidmap: No such file or directory",
    ],
)
def test_what_unshare_cannot_do_rootlesskit_may(line: str) -> None:
    assert isinstance(explain([line], 1, MAPPED, ready=False), RootlessNotPermitted)
    assert isinstance(explain([line], 1, MAPPED, ready=True), DaemonDied)


def test_the_weaker_sandbox_is_asked_for_once() -> None:
    for flags in ((), (NO_PROCESS_SANDBOX,)):
        assert command(WEAK, Options(flags=flags)).count(NO_PROCESS_SANDBOX) == 1
    assert "--pidns" not in wrapper(WEAK)
    assert "--pidns" in wrapper(ROOTLESS)
    assert NO_PROCESS_SANDBOX not in command(ROOTLESS, Options())


def test_a_configuration_says_what_the_command_line_does() -> None:
    for root in (None, Root(Path('/my "cache"/root'), tried=True, bound=7_000)):
        options = Options(root=root)
        told = tomllib.loads(configuration(ROOTLESS, options, all=True))
        words = command(ROOTLESS, options)
        assert f"--root={told.pop('root')}" in words
        worker = told["worker"]["oci"]
        if root is None:
            assert worker.pop("gc") is False
            assert "--oci-worker-gc=false" in words
        else:
            assert f"--oci-worker-snapshotter={worker.pop('snapshotter')}" in words
            assert worker["gcpolicy"][-1]["maxUsedSpace"] == "7000"
        assert told.items() <= tomllib.loads(configuration(ROOTLESS, options, all=False)).items()


@pytest.mark.parametrize(
    ("options", "can"),
    [
        (Options(), True),
        (Options(root=Root(Path("/cache/root"), tried=False, bound=1)), True),
        (Options(root=Root(Path("/cache/\udcff"), tried=False, bound=1)), False),
        (Options(config="debug = true"), False),
        (Options(flags=("--debug",)), False),
        (Options(debug=True), False),
        (Options(offline=True), False),
        (Options(host_network=True), False),
    ],
)
def test_only_a_place_can_be_told_to_a_daemon_that_is_ahead(options: Options, can: bool) -> None:
    assert can_wait(options) == can


def test_the_collector_s_pace_is_the_user_s_if_he_has_one() -> None:
    assert environment(ROOT, {})["GOGC"] == "200"
    assert environment(ROOT, {"GOGC": "50"})["GOGC"] == "50"


def test_the_users_flags_come_last_so_that_they_win() -> None:
    words = command(ROOTLESS, Options(flags=("--oci-worker-gc=true",), debug=True))
    assert words[-1] == "--oci-worker-gc=true"
    assert "--debug" in words


def test_the_host_network_is_allowed_only_where_it_is_asked_for() -> None:
    allowed = "--allow-insecure-entitlement=network.host"
    assert allowed in command(ROOTLESS, Options(host_network=True))
    assert allowed not in command(ROOTLESS, Options())


def test_the_daemon_gets_no_secrets_of_the_environment() -> None:
    env = environment(ROOTLESS, {"NPM_TOKEN": "s3cret", "PLP_LABELS": "a=b", "PATH": "/bin"})
    assert "s3cret" not in env.values()
    assert env["PATH"] == "/bin"
    assert (env["HOME"], env["USER"]) == ("/tmp/daemon", "builder")


def test_an_offline_daemon_has_a_proxy_that_is_not_there() -> None:
    assert "HTTPS_PROXY=http://127.0.0.1:9" in command(ROOTLESS, Options(offline=True))
    assert command(ROOTLESS, Options())[0] == "buildkitd"


@pytest.mark.parametrize(
    "line",
    [
        "[rootlesskit:parent] error: failed to start the child: fork/exec /proc/self/exe: "
        "operation not permitted",
        "[rootlesskit:parent] error: failed to setup UID/GID map: newuidmap 12 [0 1000 1] failed",
        "[rootlesskit:parent] error: No subuid ranges found for user 0",
    ],
)
def test_what_the_environment_forbids_is_named_with_the_flags_to_add(line: str) -> None:
    failure = explain(["level=info starting", line], 1, ROOTLESS, ready=False)
    assert isinstance(failure, RootlessNotPermitted)
    assert "operation not permitted" in failure.what
    assert failure.why == (line,)
    assert "--privileged" in failure.hint


def test_what_only_follows_from_the_cause_is_not_told() -> None:
    """As a real rootlesskit and buildkitd say it."""
    log = [
        "Incorrect Usage: flag provided but not defined: -nonsense",
        "",
        "buildkitd: flag provided but not defined: -nonsense",
        "[rootlesskit:child ] error: command [sh] exited: exit status 1",
        "[rootlesskit:parent] error: child exited: exit status 1",
    ]
    failure = explain(log, 1, ROOTLESS, ready=False)
    assert failure.why == ("buildkitd: flag provided but not defined: -nonsense",)
    assert "PLP_BUILDKITD_FLAGS" in failure.hint


def test_a_file_that_the_daemon_may_not_read_is_no_matter_of_namespaces() -> None:
    failure = explain(["buildkitd: open /x: permission denied"], 1, ROOTLESS, ready=False)
    assert isinstance(failure, DaemonDied)
    child = "[rootlesskit:parent] error: fork/exec /proc/self/exe: permission denied"
    assert isinstance(explain([child], 1, ROOTLESS, ready=False), RootlessNotPermitted)


def test_a_death_in_the_middle_of_a_build_is_no_matter_of_permission() -> None:
    failure = explain(["level=error msg=permission denied"], 2, ROOTLESS, ready=True)
    assert isinstance(failure, DaemonDied)
    assert "ended with code 2 while it was needed" in failure.what


@pytest.mark.parametrize(
    ("log", "code", "hint"),
    [
        (["buildkitd: could not lock /x/buildkitd.lock"], 1, "Another daemon"),
        (["Incorrect Usage: flag provided but not defined: -no"], 1, "PLP_BUILDKITD_FLAGS"),
        (["buildkitd: failed to load config /c.toml"], 1, "PLP_BUILDKITD_CONFIG"),
        (["level=warning no fsverity", "buildkitd: no space left on device"], 1, "TMPDIR"),
        (["[rootlesskit:child ] error: mkdir /tmp/x: read-only file system"], 1, "--tmpfs /tmp"),
        (["runtime: failed to create new OS thread (errno=11)"], 2, "--pids-limit"),
        ([], -9, "memory"),
        (["something else"], 3, "PLP_DEBUG=true"),
    ],
)
def test_known_causes_bring_the_next_step(log: list[str], code: int, hint: str) -> None:
    failure = explain(log, code, ROOTLESS, ready=False)
    assert isinstance(failure, DaemonDied)
    assert hint in failure.hint
    assert failure.why
