"""The fixtures themselves: what the other integration tests stand on."""

from __future__ import annotations

import json
import os
import re
import signal
import subprocess
import sys
from collections.abc import Mapping
from pathlib import Path

import pytest

from scripts.set_up.step import ROOT
from tests.support import builder, machine, processes
from tests.support.builder import MakeWorkspace, Run
from tests.support.engine import Engine
from tests.support.machine import Tools, User
from tests.support.registry import Registry


def test_both_versions_are_what_their_module_says(buildkit: Tools) -> None:
    said = subprocess.run(
        [buildkit["buildctl"], "--version"], check=True, capture_output=True, text=True
    ).stdout
    assert said.split()[-1] == buildkit.version


def test_the_unprivileged_user_can_run_tools_and_builder(
    tools: Mapping[str, Tools], unprivileged_user: User
) -> None:
    """Neither may lie where only root can reach, for example in root's home."""
    switch = {"user": unprivileged_user.uid, "group": unprivileged_user.gid, "extra_groups": []}
    for argv in (
        [tools["current"]["rootlesskit"], "--version"],
        [tools["compat"]["buildkitd"], "--version"],
        [machine.shared_python(), "-c", "import coverage, plp_builder, pydantic_settings"],
    ):
        subprocess.run(
            argv,
            check=True,
            cwd=machine.shared_source(),
            env={"PATH": machine.SYSTEM_PATH},
            **(switch if unprivileged_user.switch else {}),  # type: ignore[call-overload]
        )


@pytest.mark.parametrize(
    ("name", "program"),
    [("debian:trixie-slim", "/bin/bash"), ("busybox:latest", "/bin/sh"), ("alpine:3", "/bin/sh")],
)
def test_base_images_have_no_device_nodes(registry: Registry, name: str, program: str) -> None:
    """A rootless builder could not unpack them."""
    reference = f"{registry.address}/library/{name}"
    crane = machine.command("crane")
    config = subprocess.run(
        [crane, "config", "--insecure", reference], check=True, capture_output=True, text=True
    ).stdout
    assert json.loads(config)["os"] == "linux"
    exporter = subprocess.Popen(
        [crane, "export", "--insecure", reference, "-"], stdout=subprocess.PIPE
    )
    listing = subprocess.run(
        ["tar", "-tv"], stdin=exporter.stdout, check=True, capture_output=True, text=True
    ).stdout.splitlines()
    assert exporter.stdout is not None
    exporter.stdout.close()
    assert exporter.wait() == 0
    assert not [line for line in listing if line[0] in "bc"]
    usr = f"usr{program}"
    assert [line for line in listing if line.split()[5].lstrip("./") in {program[1:], usr}]


def _pretend_builder(script: str, home: Path) -> Run:
    """A Run around a small program instead of the builder."""
    (home / "tmp").mkdir(parents=True)
    streams = ((home / "stdout").open("wb"), (home / "stderr").open("wb"))
    before = frozenset(processes.children())
    marker = f"TEST_RUN={home.name}{os.getpid()}"
    name, _, value = marker.partition("=")
    process = subprocess.Popen(
        [sys.executable, "-c", script], env={name: value}, stdout=streams[0], stderr=streams[1]
    )
    processes.own.add(process.pid)
    return Run(process, home, marker, home / "archive.tar", streams, before)


def test_a_process_left_behind_is_seen(tmp_path: Path) -> None:
    """Also one in a session of its own, with an environment of its own."""
    script = (
        "import subprocess, os; print('started', flush=True);"
        "subprocess.Popen(['/bin/sleep', '60'], env={}, start_new_session=True)"
    )
    result = _pretend_builder(script, tmp_path / "home").wait(30)
    assert result.code == 0
    assert [process.command for process in result.left_processes] == ["/bin/sleep 60"]
    assert not processes.marked("TEST_RUN=home")
    left = result.left_processes[0].pid
    assert processes.until(lambda: left not in processes.processes())


def test_a_clean_end_leaves_nothing(tmp_path: Path) -> None:
    result = _pretend_builder("print('done')", tmp_path / "home").wait(30)
    assert (result.code, result.stdout, result.left_processes) == (0, "done\n", ())


def test_a_signal_reaches_the_builder(tmp_path: Path) -> None:
    script = "import time; print('ready', flush=True); time.sleep(60)"
    with _pretend_builder(script, tmp_path / "home") as run:
        run.wait_for("ready")
        run.send(signal.SIGTERM)
        assert run.wait(30).code == -signal.SIGTERM


def test_a_workspace_belongs_to_its_user(workspace: MakeWorkspace, user: User) -> None:
    made = workspace(user).write({"deep/er/file": "text"})
    assert (made.source / "deep/er/file").stat().st_uid == user.uid
    assert made.source.stat().st_uid == user.uid
    assert made.root.stat().st_uid == user.uid
    assert len(str(made.root)) < 24


def test_an_environment_can_lose_variables(tools: Mapping[str, Tools], tmp_path: Path) -> None:
    given = {"USER": None, "PLP_TARGET": "x"}
    env = builder.environment(given, tools["current"], machine.user("unprivileged"), tmp_path)
    assert "USER" not in env
    assert env["PLP_TARGET"] == "x"
    assert env["PATH"].startswith(str(tools["current"].directory))


def test_the_engine_runs_containers(docker_engine: Engine) -> None:
    """Privileged ones too, whatever the machine's root may do."""
    assert docker_engine.answers()
    assert docker_engine.runs_privileged()


SKIPS = """
import pytest
from tests.support import machine

@pytest.fixture
def tool():
    machine.missing("a tool")

def test_called(): pytest.skip("a reason")
def test_asked(tool): pass
@pytest.mark.skipif(True, reason="a mark")
def test_marked(): pass
@pytest.mark.xfail
def test_expected(): assert False
"""


@pytest.mark.parametrize(
    ("value", "outcomes"),
    [("true", {"failed": 1, "errors": 2, "xfailed": 1}), ("", {"skipped": 3, "xfailed": 1})],
)
def test_nothing_is_skipped_in_ci(value: str, outcomes: dict[str, int], tmp_path: Path) -> None:
    (tmp_path / "test_skips.py").write_text(SKIPS)
    (tmp_path / "pytest.ini").touch()
    command = [sys.executable, "-P", "-m", "pytest", "-p", "tests.conftest", "-rA", str(tmp_path)]
    environment = {"CI": value, "PYTHONPATH": str(ROOT), "PYTHONDONTWRITEBYTECODE": "1"}
    said = subprocess.run(
        command, cwd=tmp_path, env=environment, capture_output=True, text=True, check=False
    ).stdout
    counts = re.findall(r"(\d+) (failed|errors?|skipped|xfailed|passed)", said.splitlines()[-1])
    assert {name: int(count) for count, name in counts} == outcomes, said
    assert all(reason in said for reason in ("a reason", "a tool", "a mark"))
