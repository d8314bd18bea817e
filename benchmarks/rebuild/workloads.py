"""What is built: five projects, the same bytes on every machine as far as a mirror allows."""

from __future__ import annotations

import os
from collections.abc import Callable
from pathlib import Path
from typing import NamedTuple

from benchmarks.rebuild.packages import FURTHER, REQUIREMENTS, WHEELS
from tests.support import generate

Edit = Callable[[Path, str], None]
"""Writes ``text`` into a file of the source, so that other text is another content."""

FIRST = "first"
"""The text of both edits with which every round begins."""


class Workload(NamedTuple):
    """``make`` fills a directory that does not exist; ``code`` changes what the last steps
    take, ``dependencies`` what a step in the middle takes, None where there is none.

    ``base``: needs the base images and packages; ``mounts``: has cache mounts.
    """

    name: str
    title: str
    make: Callable[[Path], None]
    code: Edit
    dependencies: Edit | None = None
    base: bool = False
    mounts: bool = False


def _write(path: Path, text: str) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(text)


# W1

_ONE_FILE = "FROM scratch\nCOPY hello.txt /\n"


def _make_one_file(source: Path) -> None:
    _write(source / "Dockerfile", _ONE_FILE)


def _edit_one_file(source: Path, text: str) -> None:
    _write(source / "hello.txt", f"Hello, {text}\n")


# W2

_PIP = (
    "pip install --no-cache-dir --no-compile --break-system-packages --root-user-action=ignore"
    f" --index-url=http://{WHEELS}/simple/ --trusted-host={WHEELS} -r requirements.txt"
)
_APPLICATION = f"""\
FROM debian:trixie-slim
RUN apt-get update && \\
    apt-get install -y --no-install-recommends git python3 python3-pip && \\
    rm -rf /var/lib/apt/lists/*
WORKDIR /app
COPY requirements.txt ./
RUN {_PIP}
COPY app app
RUN python3 -m compileall -q app
USER 1000
CMD ["python3", "-m", "app"]
"""


def _make_application(source: Path) -> None:
    _write(source / "Dockerfile", _APPLICATION)
    for number in range(60):
        lines = (f"def f{line}(x):\n    return x * {number} + {line}\n" for line in range(40))
        _write(source / f"app/part_{number:02d}.py", "\n".join(lines))


def _edit_application(source: Path, text: str) -> None:
    _write(source / "app/__main__.py", f"print({text!r})\n")


def _edit_requirements(source: Path, text: str) -> None:
    lines = REQUIREMENTS if text == FIRST else (*REQUIREMENTS, FURTHER)
    _write(source / "requirements.txt", "\n".join(lines) + "\n")


# W3

_LARGE = "FROM scratch\nCOPY layer.bin /\nCOPY version.txt /\n"


def _make_large(source: Path) -> None:
    generate.large_layer(source)
    _write(source / "Dockerfile", _LARGE)


def _edit_version(source: Path, text: str) -> None:
    _write(source / "version.txt", f"{text}\n")


def _edit_layer(source: Path, text: str) -> None:
    with (source / "layer.bin").open("r+b") as file:
        file.write(text.encode().ljust(16))


# W4


def _make_many(source: Path) -> None:
    generate.many_files(source)


def _edit_one_of_many(source: Path, text: str) -> None:
    _write(source / "files/0150/015000.txt", f"{text}\n")


# W5

_COMPILED = """\
FROM debian:trixie-slim AS build
COPY packages.txt ./
RUN --mount=type=cache,target=/var/cache/apt,sharing=locked \\
    --mount=type=cache,target=/var/lib/apt,sharing=locked \\
    rm -f /etc/apt/apt.conf.d/docker-clean && apt-get update && \\
    xargs apt-get install -y --no-install-recommends <packages.txt
WORKDIR /work
COPY src src
RUN --mount=type=cache,target=/objects,sharing=locked \\
    make -C src -j2 && install -D /objects/app /out/app

FROM debian:trixie-slim
COPY --from=build /out/app /usr/local/bin/app
CMD ["app"]
"""
_MAKEFILE = """\
objects := $(patsubst %.c,/objects/%.o,$(wildcard *.c))
/objects/app: $(objects)
\tgcc -o $@ $^
/objects/%.o: %.c
\tgcc -O2 -c -o $@ $<
"""
SOURCES = 40


def _make_compiled(source: Path) -> None:
    _write(source / "Dockerfile", _COMPILED)
    _write(source / "src/Makefile", _MAKEFILE)
    _write(source / "src/main.c", "int main(void) { return 0; }\n")
    for number in range(SOURCES):
        functions = (
            f"double f{number}_{line}(double x, int n) {{ double s = {line};"
            f" for (int i = 0; i < n; i++) s += x * i / (s + {line}); return s; }}\n"
            for line in range(150)
        )
        _write(source / f"src/part_{number:02d}.c", "".join(functions))


def _edit_compiled(source: Path, text: str) -> None:
    _write(source / "src/main.c", f'const char *v = "{text}";\nint main() {{ return 0; }}\n')


def _edit_packages(source: Path, text: str) -> None:
    packages = ["gcc", "libc6-dev", "make", *([] if text == FIRST else ["bison"])]
    _write(source / "packages.txt", "\n".join(packages) + "\n")


WORKLOADS = (
    Workload("W1", "FROM scratch and one file", _make_one_file, _edit_one_file),
    Workload(
        "W2",
        "Debian with apt and Python packages",
        _make_application,
        _edit_application,
        _edit_requirements,
        base=True,
    ),
    Workload(
        "W3", "a layer of 1 GiB that does not compress", _make_large, _edit_version, _edit_layer
    ),
    Workload("W4", "30,000 small files", _make_many, _edit_one_of_many),
    Workload(
        "W5",
        "two stages, C compiled with cache mounts",
        _make_compiled,
        _edit_compiled,
        _edit_packages,
        base=True,
        mounts=True,
    ),
)


def prepare(workload: Workload, source: Path) -> Path:
    """Make the source of a workload with both edits at their first text, for every user."""
    workload.make(source)
    workload.code(source, FIRST)
    if workload.dependencies is not None:
        workload.dependencies(source, FIRST)
    for directory, _, names in os.walk(source):
        Path(directory).chmod(0o755)
        for name in names:
            Path(directory, name).chmod(0o644)
    return source
