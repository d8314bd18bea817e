"""A small runner for composite actions: reads action.yml and runs its steps as GitHub's does.

Of the runner's documented behaviour it knows what the actions here use: inputs with defaults,
``if``, ``env``, bash as ``bash --noprofile --norc -e -o pipefail FILE``, GITHUB_OUTPUT with both
its forms, and GITHUB_STEP_SUMMARY. Anything else in an action is an error, not passed over.
"""

from __future__ import annotations

import os
import subprocess
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import yaml

from tests.support.expressions import evaluate, filled

_STEP = {"name", "id", "if", "shell", "run", "env"}
_BASH = ("bash", "--noprofile", "--norc", "-e", "-o", "pipefail")
EVENT: Mapping[str, Any] = {"repository": {"default_branch": "main"}}


@dataclass(frozen=True, slots=True)
class Outcome:
    """How an action ended: outputs, the text of its summary, and what it said."""

    code: int
    outputs: Mapping[str, str]
    summary: str
    said: str


@dataclass(slots=True)
class Host:
    """A runner below ``root``, with ``docker`` at the front of its PATH; ``github`` is the context.

    ``path`` is what else is found, ``env`` what a job's ``env`` would set, ``owner`` the uid of its
    files (-1: the caller's).
    """

    root: Path
    path: str
    env: dict[str, str] = field(default_factory=dict)
    github: dict[str, Any] = field(default_factory=dict)
    environment: str = "self-hosted"
    owner: int = -1

    def __post_init__(self) -> None:
        for directory in (self.workspace, self.temporary, self.root / "home"):
            directory.mkdir(parents=True, exist_ok=True)
            self.own(directory)
        usual = {
            "server_url": "https://github.com",
            "repository": "Octo/Project",
            "sha": "0123456789abcdef0123456789abcdef01234567",
            "ref_type": "branch",
            "ref_name": "main",
            "event": EVENT,
        }
        self.github = {**usual, **self.github}

    def own(self, path: Path) -> None:
        """Give a path to the runner's user."""
        os.chown(path, self.owner, self.owner)

    @property
    def workspace(self) -> Path:
        """GITHUB_WORKSPACE."""
        return self.root / "work"

    @property
    def temporary(self) -> Path:
        """RUNNER_TEMP."""
        return self.root / "temp"

    def run(self, action: Path, given: Mapping[str, str], *, timeout: float = 300.0) -> Outcome:
        """Run the action in the directory ``action`` with the inputs ``given``."""
        return self.start(action, given).finish(timeout)

    def start(self, action: Path, given: Mapping[str, str]) -> Steps:
        """The action's steps, ready to be run; refuses inputs that it does not have."""
        described = yaml.safe_load((action / "action.yml").read_text(encoding="utf-8"))
        declared = described["inputs"]
        contexts: dict[str, Any] = {
            "github": self.github,
            "runner": {"environment": self.environment, "temp": str(self.temporary)},
        }
        if unknown := set(given) - set(declared):
            raise ValueError(f"{action.name} has no input {', '.join(unknown)}")
        inputs = {}
        for name, about in declared.items():
            if about.get("required") and name not in given:
                raise ValueError(f"{action.name} needs the input {name}")
            default = filled(about.get("default", ""), contexts)
            inputs[name] = given.get(name, default)
        return Steps(self, action, described, {**contexts, "inputs": inputs, "steps": {}})


@dataclass(slots=True)
class Steps:
    """A composite action under way."""

    host: Host
    action: Path
    described: Mapping[str, Any]
    contexts: dict[str, Any]
    process: subprocess.Popen[bytes] | None = None

    def finish(self, timeout: float) -> Outcome:
        """Run all steps until one fails."""
        assert self.described["runs"]["using"] == "composite"
        directory = self.host.root / "steps"
        directory.mkdir(exist_ok=True)
        summary, code = "", 0
        log = directory / "log"
        log.write_bytes(b"")
        for number, step in enumerate(self.described["runs"]["steps"]):
            assert set(step) <= _STEP, step
            assert step["shell"] == "bash", step
            if "if" in step and not evaluate(step["if"], self.contexts):
                continue
            files = {name: directory / f"{number}-{name}" for name in ("script", "out", "summary")}
            for file in files.values():
                file.write_bytes(b"")
                self.host.own(file)
            files["script"].write_text(step["run"], encoding="utf-8")
            env = {name: filled(text, self.contexts) for name, text in step.get("env", {}).items()}
            code = self._bash(files, env, log, timeout)
            summary += files["summary"].read_text(encoding="utf-8")
            outputs = read_outputs(files["out"].read_text(encoding="utf-8"))
            self.contexts["steps"][step.get("id", str(number))] = {"outputs": outputs}
            if code:
                break
        return Outcome(code, self._outputs(), summary, log.read_text(errors="replace"))

    def _bash(
        self, files: Mapping[str, Path], env: Mapping[str, str], log: Path, timeout: float
    ) -> int:
        host = self.host
        full = {
            "HOME": str(host.root / "home"),
            "PATH": host.path,
            **host.env,
            **env,
            "GITHUB_ACTION_PATH": str(self.action),
            "GITHUB_OUTPUT": str(files["out"]),
            "GITHUB_STEP_SUMMARY": str(files["summary"]),
            "GITHUB_WORKSPACE": str(host.workspace),
            "RUNNER_TEMP": str(host.temporary),
        }
        with log.open("ab") as output:
            self.process = subprocess.Popen(
                [*_BASH, files["script"]],
                cwd=host.workspace,
                env={**full, **_measured()},
                stdin=subprocess.DEVNULL,
                stdout=output,
                stderr=subprocess.STDOUT,
            )
            try:
                return self.process.wait(timeout)
            except subprocess.TimeoutExpired:
                self.process.terminate()
                self.process.wait(30)
                raise

    def _outputs(self) -> dict[str, str]:
        declared = self.described["outputs"]
        return {name: filled(each["value"], self.contexts) for name, each in declared.items()}


def _measured() -> dict[str, str]:
    """Coverage of the builder's processes, where the tests are measured."""
    return {name: text for name, text in os.environ.items() if name.startswith("COVERAGE_")}


def read_outputs(text: str) -> dict[str, str]:
    """What GITHUB_OUTPUT says: ``name=value`` lines, and ``name<<END`` up to a line END."""
    outputs: dict[str, str] = {}
    lines = iter(text.splitlines())
    for line in lines:
        name, heredoc, end = line.partition("<<")
        if heredoc and "=" not in name:
            taken: list[str] = []
            for each in lines:
                if each == end:
                    break
                taken.append(each)
            else:
                raise ValueError(f"{name} has no end {end}")
            outputs[name] = "\n".join(taken)
        else:
            name, equals, value = line.partition("=")
            if not equals:
                raise ValueError(f"GITHUB_OUTPUT has the line {line!r}")
            outputs[name] = value
    return outputs
