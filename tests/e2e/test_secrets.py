"""A secret is seen by the step that asks for it, and by nothing and nobody else."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

from tests.e2e.conftest import MakePlaces
from tests.support import image, processes
from tests.support.containers import PRIVILEGED, Containers
from tests.support.engine import Engine

SECRET = "a-secret-that-nothing-may-show-7193"
ADDRESS = "https://ci:hidden-in-the-address@git.example.com/team/app.git"
DOCKERFILE = """\
FROM scratch
COPY busybox /bin/busybox
SHELL ["/bin/busybox", "sh", "-euc"]
RUN --mount=type=secret,id=file,required=true --mount=type=secret,id=env,required=true \\
    /bin/busybox cat /run/secrets/file /run/secrets/env; \\
    /bin/busybox wc -c < /run/secrets/file > /size; echo has shown them; /bin/busybox sleep 3
"""


def holds(directory: Path, text: bytes) -> list[str]:
    """The files below a directory that hold a text, as they are."""
    files = [path for path in directory.rglob("*") if path.is_file()]
    return [str(path) for path in files if text in path.read_bytes()]


def test_secrets_stay_where_they_belong(
    start: Containers, places: MakePlaces, engine: Engine
) -> None:
    place = places(files={"Dockerfile": DOCKERFILE})
    file = place.workspace.root / "secret"
    file.write_text(SECRET)
    file.chmod(0o600)
    mounts = {**place.mounts, file: "/run/secrets/npm:ro"}
    env = {
        "PLP_SECRETS": "id=file,src=/run/secrets/npm\nid=env,env=TOKEN",
        "TOKEN": SECRET[::-1],
        "GIT_REPOSITORY_URL": ADDRESS,
        "PLP_DEBUG": "true",
        "PLP_IMAGE": "plp-e2e-secrets:latest",
    }
    container: Any = start.start(mounts, env, **PRIVILEGED)
    name = container.get_wrapped_container().id

    def shown() -> bool:
        log: bytes = container.get_wrapped_container().logs()
        return b"has shown them" in log

    assert processes.until(shown, 60)
    show = "cat /proc/[0-9]*/cmdline 2>/dev/null || :"  # some are gone before it is their turn
    commands = engine.docker("exec", name, "sh", "-c", show).stdout
    (inspected,) = json.loads(engine.docker("inspect", name).stdout)
    inspected["Config"].pop("Env")  # what the caller has put there
    ended = start.ended(container)
    assert ended.code == 0, ended.log

    texts = (SECRET, SECRET[::-1], "hidden-in-the-address")
    for text in texts:
        assert text not in ended.log
        assert text not in commands
        assert text not in json.dumps(inspected)
        assert text.encode() not in image.read(place.workspace.archive).everything
        assert holds(place.workspace.cache, text.encode()) == []
    engine.docker("load", "--input", str(place.workspace.archive))
    history = engine.docker("history", "--no-trunc", "plp-e2e-secrets:latest").stdout
    engine.docker("image", "rm", "--force", "plp-e2e-secrets:latest")
    assert not [text for text in texts if text in history]
