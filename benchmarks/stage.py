"""A place that every user of the machine can read, with all that the benchmarks run.

A checkout, a Python and a Go module cache may lie in a home directory that an unprivileged
user cannot enter, so what is needed is copied, and both sides of a comparison use the copy.
"""

from __future__ import annotations

import compileall
import os
import pwd
import shutil
import subprocess
import sys
from dataclasses import dataclass
from pathlib import Path

from scripts.set_up.go import find_or_fetch
from scripts.set_up.step import SetupError, run
from scripts.set_up.toolchain import lowest_go

ROOT = Path(__file__).resolve().parents[1]
TOOLS = ("buildkitd", "buildctl", "rootlesskit")
COMMAND = """\
import sys
from plp_builder.program import run
if __name__ == "__main__":
    sys.exit(run())
"""
"""What pip makes of the entry point."""

UPSTREAM = "examples/buildctl-daemonless/buildctl-daemonless.sh"


@dataclass(frozen=True, slots=True)
class Stage:
    """Where things are: the directory, a Python that every user can start, upstream's script."""

    directory: Path
    python: Path
    upstream: Path

    @property
    def builder(self) -> Path:
        """The installed command, for ``python``."""
        return self.directory / "bin" / "plp-builder"

    @property
    def path(self) -> str:
        """The PATH of every measured process."""
        return f"{self.directory}/bin:/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin"


def set_up(directory: Path, user: pwd.struct_passwd | None) -> Stage:
    """Fill ``directory``, which exists; ``user`` is who else must be able to use it.

    Raises SetupError where a tool or upstream's script is missing.
    """
    directory.chmod(0o755)
    (directory / "bin").mkdir()
    for tool in TOOLS:
        source = ROOT / "bin" / tool
        if not source.exists():
            raise SetupError(f"{source} is missing: run `make setup`")
        shutil.copy(source, directory / "bin")
    package = directory / "package"
    shutil.copytree(
        ROOT / "plp_builder", package / "plp_builder", ignore=shutil.ignore_patterns("__pycache__")
    )
    upstream = directory / "bin" / "buildctl-daemonless.sh"
    shutil.copy(upstream_module() / UPSTREAM, upstream)
    upstream.chmod(0o755)
    (directory / "bin" / "plp-builder").write_text(COMMAND)
    python = _python(directory, user)
    run([python, "-m", "compileall", "-q", package])
    return Stage(directory, python, upstream)


def as_user(user: pwd.struct_passwd) -> list[str]:
    """The words before a command that let it run as ``user``; none for the user we are.

    setpriv itself still has root's capabilities when it looks for a program, env no more: a
    program that the user cannot reach is not found by accident.
    """
    if user.pw_uid == os.geteuid():
        return []
    return [
        "setpriv",
        f"--reuid={user.pw_uid}",
        f"--regid={user.pw_gid}",
        "--init-groups",
        "--inh-caps=-all",
        "env",
    ]


def upstream_module() -> Path:
    """The directory of BuildKit's sources, in the Go module cache."""
    go = find_or_fetch(lowest_go()).path
    module = "github.com/moby/buildkit"
    env = {**os.environ, "GOTOOLCHAIN": "local", "GOWORK": "off", "GOFLAGS": "-mod=mod"}
    run([go, "mod", "download", module], cwd=ROOT / "toolchain", env=env)
    where = run([go, "list", "-m", "-f", "{{.Dir}}", module], cwd=ROOT / "toolchain", env=env)
    return Path(where.strip())


def _python(directory: Path, user: pwd.struct_passwd | None) -> Path:
    """Ours if the user can start it, else the system's with an environment of its own."""
    ours = Path(sys.executable)
    if user is None or _works(ours, user):
        return ours
    environment = directory / "venv"
    run(["/usr/bin/python3", "-m", "venv", environment])
    python = environment / "bin" / "python"
    requirements = ROOT / "requirements" / "run.txt"
    run([python, "-m", "pip", "install", "-q", "--require-hashes", "-r", requirements])
    compileall.compile_dir(environment, quiet=2)
    return python


def _works(python: Path, user: pwd.struct_passwd) -> bool:
    # By way of a shell: setpriv itself still has root's capabilities when it executes a program.
    script = '"$0" -c "import pydantic_settings, structlog"'
    check = [*as_user(user), "sh", "-c", script, str(python)]
    return subprocess.run(check, capture_output=True, check=False, cwd="/").returncode == 0
