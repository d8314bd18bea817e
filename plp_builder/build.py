"""The story of a build, top to bottom.

Imports are the larger part of a small build's time, so each happens while something else does:
the settings' library while the daemon's room is made and, where that can be foreseen, while the
daemon starts; all that shows and keeps things while one waits for it.
"""

from __future__ import annotations

import gc
import sys
import time
from collections.abc import Callable, Mapping
from contextlib import ExitStack, suppress
from functools import partial
from typing import TYPE_CHECKING

from plp_builder import __version__, log
from plp_builder import run as runs
from plp_builder.errors import Failure, SettingInvalid, TimedOut, exhausted
from plp_builder.phases import Phases

SILENCE = 0.5
"""Seconds after which the log does not wait any longer for a moment in which it costs nothing."""

if TYPE_CHECKING:
    from plp_builder.buildkit.daemonless import Daemon
    from plp_builder.caching import Caching
    from plp_builder.outset import Outset
    from plp_builder.process import Stop
    from plp_builder.results.console import Success
    from plp_builder.run import Run
    from plp_builder.settings import Settings


def main(environ: Mapping[str, str], stop: Stop, outset: Outset | Exception) -> int:
    """Build what ``environ`` asks for, tell the outcome on stderr, return the exit code."""
    runs.configure_log(environ)
    try:
        if isinstance(outset, Exception):
            raise outset
        phases = Phases(outset.began)
        with ExitStack() as stack:
            run = runs.opened(outset, stop, phases, stack)
            settings = runs.settings(environ)
            phases.since_start("start")
            outcome = build(run, settings)
        log.debug("phases in seconds", **phases.seconds())
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


def build(run: Run, settings: Settings) -> Success:
    """Run one build, from settings to the archive in its place. Raises any Failure."""
    from plp_builder import solve
    from plp_builder.buildkit.options import asked
    from plp_builder.output import open_output
    from plp_builder.preflight import inputs
    from plp_builder.preflight import paths as path_checks

    stack, check = run.stack, run.watch.stop.check
    run.watch.stop.limit(settings.timeout)
    log.defer()
    _announce(settings, run.environ)
    paths = path_checks.check_paths(settings)
    for finding in paths.findings:
        log.warning(finding.text, hint=finding.hint)
    contexts = inputs.check_inputs(settings)
    if refused := solve.refusals(settings):
        raise SettingInvalid("a setting cannot be passed on to BuildKit", why=refused)
    options = asked(settings)
    daemon = run.daemon
    if isinstance(daemon, Failure):
        raise daemon
    output = None
    if "archive" in settings.outputs:
        output = stack.enter_context(open_output(paths.build, settings.archive_name))
    run.choice.choose(settings, paths.cache, options, check)
    daemon.start(options._replace(root=run.choice.root))

    # While the daemon starts there is time for imports and the cache.
    from datetime import UTC, datetime
    from pathlib import Path

    from plp_builder.caching import Caching
    from plp_builder.solving import Solving, keep, solve_image

    check = _checking(check)

    paths = path_checks.stage(paths, Path(daemon.room.runtime.client))
    caching = stack.enter_context(
        Caching(run.choice, settings, paths, run.environ, daemon.room.uids, output, check)
    )
    request = partial(solve.request, settings, paths, now=datetime.now(UTC), contexts=contexts)
    stdout = output.file.fileno() if output else None
    solving = stack.enter_context(Solving(daemon, settings, run.watch, run.environ, stdout))
    meanwhile = partial(_meanwhile, run.environ)
    solved = solve_image(run, options, request, daemon, caching, solving, settings, meanwhile)
    if not solved.asked:
        _tidy_up(run.environ)

    archive = None
    if output:
        with run.phases.part("assemble"):
            assembled = caching.assemble()
        with run.phases.part("publish"):
            archive = output.publish(check, references=settings.image, verified=assembled)
    with suppress(TimedOut):  # the archive is in its place: too late to fail
        keep(run, request, daemon, caching, solving, solved)
    _end(run, daemon, caching, grown=not solved.all_cached)
    from plp_builder.results.console import Success

    if archive and len(settings.image) > 1 and not archive.has_docker_manifest:
        log.warning("only the first name is inside the archive", format="oci", names=settings.image)
    return Success(
        seconds=run.phases.since_start("all but cleaning up"),
        digest=str(archive.top.digest) if archive else "",
        archive=output.path if output else None,
        size=archive.size if archive else 0,
        steps_total=solved.steps,
        steps_cached=solved.cached,
        warnings=solved.warnings,
    )


def _end(run: Run, daemon: Daemon, caching: Caching, *, grown: bool) -> None:
    """End the daemon, which takes a moment, and keep what is left to later builds."""
    from plp_builder.buildkit.daemonless import IDLE_GRACE

    daemon.kill()
    with suppress(TimedOut), run.phases.part("merge"):
        caching.merge()
    with run.phases.part("stop"):
        daemon.stop(IDLE_GRACE)
    with suppress(TimedOut), run.phases.part("keep"):
        caching.finish(grown=grown)


def _checking(check: Callable[[], None]) -> Callable[[], None]:
    """The same, and where it takes long what there is to tell is told meanwhile."""
    began = time.monotonic()

    def checked() -> None:
        if time.monotonic() - began > SILENCE:
            log.release()
        check()

    return checked


def _meanwhile(environ: Mapping[str, str], begin: Callable[[], object]) -> None:
    """What has time until daemon and buildctl are at work, since one waits for them anyway.

    ``begin`` is called often: it has buildctl begin once the daemon can be called.
    """
    log.release()
    begin()
    from plp_builder import progress

    begin()
    from plp_builder.results import console

    del progress, console  # they are imported, which is all that is wanted
    begin()
    _tidy_up(environ)


def _tidy_up(environ: Mapping[str, str]) -> None:
    """What can be done at any time."""
    from plp_builder.buildkit.daemonless import sweep

    log.release()
    sweep(environ)
    gc.enable()


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
