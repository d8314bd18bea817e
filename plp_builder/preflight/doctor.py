"""`python -m plp_builder doctor`: what a build would need here, checked and tried.

Nothing is built. The checks are those of a build; besides, rootlesskit and the process sandbox
are tried for real, because only the kernel knows all the reasons to refuse them.
"""

from __future__ import annotations

import os
import stat
import sys
import tempfile
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING

from plp_builder import process, settings
from plp_builder.errors import Failure, TimedOut
from plp_builder.preflight import cache_path, dockerfile, environment, inputs, paths
from plp_builder.preflight.finding import Finding
from plp_builder.terminal import printable

if TYPE_CHECKING:
    from plp_builder.preflight.facts import Facts
    from plp_builder.users import User

TRIAL_SECONDS = 20.0
_STATES = {True: "ok", None: "warning", False: "failed"}


def run(environ: Mapping[str, str]) -> int:
    """Print a table of all findings on stdout; 0 unless one of them stops a build, then 1."""
    facts = environment.read_facts(environ)
    checked = environment.findings(facts)
    found = [*_settings(environ), *checked]
    if all(finding.ok is not False for finding in checked):
        found += _trials(facts, environ)
    sys.stdout.write("".join(f"{line}\n" for line in table(found)))
    return 1 if any(finding.ok is False for finding in found) else 0


def table(findings: Sequence[Finding]) -> Iterator[str]:
    """A line a finding, its hint below, and a last line that counts."""
    width = max((len(finding.name) for finding in findings), default=0)
    for finding in findings:
        state = _STATES[finding.ok]
        yield f"{state:<8} {finding.name:<{width}}  {printable(finding.text)}"
        if finding.hint and finding.ok is not True:
            yield f"{'':<8} {'':<{width}}  -> {printable(finding.hint)}"
    failed = sum(finding.ok is False for finding in findings)
    warnings = sum(finding.ok is None for finding in findings)
    yield ""
    if failed:
        yield f"{failed} of {len(findings)} checks failed: a build would not run here."
    elif warnings:
        yield f"A build would run here; {warnings} of {len(findings)} checks have a warning."
    else:
        yield f"A build would run here: all {len(findings)} checks are fine."


def _settings(environ: Mapping[str, str]) -> Iterator[Finding]:
    """Settings, then the paths and inputs that they name, as far as they can be used."""
    loaded, bad, failure = settings.load_usable(environ)
    if failure:
        *lines, last = failure.why or (failure.what,)
        yield from (Finding("settings", False, line) for line in lines)
        yield Finding("settings", False, last, failure.hint)
    odd = settings.warnings(environ)
    yield from (Finding("settings", None, text) for text in odd)
    if not odd and not failure:
        yield Finding("settings", True, "all variables are understood")
    yield from _paths(loaded, bad)
    if not bad & {"source_path", "secrets", "ssh", "build_contexts"}:
        yield from _attempt("secrets and contexts", lambda: _inputs(loaded))


def _paths(loaded: settings.Settings, bad: frozenset[str]) -> Iterator[Finding]:
    """Each path for itself, so that one mistake does not hide the next.

    ``bad`` are the fields that say nothing because their variables cannot be used.
    """
    source: list[Path] = []

    def check_source() -> Finding:
        source.append(paths.check_source(loaded.source_path))
        return Finding("source path", True, str(source[0]))

    def check_dockerfile() -> Iterable[Finding]:
        context = paths.check_context(source[0], loaded.context)
        found = dockerfile.find(source[0], context, loaded.dockerfile)
        return (Finding("Dockerfile", True, str(found.directory / found.name)), *found.findings)

    def check_build() -> Finding:
        path = paths.check_build(loaded.build_path, loaded.archive_name, loaded.outputs)
        return Finding("build path", True, str(path))

    def check_cache() -> Finding:
        path, unusable = cache_path.check_cache(loaded.cache_path, make=False)
        missing = "" if path and path.is_dir() else " (a build makes it)"
        return unusable or Finding("cache path", True, f"{path}{missing}")

    if "source_path" not in bad:
        yield from _attempt("source path", lambda: (check_source(),))
    if source and not bad & {"context", "dockerfile"}:
        yield from _attempt("Dockerfile", check_dockerfile)
    if "build_path" not in bad:
        yield from _attempt("build path", lambda: (check_build(),))
    if loaded.cache_strategy != "off" and "cache_path" not in bad:
        yield from _attempt("cache path", lambda: (check_cache(),))


