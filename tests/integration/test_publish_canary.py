"""A password is nowhere but where it must be, however a run ends.

Looked at: everything that is written (both streams at the level debug, as console and as JSON,
all result files), argument lists of all processes, environments of the children, every file below
the directories that a run may write to; while it runs, and after its end.
"""

from __future__ import annotations

import base64
import json
import os
import secrets
import signal
import subprocess
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

import pytest

from scripts.set_up.step import ROOT
from tests.support import canary, layouts, machine, processes, scripted_registry
from tests.support import skopeo as skopeos
from tests.support.canary import Found
from tests.support.registry_store import error
from tests.support.scripted_registry import Fault, ScriptedRegistry

PATIENCE = 120.0
USERNAME = "publisher"
SOURCES = ("password", "token", "docker_config", "auth_file", "helper")
ENDS = {"success": 0, "unauthorized": 2, "broken": 1, "echoed": 1, "terminated": 143, "killed": -9}
RECORDER = """\
#!/bin/sh
{{ cat /proc/$$/cmdline /proc/$$/environ; }} > {records}/$$-{name}
until [ -e {seen}/$$ ] || [ $((rounds += 1)) -gt 3000 ]; do sleep 0.01; done
exec {program} "$@"
"""
"""It goes on when the watcher has seen it, however short the program's life is."""


@dataclass(frozen=True, slots=True)
class Place:
    """Directories of one run: what it is given, what it may write to, what its children show."""

    root: Path
    secret: str
    source: str

    @property
    def username(self) -> str:
        """Who the registry is told we are."""
        return "token" if self.source == "token" else USERNAME

    @property
    def inputs(self) -> Path:
        return self.root / "inputs"

    @property
    def records(self) -> Path:
        return self.root / "records"

    @property
    def seen(self) -> Path:
        return self.root / "seen"

    @property
    def needles(self) -> tuple[bytes, ...]:
        return canary.needles(self.secret, self.username)

    def make(self) -> Place:
        for name in ("inputs/bin", "records", "seen", "home", "tmp", "run", "cwd", "out"):
            (self.root / name).mkdir(parents=True)
        layers = [os.urandom(3 << 20), b"small"]
        archive = layouts.tar_of(layouts.image_files(layers=layers))
        (self.inputs / "image.tar").write_bytes(archive)
        return self

    def environment(self, registry: ScriptedRegistry) -> dict[str, str]:
        """A run that tells as much as it can, with its children recorded by wrappers."""
        version = "newer" if self.source in {"token", "helper"} else "system"
        skopeo = skopeos.find(version).directory / "skopeo"
        for name, program in (("skopeo", skopeo), ("setpriv", machine.command("setpriv"))):
            wrapper = self.inputs / "bin" / name
            script = RECORDER.format(
                name=name, program=program, records=self.records, seen=self.seen
            )
            wrapper.write_text(script)
            wrapper.chmod(0o755)
        out = self.root / "out"
        coverage = {name: value for name, value in os.environ.items() if "COVERAGE" in name}
        return {
            **coverage,
            **self.given(registry),
            "PATH": f"{self.inputs / 'bin'}:{machine.SYSTEM_PATH}",
            "HOME": str(self.root / "home"),
            "TMPDIR": str(self.root / "tmp"),
            "XDG_RUNTIME_DIR": str(self.root / "run"),
            "PYTHONPATH": str(ROOT),
            "PLP_ARTIFACT_PATH": str(self.inputs / "image.tar"),
            "PLP_IMAGE_REPOSITORY": f"{registry.address}/team/app",
            "PLP_COMMIT_SHA": "0123456789abcdef",
            "PLP_TAG": "v1.2.3",
            "PLP_REGISTRY_INSECURE": "true",
            "PLP_PUSH_RETRIES": "1",
            "PLP_LOG_LEVEL": "debug",
            "PLP_DEBUG": "true",
            "PLP_RESULT_FILE": str(out / "result.json"),
            "PLP_RESULT_IMAGE_DIGEST_FILE": str(out / "digest"),
            "PLP_RESULT_IMAGE_URL_FILE": str(out / "url"),
            "GITHUB_OUTPUT": str(out / "github-output"),
            "GITHUB_STEP_SUMMARY": str(out / "github-summary"),
        }

    def given(self, registry: ScriptedRegistry) -> dict[str, str]:
        """The variables of the source of credentials, and the files behind them."""
        if self.source == "password":
            return {
                "PLP_REGISTRY_USERNAME": USERNAME,
                "PLP_REGISTRY_PASSWORD": self.secret,
                "PLP_LOG_FORMAT": "json",
            }
        if self.source == "token":
            return {"PLP_REGISTRY_TOKEN": self.secret}
        config: dict[str, object] = {"credHelpers": {registry.address: "canary"}}
        if self.source == "helper":
            helper = self.inputs / "bin" / "docker-credential-canary"
            answer = {"ServerURL": "", "Username": USERNAME, "Secret": self.secret}
            (self.inputs / "answer").write_text(json.dumps(answer))
            helper.write_text(f"#!/bin/sh\necho asked >&2\ncat {self.inputs / 'answer'}\n")
            helper.chmod(0o755)
        else:
            both = base64.b64encode(f"{USERNAME}:{self.secret}".encode()).decode()
            config = {"auths": {registry.address: {"auth": both}}}
        (self.inputs / "config.json").write_text(json.dumps(config))
        if self.source == "auth_file":
            return {"REGISTRY_AUTH_FILE": str(self.inputs / "config.json")}
        return {"DOCKER_CONFIG": str(self.inputs), "PLP_LOG_FORMAT": "json"}

    def recorded(self) -> dict[str, bytes]:
        """Arguments and environment of every child that a wrapper has seen, by name."""
        return {path.name: path.read_bytes() for path in self.records.iterdir()}


