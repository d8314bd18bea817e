"""How the daemon is started, with what environment, and what its death is said to mean."""

from __future__ import annotations

from pathlib import Path

import pytest

from plp_builder.buildkit.daemonless import (
    Plan,
    arguments,
    environment,
    explain,
    sandbox_for,
)
from plp_builder.buildkit.runtime import Runtime
from plp_builder.buildkit.sandbox import NO_PROCESS_SANDBOX, Sandbox
from plp_builder.errors import DaemonDied, RootlessNotPermitted
from plp_builder.process import User

RUNTIME = Runtime(Path("/tmp/client"), Path("/tmp/daemon"))
USER = User("builder", 1000, 1000, "/home/builder")


def plan(
    user: User | None = USER,
    sandbox: Sandbox = Sandbox.PROCESS,
    flags: tuple[str, ...] = (),
    *,
    debug: bool = False,
    offline: bool = False,
) -> Plan:
    return Plan(RUNTIME, user, sandbox, flags, debug, offline)


def test_an_unprivileged_user_gets_the_process_sandbox_unless_proc_is_masked() -> None:
    assert sandbox_for(USER, (), ()) is Sandbox.PROCESS
    assert sandbox_for(USER, (), ("/proc/kcore",)) is Sandbox.NONE
    assert sandbox_for(USER, (NO_PROCESS_SANDBOX,), ()) is Sandbox.NONE


def test_a_daemon_as_root_is_not_rootless() -> None:
    assert sandbox_for(None, (), ("/proc/kcore",)) is Sandbox.ROOT
    assert "rootlesskit" not in arguments(plan(None, Sandbox.ROOT))


def test_the_weaker_sandbox_is_asked_for_once() -> None:
    for flags in ((), (NO_PROCESS_SANDBOX,)):
        line = arguments(plan(sandbox=Sandbox.NONE, flags=flags))
        assert line.count(NO_PROCESS_SANDBOX) == 1
        assert "--pidns" not in line


def test_the_users_flags_come_last_so_that_they_win() -> None:
    line = arguments(plan(flags=("--oci-worker-gc=true",), debug=True))
    assert line[-1] == "--oci-worker-gc=true"
    assert "--debug" in line


def test_the_daemon_gets_no_secrets_of_the_environment() -> None:
    env = environment(plan(), {"NPM_TOKEN": "s3cret", "PLP_LABELS": "a=b", "PATH": "/bin"})
    assert "s3cret" not in env.values()
    assert env["PATH"] == "/bin"
    assert (env["HOME"], env["USER"]) == ("/tmp/daemon", "builder")


def test_an_offline_daemon_has_a_proxy_that_is_not_there() -> None:
    given = {"HTTPS_PROXY": "http://proxy.example"}
    assert environment(plan(), given)["HTTPS_PROXY"] == "http://proxy.example"
    assert environment(plan(offline=True), given)["HTTPS_PROXY"] == "http://127.0.0.1:9"


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
    failure = explain(["level=info starting", line], 1, plan(), ready=False)
    assert isinstance(failure, RootlessNotPermitted)
    assert "operation not permitted" in failure.what
    assert failure.why == (line,)
    assert "--privileged" in failure.hint


def test_a_death_in_the_middle_of_a_build_is_no_matter_of_permission() -> None:
    failure = explain(["level=error msg=permission denied"], 2, plan(), ready=True)
    assert isinstance(failure, DaemonDied)
    assert "ended with code 2 while it was needed" in failure.what


@pytest.mark.parametrize(
    ("log", "code", "hint"),
    [
        (["buildkitd: could not lock /x/buildkitd.lock"], 1, "Another daemon"),
        (["Incorrect Usage: flag provided but not defined: -no"], 1, "PLP_BUILDKITD_FLAGS"),
        (["buildkitd: failed to load config /c.toml"], 1, "PLP_BUILDKITD_CONFIG"),
        ([], -9, "memory"),
        (["something else"], 3, "PLP_DEBUG=true"),
    ],
)
def test_known_causes_bring_the_next_step(log: list[str], code: int, hint: str) -> None:
    failure = explain(log, code, plan(), ready=False)
    assert isinstance(failure, DaemonDied)
    assert hint in failure.hint
    assert failure.why