def _inputs(loaded: settings.Settings) -> Iterable[Finding]:
    contexts = inputs.check_inputs(loaded)
    count = len(loaded.secrets) + len(loaded.ssh) + len(contexts)
    return (Finding("secrets and contexts", True, f"{count} given"),) if count else ()


def _attempt(name: str, check: Callable[[], Iterable[Finding]]) -> Iterable[Finding]:
    try:
        return tuple(check())
    except Failure as failure:
        text = "; ".join((failure.what, *failure.why))
        return (Finding(name, False, text, failure.hint),)


def _trials(facts: Facts, environ: Mapping[str, str]) -> Iterator[Finding]:
    """Start rootlesskit as the daemon's user, and in it a process sandbox."""
    user = environment.daemon_user(facts)
    if user is None:
        return
    base = next(filter(_open_to_all, _bases(environ)), None)
    if base is None:
        text = "not tried: no directory for temporary files that every user can reach"
        yield Finding("rootlesskit", None, text, "Mount a writable /tmp.")
        return
    with tempfile.TemporaryDirectory(prefix="plp-doctor-", dir=base) as name:
        home = Path(name)
        if facts.uid == 0:
            os.chown(home, user.uid, user.gid)
        said = _try_rootlesskit(user, facts, environ, home, ("true",))
        if said is not None:
            failure = environment.not_permitted(said)
            yield Finding("rootlesskit", False, "; ".join((failure.what, *said)), failure.hint)
            return
        yield Finding("rootlesskit", True, "starts, with subordinate ids")
        sandbox = ("unshare", "--mount", "--pid", "--fork", "--mount-proc", "true")
        said = _try_rootlesskit(user, facts, environ, home, sandbox)
        if said is None:
            yield Finding("sandbox trial", True, "build steps can have process ids of their own")
        else:
            text = "; ".join(("build steps cannot have process ids of their own", *said))
            yield Finding("sandbox trial", None, text)


def _bases(environ: Mapping[str, str]) -> tuple[Path, ...]:
    given = environ.get("TMPDIR", "")
    usual = (Path("/tmp"), Path("/var/tmp"))  # noqa: S108 - what is made there is private
    return (Path(given), *usual) if given.startswith("/") else usual


def _open_to_all(base: Path) -> bool:
    """Whether we can write there, and another user get through."""
    try:
        ways = [path.stat().st_mode & stat.S_IXOTH for path in (base, *base.parents)]
    except OSError:
        return False
    return all(ways) and os.access(base, os.W_OK)


def _try_rootlesskit(
    user: User,
    facts: Facts,
    environ: Mapping[str, str],
    home: Path,
    command: tuple[str, ...],
) -> list[str] | None:
    """None if the command ran inside rootlesskit, else its last lines."""
    env = {
        "PATH": environ.get("PATH", os.defpath),
        "HOME": str(home),
        "USER": user.name,
        "XDG_RUNTIME_DIR": str(home),
        "TMPDIR": str(home),
    }
    argv = ("rootlesskit", "--net=host", f"--state-dir={home}/state", *command)
    if facts.uid == 0:
        ids = (f"--reuid={user.uid}", f"--regid={user.gid}", "--clear-groups", "--inh-caps=-all")
        argv = ("setpriv", *ids, "--", *argv)
    try:
        done = process.run(argv, env=env, timeout=TRIAL_SECONDS)
    except (Failure, OSError) as error:
        return [error.what if isinstance(error, TimedOut) else str(error)]
    if done.code == 0:
        return None
    lines = done.stderr.decode("utf-8", "replace").splitlines()
    return [line.strip() for line in lines if line.strip()][-3:] or [f"exit code {done.code}"]
