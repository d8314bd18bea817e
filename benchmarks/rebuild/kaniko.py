"""kaniko from its Go module, built once and kept."""

from __future__ import annotations

import os
import subprocess
from pathlib import Path

from scripts.set_up.go import find_or_fetch
from scripts.set_up.step import SetupError, cache_home
from scripts.set_up.toolchain import lowest_go
from tests.support.machine import made_once

MODULE = "github.com/GoogleContainerTools/kaniko"
VERSION = "v1.24.0"
LIMIT = 600
"""Seconds that fetching and building may take."""


def executor() -> Path:
    """The program. SetupError where it cannot be built in time."""
    target = cache_home() / "benchmarks" / f"kaniko-{VERSION}"
    target.parent.mkdir(parents=True, exist_ok=True)
    return made_once(target, _build) / "executor"


def _build(work: Path) -> None:
    go = find_or_fetch(lowest_go()).path
    (work / "go.mod").write_text("module kaniko.invalid/build\n\ngo 1.24\n")
    env = {**os.environ, "GOWORK": "off", "GOFLAGS": "-mod=mod", "CGO_ENABLED": "0"}
    package = f"{MODULE}/cmd/executor"
    for words in (
        ("get", "-tool", f"{package}@{VERSION}"),
        ("build", "-trimpath", "-ldflags=-s -w", "-o", "executor", package),
    ):
        try:
            subprocess.run(
                [go, *words], cwd=work, env=env, check=True, capture_output=True, timeout=LIMIT
            )
        except subprocess.TimeoutExpired as error:
            raise SetupError(f"go {words[0]} took more than {LIMIT} s") from error
        except subprocess.CalledProcessError as error:
            raise SetupError(error.stderr.decode(errors="replace")[-500:]) from error