def new_secret() -> str:
    return f"Canary-{secrets.token_hex(12)}/+%&"


def prepare(registry: ScriptedRegistry, end: str, place: Place) -> None:
    """Let the registry do what leads to this end of a run."""
    if end == "broken":
        registry.fail("upload-start", scripted_registry.FAULTS["503"], None)
    if end == "echoed":
        said = " and ".join(needle.decode() for needle in place.needles)
        reply = error(400, "MANIFEST_INVALID", f"you said {said}")
        registry.fail("manifest-put", Fault("400", reply), None)
    if end in {"terminated", "killed"}:
        registry.fail("upload-data", scripted_registry.FAULTS["stall"], None)


@contextmanager
def started(place: Place, env: dict[str, str]) -> Iterator[subprocess.Popen[bytes]]:
    """A publisher that begins when its standard input ends."""
    with (
        (place.root / "out" / "stdout").open("wb") as out,
        (place.root / "out" / "stderr").open("wb") as errors,
    ):
        process = subprocess.Popen(
            ["sh", "-c", f"read go; exec {sys.executable} -m publisher < /dev/null"],
            cwd=place.root / "cwd",
            env=env,
            stdin=subprocess.PIPE,
            stdout=out,
            stderr=errors,
            start_new_session=True,
        )
        assert process.stdin is not None
        try:
            yield process
        finally:
            process.stdin.close()
            process.kill()
            process.wait()


def stalled(registry: ScriptedRegistry) -> bool:
    return any(seen.answer == "stall" for seen in registry.seen)


def is_sample(source: str, end: str) -> bool:
    return source in {"password", "helper"} or end in {"success", "killed"}


@pytest.mark.parametrize(
    ("source", "end"),
    [
        pytest.param(source, end, marks=() if is_sample(source, end) else pytest.mark.soak)
        for source in SOURCES
        for end in ENDS
    ],
)
def test_a_password_is_nowhere(source: str, end: str, tmp_path: Path) -> None:
    place = Place(tmp_path / "place", new_secret(), source).make()
    known = (place.username, "another" if end == "unauthorized" else place.secret)
    with scripted_registry.running("basic", known) as registry:
        prepare(registry, end, place)
        env = place.environment(registry)
        with (
            started(place, env) as process,
            canary.watching(
                process.pid,
                place.needles,
                [place.root],
                [place.inputs, place.records],
                place.seen,
            ) as watcher,
        ):
            assert process.stdin is not None
            process.stdin.close()
            if end in {"terminated", "killed"}:
                assert processes.until(lambda: stalled(registry), PATIENCE)
                process.send_signal(signal.SIGKILL if end == "killed" else signal.SIGTERM)
            code = process.wait(PATIENCE)
        said = (place.root / "out" / "stderr").read_text(errors="replace")
        authorized = any(seen.authorized for seen in registry.seen)
    assert code == ENDS[end], said
    assert authorized
    recorded = place.recorded()
    assert any("skopeo" in name for name in recorded)
    assert any("skopeo" in command for command in watcher.children), watcher.summary
    assert watcher.sweeps > 5
    assert not watcher.found
    assert [name for name, data in recorded.items() if canary.holds(data, place.needles)] == []
    left = canary.files_with([place.root], place.needles, [place.inputs])
    assert left == []
    assert list((place.root / "tmp").iterdir()) == []
    assert list((place.root / "home").iterdir()) == []
    assert ("you said" in said) == (end == "echoed")


PLANTER = """
import os, subprocess, sys, time
secret, kind = sys.stdin.readline().strip(), sys.argv[1]
nap = [sys.executable, "-c", "import time; time.sleep(2)"]
if kind == "arguments":
    subprocess.run([*nap, secret])
elif kind == "environment":
    subprocess.run(nap, env={"PASSWORD": secret})
elif kind == "file":
    with open(sys.argv[2], "w") as file:
        file.write("auth=" + secret)
    time.sleep(2)
    os.unlink(sys.argv[2])
else:
    subprocess.run(nap)
"""


@pytest.mark.parametrize(
    ("kind", "form"),
    [("arguments", 0), ("environment", 1), ("file", 2), ("arguments", 3), ("file", 4), ("", 0)],
)
def test_what_leaks_for_a_moment_is_seen(kind: str, form: int, tmp_path: Path) -> None:
    """The watcher can fail: in each place, for each form of the secret."""
    wanted = canary.needles(new_secret(), USERNAME)
    (tmp_path / "deep").mkdir()
    planter = subprocess.Popen(
        [sys.executable, "-c", PLANTER, kind, tmp_path / "deep" / "file"], stdin=subprocess.PIPE
    )
    with planter, canary.watching(planter.pid, wanted, [tmp_path]) as watcher:
        assert planter.stdin is not None
        planter.stdin.write(wanted[form] + b"\n")
        planter.stdin.close()
        assert planter.wait(PATIENCE) == 0
    assert {found.kind for found in watcher.found} == ({kind} if kind else set())


def test_what_lies_in_a_file_is_found_unless_it_is_an_input(tmp_path: Path) -> None:
    for name in ("inputs/config.json", "out/result.json"):
        (tmp_path / name).parent.mkdir()
        (tmp_path / name).write_text("password: canary")
    found = canary.files_with([tmp_path], [b"canary"], [tmp_path / "inputs"])
    assert found == [Found("file", str(tmp_path / "out" / "result.json"))]
