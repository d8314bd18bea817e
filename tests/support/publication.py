"""The publisher against registries that guard themselves or fail: how it ended, as a document."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from collections.abc import Mapping
from pathlib import Path
from typing import Any, NamedTuple

from scripts.set_up.step import ROOT
from tests.support.skopeo import Skopeo


class Result(NamedTuple):
    """How a publisher ended; ``document`` is its result file, {} where it left none."""

    code: int
    stderr: str
    document: dict[str, Any]
    left_files: tuple[str, ...]

    @property
    def error(self) -> str:
        """The stable name of the failure, empty after success."""
        return str(self.document.get("error", {}).get("name", ""))


def environment(env: Mapping[str, str], skopeo: Skopeo, home: Path) -> dict[str, str]:
    """What a publisher gets: ``env`` over a small usual environment below ``home``."""
    temporary = home / "tmp"
    temporary.mkdir(parents=True, exist_ok=True)
    return {
        **{name: value for name, value in os.environ.items() if "COVERAGE" in name},
        "HOME": str(home),
        "LANG": "C.UTF-8",
        "PATH": skopeo.path,
        "TMPDIR": str(temporary),
        "PLP_RESULT_FILE": str(home / "result.json"),
        **env,
    }


def run(env: Mapping[str, str], skopeo: Skopeo, home: Path, *, timeout: float = 300.0) -> Result:
    """Run `python -m publisher` to its end; whether it failed is the caller's to judge."""
    done = subprocess.run(
        [sys.executable, "-m", "publisher"],
        cwd=ROOT,
        env=environment(env, skopeo, home),
        stdin=subprocess.DEVNULL,
        check=False,
        capture_output=True,
        text=True,
        timeout=timeout,
    )
    path = home / "result.json"
    document = json.loads(path.read_text()) if path.exists() else {}
    left = tuple(sorted(each.name for each in (home / "tmp").iterdir()))
    return Result(done.returncode, done.stdout + done.stderr, document, left)
