"""Values, secrets, SSH, contexts and step options arrive in real builds, on both versions."""

from __future__ import annotations

import json
import os
import shutil
import socket
import subprocess
from pathlib import Path

import pytest

from tests.support import image, machine
from tests.support.builder import MakeWorkspace, Result, RunBuilder, Workspace
from tests.support.image import Image
from tests.support.machine import Tools

VALUES = (
    "a,b", '"q"', '"', '""', 'a "b" c', ",", "=x=", "a=b,c=d", "  lead", "trail  ", "\ttab\t",
    "-x", "--opt", "#", "$HOME ${X}", "`id`", "\\n \\", "%s", "'", "{{.x}}", '{"a":1}',
    "annotation.x=y", "type=local,dest=/", "ünï", "日本", "e\u0301", "\U0001f600", "\u2028",
    "\ufeff", "a\u00a0",
)  # fmt: skip
"""What other layers of notation could take for their own."""

SHELL = 'SHELL ["/busybox", "sh", "-c"]\n'


def shell(place: Workspace, dockerfile: str) -> Workspace:
    """A source whose steps can run a static busybox, without any base image."""
    busybox = Path(machine.command("busybox")).read_bytes()
    start = f"FROM scratch\nCOPY --chmod=755 busybox /busybox\n{SHELL}"
    return place.write({"Dockerfile": start + dockerfile, "busybox": busybox})


def built(result: Result) -> Image:
    assert result.code == 0, result.output
    assert result.left_processes == ()
    return image.read(result.archive)


def test_hostile_values_arrive_verbatim(
    workspace: MakeWorkspace, run_builder: RunBuilder, buildkit: Tools
) -> None:
    numbers = range(len(VALUES))
    place = workspace().write(
        {
            "Dockerfile": "FROM scratch\n"
            + "".join(f"ARG A{number}\nLABEL arg{number}=$A{number}\n" for number in numbers)
            + "COPY Dockerfile /f\n"
        }
    )
    env = {
        "PLP_BUILD_ARGS": "\n".join(f"A{number}={VALUES[number]}" for number in numbers),
        "PLP_LABELS": "\n".join(f"label{number}={VALUES[number]}" for number in numbers),
        "PLP_ANNOTATIONS": "\n".join(f"a{number}={VALUES[number]}" for number in numbers),
        "GIT_SHA": 'sha,"name=x"',
        "GIT_REPOSITORY_URL": "https://user:password@example.com/a,b?c=d",
    }
    found = built(run_builder({**place.env, **env}, tools=buildkit))
    labels, annotations = found.config["config"]["Labels"], found.manifest["annotations"]
    created = annotations.pop("org.opencontainers.image.created")
    assert created.endswith("Z")
    assert labels == {
        f"{kind}{number}": VALUES[number] for kind in ("arg", "label") for number in numbers
    }
    assert annotations == {
        **{f"a{number}": VALUES[number] for number in numbers},
        "org.opencontainers.image.revision": 'sha,"name=x"',
        "org.opencontainers.image.source": "https://example.com/a,b?c=d",
    }


@pytest.mark.parametrize("name", ["a b", "a,b", "a=b", '"q"', "-x", "日本", "x\ny", "D[1]*?"])
def test_odd_directories_and_dockerfiles(
    name: str, workspace: MakeWorkspace, run_builder: RunBuilder
) -> None:
    place = workspace().write(
        {
            f"{name}/{name}": "FROM scratch\nCOPY . /\n",
            f"{name}/{name}.dockerignore": "ignored\n",
            f"{name}/kept": "",
            f"{name}/ignored": "",
        }
    )
    env = {"PLP_CONTEXT": name, "PLP_DOCKERFILE": name}
    found = built(run_builder({**place.env, **env}))
    assert set(found.files) == {name, f"{name}.dockerignore", "kept"}


def test_secrets(workspace: MakeWorkspace, run_builder: RunBuilder, buildkit: Tools) -> None:
    """From variables, also one that buildctl would read itself, and from a file."""
    secrets = ("first.id", "OTEL_X", "epoch", "file")
    mounts = " ".join(
        f"--mount=type=secret,id={name},target=/run/{number},required=true"
        for number, name in enumerate(secrets)
    )
    place = shell(
        workspace(),
        f"RUN {mounts} for n in 0 1 2 3; do /busybox sha256sum </run/$n >>/sums; done\n",
    )
    values = ['v1,"x"=\n second line', "value-of-two", "1234567890", "value-of-four"]
    (place.root / "s,4").write_text(values[3])
    place.owner.own(place.root / "s,4")
    env = {
        "PLP_SECRETS": "id=first.id,env=FIRST\nid=OTEL_X,env=OTEL_X\n"
        f'id=epoch,env=SECRET_EPOCH\nid=file,"src={place.root}/s,4"',
        "FIRST": values[0],
        "OTEL_X": values[1],
        "SECRET_EPOCH": values[2],
        "PLP_DEBUG": "true",
    }
    result = run_builder({**place.env, **env}, tools=buildkit)
    found = built(result)
    sums = [line.split()[0] for line in found.text("sums").splitlines()]
    assert sums == [_sha256(value) for value in values]
    for value in values:
        assert value.encode() not in found.everything
        assert value not in result.output


