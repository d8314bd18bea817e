"""Credential helpers as real programs, some of them badly behaved."""

from __future__ import annotations

import os
import signal
import stat
import time
from collections.abc import Iterator
from pathlib import Path

import pytest

from plp_builder import process
from plp_builder.errors import CredentialsNotUsable, Terminated, TimedOut
from publisher import credential_helper
from publisher.docker_config import Entry
from tests.support.stops import listening

PATIENCE = 60.0
SECRET = "canary-7f3a"
ANSWER = '{"ServerURL":"r.example","Username":"me","Secret":"canary-7f3a"}'


@pytest.fixture
def stop() -> Iterator[process.Stop]:
    with listening("the publication") as stop:
        yield stop


class Helpers:
    """A directory first on PATH for programs written in shell."""

    def __init__(self, directory: Path) -> None:
        self.directory = directory
        self.env = {"PATH": f"{directory}:{os.environ['PATH']}"}

    def write(self, script: str, name: str = "test") -> None:
        path = self.directory / f"docker-credential-{name}"
        path.write_text(f"#!/bin/sh\n{script}\n")
        path.chmod(0o755)

    def ask(
        self, stop: process.Stop, *, timeout: float = PATIENCE, server: str = "r.example"
    ) -> Entry | None:
        run = credential_helper.runner(self.env, stop, timeout)
        return credential_helper.ask("test", server, run)


@pytest.fixture
def helpers(tmp_path: Path) -> Helpers:
    directory = tmp_path / "helpers"
    directory.mkdir()
    return Helpers(directory)


def test_a_helper_gets_the_server_and_its_answer_is_used(
    helpers: Helpers, stop: process.Stop, tmp_path: Path
) -> None:
    helpers.write(f"""test "$*" = get || exit 9; cat > "{tmp_path}/in"; echo '{ANSWER}'""")
    assert helpers.ask(stop, server="https://index.docker.io/v1/") == Entry("me", SECRET)
    assert (tmp_path / "in").read_text() == "https://index.docker.io/v1/"


def test_a_helper_sees_the_clouds_variables_and_none_of_ours(
    helpers: Helpers, stop: process.Stop, tmp_path: Path
) -> None:
    helpers.env |= {"AWS_PROFILE": "ci", "PLP_REGISTRY_PASSWORD": SECRET, "PLP_DEBUG": "1"}
    helpers.write(f"""env > "{tmp_path}/env"; ls -l /proc/self/fd > "{tmp_path}/fd"
        echo '{ANSWER}'""")
    assert helpers.ask(stop) == Entry("me", SECRET)
    seen = (tmp_path / "env").read_text()
    assert "AWS_PROFILE=ci" in seen
    assert "PLP_" not in seen
    assert SECRET not in seen


def test_a_helper_without_credentials(helpers: Helpers, stop: process.Stop) -> None:
    helpers.write("echo credentials not found in native keychain; exit 1")
    assert helpers.ask(stop) is None


def test_what_a_failing_helper_says_is_not_shown(helpers: Helpers, stop: process.Stop) -> None:
    helpers.write("echo the vault is sealed; echo more >&2; exit 4")
    with pytest.raises(CredentialsNotUsable, match=r"docker-credential-test .*exit code 4") as told:
        helpers.ask(stop)
    shown = " ".join((*told.value.why, told.value.hint))
    assert "sealed" not in shown
    assert "more" not in shown
    assert "docker-credential-test get" in shown


def test_a_helper_that_is_not_there(helpers: Helpers, stop: process.Stop) -> None:
    with pytest.raises(CredentialsNotUsable, match="docker-credential-test was not found"):
        helpers.ask(stop)
    helpers.write("true")
    path = helpers.directory / "docker-credential-test"
    path.chmod(stat.S_IRUSR | stat.S_IWUSR)
    with pytest.raises(CredentialsNotUsable, match="docker-credential-test was not found"):
        helpers.ask(stop)
    path.write_bytes(b"\x7fELFnonsense")
    path.chmod(0o755)
    with pytest.raises(CredentialsNotUsable, match="docker-credential-test has failed"):
        helpers.ask(stop)


def test_a_helper_that_never_answers_is_ended(
    helpers: Helpers, stop: process.Stop, tmp_path: Path
) -> None:
    helpers.write(
        f'echo waiting >&2; trap "" TERM; echo $$ > "{tmp_path}/pid"; sleep 1000; sleep 9'
    )
    with pytest.raises(CredentialsNotUsable, match="did not answer within 1 s") as told:
        helpers.ask(stop, timeout=1.0)
    assert "waiting" not in str(told.value.why)
    pid = int((tmp_path / "pid").read_text())
    assert not Path(f"/proc/{pid}").exists()


def test_a_helper_that_talks_without_end_is_not_kept(helpers: Helpers, stop: process.Stop) -> None:
    helpers.write("head -c 30000000 /dev/zero | tr '\\0' x; head -c 30000000 /dev/zero >&2")
    with pytest.raises(CredentialsNotUsable) as told:
        helpers.ask(stop)
    assert told.value.why == ("it is too long",)


def test_what_a_helper_leaves_running_holds_nobody_up(
    helpers: Helpers, stop: process.Stop, tmp_path: Path
) -> None:
    """Such as an agent that keeps the pipes open."""
    helpers.write(f"""sleep 1000 & echo $! > "{tmp_path}/pid"; echo '{ANSWER}'""")
    began = time.monotonic()
    try:
        assert helpers.ask(stop) == Entry("me", SECRET)
        assert time.monotonic() - began < PATIENCE
    finally:
        os.kill(int((tmp_path / "pid").read_text()), signal.SIGKILL)


def test_a_stop_ends_a_helper(helpers: Helpers, stop: process.Stop, tmp_path: Path) -> None:
    helpers.write(f'echo $$ > "{tmp_path}/pid"; kill -TERM $PPID; sleep 1000')
    with pytest.raises(Terminated, match="the publication was asked to end"):
        helpers.ask(stop)
    assert not Path(f"/proc/{(tmp_path / 'pid').read_text().strip()}").exists()


def test_the_deadline_of_the_run_ends_a_helper(helpers: Helpers, stop: process.Stop) -> None:
    helpers.write("sleep 1000")
    stop.limit(0.5)
    with pytest.raises(TimedOut, match="PLP_TIMEOUT"):
        helpers.ask(stop)
