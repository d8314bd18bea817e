"""A newer skopeo for the tests: Debian trixie's package beside the machine's own.

Images of this project carry trixie's, while the tests' machines often have an older one. The
package and the libraries it needs are unpacked into the user's cache, nothing is installed;
``bin/newer/skopeo`` starts it with its own loader and libraries.
"""

from __future__ import annotations

import os
import shlex
import shutil
import tempfile
from pathlib import Path

from scripts.set_up.packages import debian_mirror
from scripts.set_up.step import ROOT, SetupError, cache_home, content_key, lock, run, step, warn

_SUITE = "trixie"
_KEYS = "/usr/share/keyrings/debian-archive-keyring.gpg"
_PACKAGES = ("skopeo", "libc6", "libgpgme11t64", "libassuan9", "libgpg-error0", "libsqlite3-0")

PROGRAM = ROOT / "bin/newer/skopeo"


def _apt(work: Path) -> list[str | Path]:
    """An apt-get that knows nothing but the suite and writes nowhere but below ``work``."""
    mirror = debian_mirror()  # whichever it is: signatures are what is trusted
    if not mirror:
        raise SetupError("no mirror of Debian is known: neither apt nor debootstrap names one")
    for directory in ("lists/partial", "cache/archives/partial"):
        (work / directory).mkdir(parents=True)
    (work / "status").touch()
    (work / "sources.list").write_text(f"deb [signed-by={_KEYS}] {mirror} {_SUITE} main\n")
    options = {
        "Dir::State::lists": work / "lists",
        "Dir::State::status": work / "status",
        "Dir::Cache": work / "cache",
        "Dir::Etc::sourcelist": work / "sources.list",
        "Dir::Etc::sourceparts": "/dev/null",
        "Dir::Etc::preferencesparts": "/dev/null",
        "Acquire::Languages": "none",
        "APT::Sandbox::User": "root",
        "Debug::NoLocking": "true",
    }
    return ["apt-get", "-q", *(f"-o{name}={value}" for name, value in options.items())]


def _unpack(target: Path) -> None:
    work = Path(tempfile.mkdtemp(prefix=".making-", dir=target.parent))
    try:
        apt = _apt(work)
        run([*apt, "update"], cwd=work)
        run([*apt, "download", *_PACKAGES], cwd=work)
        for package in work.glob("*.deb"):
            run(["dpkg-deb", "--extract", package, work / "tree"])
        _start_script(work / "tree")  # raises before anything is in place
        (work / "tree").rename(target)
    finally:
        shutil.rmtree(work, ignore_errors=True)


def _start_script(tree: Path) -> str:
    loaders = sorted(tree.glob("usr/lib/*/ld-linux*"))
    program = tree / "usr/bin/skopeo"
    if not loaders or not program.exists():
        raise SetupError("Debian's packages hold no skopeo or no loader for it")
    libraries = shlex.quote(str(loaders[0].parent))
    words = f"{shlex.quote(str(loaders[0]))} --inhibit-cache --library-path {libraries}"
    return f'#!/bin/sh\nexec {words} {shlex.quote(str(program))} "$@"\n'


def _place(tree: Path) -> None:
    script = _start_script(tree)
    if PROGRAM.exists() and PROGRAM.read_text() == script:
        return
    PROGRAM.parent.mkdir(mode=0o755, parents=True, exist_ok=True)
    work = PROGRAM.with_name(f".{PROGRAM.name}.{os.getpid()}")
    work.write_text(script)
    work.chmod(0o755)
    work.replace(PROGRAM)


def install() -> None:
    """Bring ``bin/newer/skopeo``; where Debian's packages cannot be had, say so and go on."""
    with step("Newer skopeo, for tests") as current:
        target = cache_home() / "skopeo" / f"{_SUITE}-{content_key(_SUITE, *_PACKAGES)}"
        current.outcome = "there"
        try:
            with lock(target.with_name(f".{target.name}.lock")):
                if not target.is_dir():
                    current.begin("fetching it from Debian, some seconds the first time")
                    _unpack(target)
                    current.outcome = "unpacked"
            _place(target)
            run([PROGRAM, "--version"])
            return
        except SetupError as error:
            current.outcome = "not to be had"
            reason = error
    warn(f"Tests with a newer skopeo will be skipped: {reason}")