def _sha256(text: str) -> str:
    done = subprocess.run(["sha256sum"], input=text.encode(), capture_output=True, check=True)
    return done.stdout.split()[0].decode()


def test_ssh_keys_and_agents(
    workspace: MakeWorkspace, run_builder: RunBuilder, buildkit: Tools
) -> None:
    """A step gets a socket for a key, and one for an agent."""
    keygen = machine.command("ssh-keygen")
    place = shell(
        workspace(),
        "RUN --mount=type=ssh,required=true --mount=type=ssh,id=agent,target=/agent,required=true "
        "/busybox test -S $SSH_AUTH_SOCK && /busybox test -S /agent && /busybox touch /done\n",
    )
    key, agent = place.root / "key", place.root / "agent"
    subprocess.run([keygen, "-q", "-t", "ed25519", "-N", "", "-f", key], check=True)
    place.owner.own(key)
    with socket.socket(socket.AF_UNIX) as listener:
        listener.bind(str(agent))
        listener.listen()
        place.owner.own(agent)
        env = {"PLP_SSH": f"default={key}\nagent={agent}"}
        found = built(run_builder({**place.env, **env}, tools=buildkit))
    assert "done" in found.files


def test_a_key_with_a_passphrase_is_refused(
    workspace: MakeWorkspace, run_builder: RunBuilder
) -> None:
    keygen = machine.command("ssh-keygen")
    place = workspace().write({"Dockerfile": "FROM scratch\n"})
    for kind in ("rsa", "ed25519"):
        key = place.root / kind
        words = [keygen, "-q", "-t", kind, "-N", "passphrase", "-f", key]
        subprocess.run(words, check=True)
        place.owner.own(key)
        result = run_builder({**place.env, "PLP_SSH": f"default={key}"})
        assert result.code == 1
        assert "ssh-not-usable" in result.output
        assert "passphrase" in result.output


def as_layout(archive: Path, layout: Path) -> Path:
    skopeo = machine.command("skopeo")
    subprocess.run([skopeo, "copy", "-q", f"oci-archive:{archive}", f"oci:{layout}:v1"], check=True)
    return layout


def test_named_contexts(workspace: MakeWorkspace, run_builder: RunBuilder, buildkit: Tools) -> None:
    """A directory, and a read-only OCI layout in the place of a base image."""
    base = workspace().write(
        {"Dockerfile": "FROM scratch\nCOPY a /from-base\nLABEL base=1\n", "a": "base"}
    )
    assert run_builder(base.env, tools=buildkit).code == 0
    place = workspace().write(
        {"Dockerfile": "FROM example.com/base:1\nCOPY --from=context b /from-directory\n"}
    )
    layout = as_layout(base.archive, place.root / "lay,out")
    extra = place.root / "ex=tra,"
    extra.mkdir()
    (extra / "b").write_text("directory")
    for path in (layout, *layout.rglob("*"), extra, extra / "b"):
        place.owner.own(path)
        path.chmod(0o555 if path.is_dir() else 0o444)
    before = sorted(layout.rglob("*"))
    for reference in (str(layout), f"{layout}:v1", f"{layout}@{_digest(layout)}"):
        contexts = f"example.com/base:1=oci-layout://{reference}\ncontext={extra}"
        env = {**place.env, "PLP_BUILD_CONTEXTS": contexts}
        found = built(run_builder(env, tools=buildkit))
        assert found.files == {"from-base": b"base", "from-directory": b"directory"}
        assert found.config["config"]["Labels"] == {"base": "1"}
    assert sorted(layout.rglob("*")) == before


def _digest(layout: Path) -> str:
    (entry,) = json.loads((layout / "index.json").read_text())["manifests"]
    return str(entry["digest"])


