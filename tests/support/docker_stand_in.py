"""A `docker` for tests without an engine: `docker run` runs builder or publisher natively.

Mounts become paths: where a value names a place in the container, the program gets the place on
the machine. Every call is written down as a line of JSON in the file of DOCKER_STAND_IN_LOG.
An option that it does not know ends it: what the actions and examples use has to be understood.
"""

from __future__ import annotations

import csv
import json
import os
import subprocess
import sys
from pathlib import Path

ROOT = Path(__file__).parents[2]
_FLAGS = {"--rm", "--privileged", "--read-only"}
_VALUES = {
    *("--mount", "--volume", "-v", "--env", "-e", "--user", "--security-opt", "--tmpfs"),
    *("--cap-drop", "--network", "--entrypoint", "--label"),
}
_DEFAULTS = {
    "builder": {
        "PLP_SOURCE_PATH": "/source",
        "PLP_BUILD_PATH": "/build",
        "PLP_CACHE_PATH": "/tmp/cache",
    },
    "publisher": {"PLP_ARTIFACT_PATH": "/artifacts/container-image.tar"},
}
_KEPT = ("PATH", "HOME", "LANG", "TMPDIR")


def _parse(arguments: list[str]) -> tuple[list[tuple[str, str]], list[str]]:
    """Options as pairs, and what follows them: image and command."""
    options: list[tuple[str, str]] = []
    rest = list(arguments)
    while rest and rest[0].startswith("-"):
        name, equals, value = rest.pop(0).partition("=")
        if name in _FLAGS:
            options.append((name, ""))
        elif name in _VALUES:
            options.append((name, value if equals else rest.pop(0)))
        else:
            sys.exit(f"docker stand-in: unknown option {name}")
    return options, rest


def _mount(name: str, value: str) -> tuple[str, str]:
    """The place in the container, and on the machine."""
    if name == "--mount":
        (fields,) = csv.reader([value])
        pairs = dict(each.partition("=")[::2] for each in fields)
        assert pairs["type"] == "bind", value
        assert Path(pairs["src"]).exists(), f"no {pairs['src']}"
        return pairs["dst"], pairs["src"]
    source, target, *_ = value.split(":")
    volumes = Path(f"{os.environ['DOCKER_STAND_IN_LOG']}-volumes")
    path = Path(source) if source.startswith("/") else volumes / source
    path.mkdir(parents=True, exist_ok=True)  # as the engine does
    return target, str(path)


def _outside(value: str, mounts: dict[str, str]) -> str:
    for target in sorted(mounts, key=len, reverse=True):
        if value == target or value.startswith(f"{target}/"):
            return mounts[target] + value.removeprefix(target)
    return value


def main(arguments: list[str]) -> int:
    """Run what `docker run` would; returns the exit code."""
    with Path(os.environ["DOCKER_STAND_IN_LOG"]).open("a", encoding="utf-8") as log:
        log.write(json.dumps(arguments) + "\n")
    if arguments[0] != "run":
        return 0
    options, (image, *command) = _parse(arguments[1:])
    mounts = dict(_mount(*each) for each in options if each[0] in {"--mount", "--volume", "-v"})
    name = "publisher" if "publisher" in image else "builder"
    env = {key: os.environ[key] for key in os.environ if key in _KEPT or "COVERAGE" in key}
    env |= _DEFAULTS[name]
    for option, value in options:
        key, equals, text = value.partition("=")
        if option in {"--env", "-e"} and (equals or key in os.environ):
            env[key] = text if equals else os.environ[key]
    env = {key: _outside(text, mounts) if key not in _KEPT else text for key, text in env.items()}
    if "--entrypoint" in dict(options):
        argv = [sys.executable, *(_outside(each, mounts) for each in command)]
    else:
        module = {"builder": "plp_builder", "publisher": "publisher"}[name]
        argv = [sys.executable, "-m", module, *command]
    process = subprocess.Popen(argv, env=env, cwd=ROOT)
    import signal

    signal.signal(signal.SIGTERM, lambda *_: process.terminate())
    return process.wait()


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
