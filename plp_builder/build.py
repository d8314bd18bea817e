"""The story of a build, top to bottom.

Imports are the larger part of a small build's time, so each happens while something else does:
the settings' library while the daemon's room is made and, where that can be foreseen, while the
daemon starts; all that shows and keeps things while one waits for it.
"""

from __future__ import annotations

import gc
import sys
import time
from collections.abc import Mapping
from contextlib import ExitStack, suppress
from functools import partial
from typing import TYPE_CHECKING

from plp_builder import __version__, log
from plp_builder.buildkit.daemonless import IDLE_GRACE, Daemon, sweep
from plp_builder.buildkit.options import asked, foreseen
from plp_builder.buildkit.room import ROOT, room
from plp_builder.buildkit.sandbox import Sandbox
from plp_builder.cache.choice import Choice
from plp_builder.errors import Failure, SettingInvalid, TimedOut, exhausted
from plp_builder.preflight import environment
from plp_builder.process import Stop, Watch

if TYPE_CHECKING:
    from plp_builder.preflight.facts import Facts
    from plp_builder.results.console import Success
    from plp_builder.settings import Settings


def main(environ: Mapping[str, str], stop: Stop) -> int:
    """Build what ``environ`` asks for, tell the outcome on stderr, return the exit code."""
    began = time.monotonic()
    _configure_log(environ, None)
    try:
        with ExitStack() as stack:
            watch = stack.enter_context(Watch(stop))
            facts = environment.read_facts(environ)
            choice = stack.enter_context(Choice(facts, environment.daemon_user(facts) or ROOT))
            daemon = _room(facts, environ, choice, watch, stack)
            settings = _settings(environ)
            outcome = build(settings, environ, facts, choice, daemon, watch, stack, began)
    except Failure as failure:
        return _tell_failure(failure, environ)
    except Exception as error:  # noqa: BLE001 - the last line of defence
        if lack := exhausted(error):
            return _tell_failure(lack, environ)
        from plp_builder import telling

        log.error("unexpected error", exc_info=True)
        return _tell_failure(telling.unexpected(error, "the builder"), environ)
    _tell_success(outcome, environ)
    return 0


def build(
    settings: Settings,
    environ: Mapping[str, str],
    facts: Facts,
    choice: Choice,
    daemon: Daemon | Failure,
    watch: Watch,
    stack: ExitStack,
    began: float,
) -> Success:
    """Run one build, from settings to the archive in its place. Raises any Failure.

    ``daemon`` is one in an open room, started or not, or why there is none; ``stack`` ends what
    the build has begun, in reverse, when its time has come.
    """
    from plp_builder import solve
    from plp_builder.output import open_output
    from plp_builder.preflight import inputs
    from plp_builder.preflight import paths as path_checks

    watch.stop.limit(settings.timeout)
    log.defer()
    _announce(settings, environ)
    paths = path_checks.check_paths(settings)
    for finding in paths.findings:
        log.warning(finding.text, hint=finding.hint)
    contexts = inputs.check_inputs(settings)
    if refused := solve.refusals(settings):
        raise SettingInvalid("a setting cannot be passed on to BuildKit", why=refused)
    options = asked(settings)
    if isinstance(daemon, Failure):
        raise daemon
    output = None
    if "archive" in settings.outputs:
        output = stack.enter_context(open_output(paths.build, settings.archive_name))
    if paths.cache:
        choice.choose(settings, paths.cache, options, watch.stop.check)
    options = options._replace(root=choice.root)
    daemon.start(options)

    # While the daemon starts there is time for imports, the log and the cache.
    from datetime import UTC, datetime

    from plp_builder.cache import portable
    from plp_builder.results.console import Success
    from plp_builder.solving import Solving

    paths = path_checks.stage(paths, daemon.room.runtime.client)
    cache = stack.enter_context(portable.opened(settings, paths, watch.stop.check))
    request = partial(solve.request, settings, paths, now=datetime.now(UTC), contexts=contexts)
    solving = stack.enter_context(Solving(request, daemon, cache, output, watch, environ))
    log.release()
    sweep(environ)
    gc.enable()
    daemon.ready(settings.start_timeout)
    _tell_daemon(daemon, facts, time.monotonic() - began)

    model = solving.finish(settings)
    archive = None
    if output:
        archive = output.publish(watch.stop.check, references=settings.image)
    daemon.stop(IDLE_GRACE)
    with suppress(TimedOut):  # the archive is in its place: too late to fail
        cache.keep()
    if archive and len(settings.image) > 1 and not archive.has_docker_manifest:
        log.warning("only the first name is inside the archive", format="oci", names=settings.image)
    stack.close()
    return Success(
        seconds=time.monotonic() - began,
        digest=str(archive.top.digest) if archive else "",
        archive=output.path if output else None,
        size=archive.size if archive else 0,
        steps_total=model.steps_total,
        steps_cached=model.steps_cached,
        warnings=len(model.warnings),
    )