def test_a_link_to_the_dockerfile_keeps_its_ignore_file(
    workspace: MakeWorkspace, run_builder: RunBuilder, buildkit: Tools
) -> None:
    place = workspace().write(
        {
            "docker/real": "FROM scratch\nCOPY . /\n",
            "docker/ignore": "secret\n",
            "secret": "s",
            "kept": "k",
        }
    )
    (place.source / "Dockerfile").symlink_to(place.source / "docker/real")
    for link in ("Dockerfile.dockerignore", ".dockerignore"):
        (place.source / link).symlink_to("docker/ignore")
        found = built(run_builder(place.env, tools=buildkit))
        assert "kept" in found.files
        assert "secret" not in found.files
        (place.source / link).unlink()


def test_target(workspace: MakeWorkspace, run_builder: RunBuilder, buildkit: Tools) -> None:
    place = workspace().write(
        {"Dockerfile": "FROM scratch AS one\nCOPY a /1\nFROM scratch\nCOPY a /2\n", "a": ""}
    )
    found = built(run_builder({**place.env, "PLP_TARGET": "one"}, tools=buildkit))
    assert set(found.files) == {"1"}


def test_how_steps_run(workspace: MakeWorkspace, run_builder: RunBuilder, buildkit: Tools) -> None:
    place = shell(
        workspace(),
        "RUN /busybox cat /proc/net/dev >/devices; /busybox cat /etc/hosts >/own-hosts; "
        "/busybox df -k /dev/shm >/shm; ulimit -n >/files; ulimit -Hn >>/files\n",
    )
    env = {
        "PLP_NETWORK": "none",
        "PLP_ADD_HOSTS": "one.example:1.2.3.4,six.example=::1",
        "PLP_SHM_SIZE": "8m",
        "PLP_ULIMITS": "nofile=123:456",
    }
    found = built(run_builder({**place.env, **env}, tools=buildkit))
    devices = {line.split(":")[0].strip() for line in found.text("devices").splitlines()[2:]}
    assert devices <= {"lo"}
    hosts = [line.split() for line in found.text("own-hosts").splitlines()]
    assert ["1.2.3.4", "one.example"] in hosts
    assert ["::1", "six.example"] in hosts
    assert "8192" in found.text("shm").split()
    assert found.text("files").split() == ["123", "456"]


def test_offline(workspace: MakeWorkspace, run_builder: RunBuilder, buildkit: Tools) -> None:
    """No network in a step, and the frontend of a syntax line is not fetched."""
    place = shell(workspace(), "RUN /busybox cat /proc/net/dev >/devices\n")
    dockerfile = place.source / "Dockerfile"
    place.write({"Dockerfile": f"# syntax=docker/dockerfile:1\n{dockerfile.read_text()}"})
    found = built(run_builder({**place.env, "PLP_OFFLINE": "true"}, tools=buildkit))
    assert set(found.text("devices").split()) & {"eth0:", "ens5:"} == set()


def test_host_network(workspace: MakeWorkspace, run_builder: RunBuilder, buildkit: Tools) -> None:
    place = shell(workspace(), "RUN /busybox cat /proc/net/dev >/devices\n")
    found = built(run_builder({**place.env, "PLP_NETWORK": "host"}, tools=buildkit))
    ours = Path("/proc/net/dev").read_text().splitlines()[2:]
    assert {line.split(":")[0] for line in found.text("devices").splitlines()[2:]} == {
        line.split(":")[0] for line in ours
    }


@pytest.mark.parametrize("compression", ["zstd", "uncompressed", "estargz"])
def test_compression(
    compression: str, workspace: MakeWorkspace, run_builder: RunBuilder, buildkit: Tools
) -> None:
    place = workspace().write({"Dockerfile": "FROM scratch\nCOPY a /a\n", "a": "text" * 9999})
    env = {"PLP_COMPRESSION": compression, "PLP_IMAGE": "example.com/app:1"}
    result = run_builder({**place.env, **env}, tools=buildkit)
    assert result.code == 0, result.output
    done = subprocess.run(
        [machine.command("skopeo"), "inspect", "--raw", f"oci-archive:{place.archive}"],
        check=True,
        capture_output=True,
    )
    (layer,) = json.loads(done.stdout)["layers"]
    kinds = {"zstd": "tar+zstd", "uncompressed": "layer.v1.tar", "estargz": "tar+gzip"}
    assert layer["mediaType"].endswith(kinds[compression])


def test_output_none_builds_and_writes_nothing(
    workspace: MakeWorkspace, run_builder: RunBuilder
) -> None:
    place = workspace().write({"Dockerfile": "FROM scratch\nCOPY Dockerfile /\n"})
    shutil.rmtree(place.build)
    result = run_builder({**place.env, "PLP_OUTPUTS": "none"})
    assert result.code == 0, result.output
    assert not os.path.lexists(place.build)
