"""Hostile values through a whole build: verbatim in the image, or refused by name."""

from __future__ import annotations

from pathlib import Path

import pytest

from tests.corpus.hostile_values import HOSTILE, Hostile, together
from tests.support import image, machine
from tests.support.builder import MakeWorkspace, RunBuilder, Workspace
from tests.support.machine import Tools

CREATED = "org.opencontainers.image.created"
SIMPLE = "FROM scratch\nCOPY Dockerfile* /\n"
OTHERS = [
    entry
    for entry in HOSTILE
    if entry.arrives == "verbatim"
    and entry.variable not in {"PLP_LABELS", "PLP_ANNOTATIONS", "PLP_BUILD_ARGS"}
]
MAX_STRING = 131_072 - len("PLP_ANNOTATIONS=") - 1
REFUSED = [
    entry
    for entry in HOSTILE
    if entry.arrives == "refused" and "\0" not in entry.value and len(entry.value) < MAX_STRING
]
"""Without those that no environment can carry: a NUL, or more than MAX_ARG_STRLEN (execve(2))."""


def name(entry: Hostile) -> str:
    return f"{entry.variable}={entry.value[:20]}".encode("ascii", "replace").decode()


def test_the_corpus_is_large_enough() -> None:
    assert len(HOSTILE) >= 200


def test_all_labels_and_annotations_at_once(
    buildkit: Tools, workspace: MakeWorkspace, run_builder: RunBuilder
) -> None:
    """And nothing besides them: no value has made a key of its own."""
    place = workspace().write({"Dockerfile": SIMPLE})
    labels_env, labels = together("PLP_LABELS")
    annotations_env, annotations = together("PLP_ANNOTATIONS")
    result = run_builder({**place.env, **labels_env, **annotations_env}, tools=buildkit)
    assert result.code == 0, result.output
    found = image.read(result.archive)
    assert found.config["config"]["Labels"] == labels
    assert {k: v for k, v in found.manifest["annotations"].items() if k != CREATED} == annotations


def test_all_build_arguments_at_once(
    buildkit: Tools, workspace: MakeWorkspace, run_builder: RunBuilder
) -> None:
    """Each is written to a file by a step that sees it in its environment."""
    environ, arguments = together("PLP_BUILD_ARGS")
    busybox = Path(machine.command("busybox")).read_bytes()
    lines = ["FROM scratch", "COPY --chmod=755 busybox /bin/busybox"]
    lines += [f"ARG {key}" for key in arguments]
    lines.append('RUN ["/bin/busybox", "sh", "-c", "/bin/busybox cat /proc/self/environ >/all"]')
    place = workspace().write({"Dockerfile": "\n".join(lines) + "\n", "busybox": busybox})
    result = run_builder({**place.env, **environ}, tools=buildkit)
    assert result.code == 0, result.output
    held = image.read(result.archive).files["all"].split(b"\0")
    seen = dict(item.decode().split("=", 1) for item in held if item)
    assert {key: seen.get(key) for key in arguments} == arguments


@pytest.mark.parametrize("entry", OTHERS, ids=name)
def test_every_other_value_arrives(
    entry: Hostile, workspace: MakeWorkspace, run_builder: RunBuilder
) -> None:
    place = workspace()
    env = {**place.env, **entry.environ, "GIT_SHA": "sha", entry.variable: entry.value}
    if entry.variable.endswith(("_PATH", "_CONFIG")):
        env[entry.variable] = str(place.root / entry.value.lstrip("/"))
    make_source(env, place)
    result = run_builder(env)
    assert result.code == 0, result.output
    archive = Path(env["PLP_BUILD_PATH"]) / env.get("PLP_ARCHIVE_NAME", "container-image.tar")
    assert list(archive.parent.iterdir()) == [archive]
    found = image.read(archive)
    assert found.text("file") == "here"
    annotations = found.manifest["annotations"]
    if entry.variable == "GIT_SHA":
        assert annotations["org.opencontainers.image.revision"] == entry.value
    elif entry.variable == "GIT_REPOSITORY_URL":
        assert annotations["org.opencontainers.image.source"] == entry.value
    elif entry.variable == "PLP_IMAGE":
        assert entry.value.encode() in found.everything
    elif entry.variable == "PLP_CACHE_PATH":
        assert (Path(env["PLP_CACHE_PATH"]) / "buildkit" / "index.json").is_file()


def make_source(env: dict[str, str], place: Workspace) -> None:
    """The directories and files that the variables name, whatever they are called."""
    source = Path(env["PLP_SOURCE_PATH"]) / env.get("PLP_CONTEXT", "")
    for directory in (source, Path(env["PLP_BUILD_PATH"]), Path(env["PLP_CACHE_PATH"])):
        directory.mkdir(parents=True, exist_ok=True)
    stages = "FROM scratch AS unused\nFROM scratch AS Stage-1_a.b\nCOPY file /\nFROM unused\n"
    content = stages if "PLP_TARGET" in env else "FROM scratch\nCOPY file /\n"
    (source / env.get("PLP_DOCKERFILE", "Dockerfile")).write_text(content)
    (source / "file").write_text("here")
    if config := env.get("PLP_BUILDKITD_CONFIG"):
        Path(config).parent.mkdir(parents=True)
        Path(config).write_text("[worker.oci]\nmax-parallelism = 1\n")
    for path in place.root.rglob("*"):
        place.owner.own(path)


@pytest.mark.parametrize("entry", REFUSED[:: max(1, len(REFUSED) // 12)], ids=name)
def test_some_refusals_of_the_whole_program(
    entry: Hostile, workspace: MakeWorkspace, run_builder: RunBuilder
) -> None:
    """All of them are unit tests of the settings; these see that the program says it, too."""
    refuse(entry, workspace, run_builder)


@pytest.mark.soak
@pytest.mark.parametrize("entry", REFUSED, ids=name)
def test_every_refusal_of_the_whole_program(
    entry: Hostile, workspace: MakeWorkspace, run_builder: RunBuilder
) -> None:
    refuse(entry, workspace, run_builder)


def refuse(entry: Hostile, workspace: MakeWorkspace, run_builder: RunBuilder) -> None:
    place = workspace().write({"Dockerfile": SIMPLE})
    result = run_builder({**place.env, **entry.environ, entry.variable: entry.value})
    assert result.code == 1
    assert entry.variable in result.stderr
    assert "ERROR setting-" in result.stderr
    assert "Traceback" not in result.output
    assert list(place.build.iterdir()) == []