def _room(
    facts: Facts, environ: Mapping[str, str], choice: Choice, watch: Watch, stack: ExitStack
) -> Daemon | Failure:
    """A daemon in an open room, started if what will be asked of it is known already.

    Or the failure, which is told when its turn has come.
    """
    try:
        environment.check_environment(facts)
        made = room(environment.daemon_user(facts), facts.proc_masks, environ)
        daemon = stack.enter_context(Daemon(made, environ, watch, _debug_line))
        options = foreseen(environ)
        if options is not None and choice.early(environ.get("PLP_CACHE_PATH")):
            daemon.expect(options._replace(root=choice.root))
        return daemon
    except Failure as failure:
        return failure


def _settings(environ: Mapping[str, str]) -> Settings:
    """The settings; from here on the log is as they say."""
    from plp_builder import settings as variables

    settings = variables.load(environ)
    secrets = variables.secret_values(settings, environ)
    if paths := [secret.path for secret in settings.secrets if secret.path is not None]:
        from plp_builder.results.secret_files import secret_file_values

        secrets += secret_file_values(paths)
    _configure_log(environ, settings, secrets)
    return settings


def _configure_log(
    environ: Mapping[str, str], settings: Settings | None, secrets: tuple[str, ...] = ()
) -> None:
    """As the settings say; before they are known, as far as the environment can be read."""
    given = environ.get("PLP_LOG_FORMAT", "").strip().lower()
    log.configure(
        settings.log_format if settings else "json" if given == "json" else "console",
        ("debug" if settings.debug else settings.log_level) if settings else "info",
        sys.stderr,
        secrets,
        colour=log.colourful(sys.stderr, environ),
    )


def _debug_line(line: str) -> None:
    log.debug("buildkitd", line=line)


def _announce(settings: Settings, environ: Mapping[str, str]) -> None:
    from plp_builder.settings import warnings

    log.info(
        "plp-container-image-builder",
        version=__version__,
        source=settings.source_path,
        context=settings.context,
        dockerfile=settings.dockerfile,
        build=settings.build_path,
        cache=settings.cache_path if settings.cache_strategy != "off" else "off",
    )
    for sentence in warnings(environ):
        log.warning(sentence)


def _tell_daemon(daemon: Daemon, facts: Facts, seconds: float) -> None:
    sandbox, user = daemon.room.sandbox, daemon.room.user
    log.info(
        "daemon ready",
        user=user.name or user.uid if user else "root",
        sandbox=sandbox.value,
        seconds=round(seconds, 2),
    )
    if sandbox is Sandbox.ROOT:
        found = environment.who(facts)
        log.warning("the daemon is not rootless", reason=found.text, hint=found.hint)
    elif sandbox is Sandbox.NONE:
        reasons = daemon.weakened or [f"{path} is masked" for path in facts.proc_masks[:1]]
        log.warning(
            "build steps run without the process sandbox",
            reason="; ".join(reasons) or "PLP_BUILDKITD_FLAGS asks for it",
            hint="in Docker, --security-opt systempaths=unconfined allows it",
        )


def _tell_success(outcome: Success, environ: Mapping[str, str]) -> None:
    from plp_builder.results import console

    event, keys = console.success_event(outcome)
    log.outcome(event, keys, console.success(outcome, colour=log.colourful(sys.stderr, environ)))


def _tell_failure(failure: Failure, environ: Mapping[str, str]) -> int:
    from plp_builder.results import console

    event, keys = console.failure_event(failure)
    lines = console.failure(failure, colour=log.colourful(sys.stderr, environ))
    log.outcome(event, keys, lines, level="error")
    return failure.exit_code
