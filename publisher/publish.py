"""The story of a publication, top to bottom.

The archive is verified while the settings are read: both take time, and neither needs the network.
No byte goes out before the archive is known to be whole.
"""

from __future__ import annotations

import gc
import sys
import time
from collections.abc import Iterable, Mapping
from contextlib import ExitStack
from pathlib import Path
from typing import TYPE_CHECKING

from plp_builder import __version__, log
from plp_builder.errors import ArchiveInvalid, Failure, exhausted
from plp_builder.process import Stop, Watch, need_descriptors
from plp_builder.terminal import human_size
from publisher.names import DEFAULT_ARCHIVE
from publisher.run import Run
from publisher.verification import Verification

if TYPE_CHECKING:
    from publisher.credentials import Credentials
    from publisher.push import Push
    from publisher.results import Outcome
    from publisher.settings import Settings
    from publisher.tags import Plan, Tag
    from publisher.verification import Verified


IMPORTS = 8
"""Descriptors that imports and the verification beside them may want at one moment."""


class ArtifactInvalid(ArchiveInvalid):
    """The archive cannot be published: for this program the exit code tells it from the rest."""

    exit_code = 3
    default_hint = "Build the archive again, or set PLP_ARTIFACT_PATH to another one."


def main(environ: Mapping[str, str], stop: Stop) -> int:
    """Publish what ``environ`` asks for, tell the outcome everywhere, return the exit code."""
    run = Run(time.monotonic())
    _configure_log(environ, None)
    try:
        with ExitStack() as stack:
            need_descriptors(IMPORTS)
            watch = stack.enter_context(Watch(stop))
            early = Path(environ.get("PLP_ARTIFACT_PATH") or DEFAULT_ARCHIVE)
            verification = stack.enter_context(Verification(early, stop.check))
            settings = _settings(environ, run)
            outcome = publish(settings, environ, verification, watch, stack, run)
    except ArchiveInvalid as failure:
        invalid = ArtifactInvalid(failure.what, why=failure.why, hint=failure.hint or None)
        return _tell_failure(invalid, run, environ)
    except Failure as failure:
        return _tell_failure(failure, run, environ)
    except Exception as error:  # noqa: BLE001 - the last line of defence
        if lack := exhausted(error):
            return _tell_failure(lack, run, environ)
        from plp_builder import telling

        log.error("unexpected error", exc_info=True)
        return _tell_failure(telling.unexpected(error, "the publisher"), run, environ)
    _tell_success(outcome, settings, environ)
    return 0


def publish(
    settings: Settings,
    environ: Mapping[str, str],
    verification: Verification,
    watch: Watch,
    stack: ExitStack,
    run: Run,
) -> Outcome:
    """Publish one archive. Raises any Failure; ``run`` knows what was done until then.

    ``stack`` ends what the publication has begun, in reverse, when its time has come.
    """
    # What is imported here costs nothing: the archive takes longer.
    from publisher import credential_helper, credentials, results, tags, trust
    from publisher.progress import Progress
    from publisher.push import Push
    from publisher.skopeo import Registry, Runner, require
    from publisher.source import Source

    watch.stop.limit(settings.timeout)
    _announce(settings, environ)
    plan = run.plan = tags.plan(settings)
    for note in plan.notes:
        log.info(note)
    for warning in plan.warnings:
        log.warning(warning)
    results.check(settings)
    require(environ)
    credentials.check(settings)
    bundle = trust.bundle(settings.registry_ca_path, environ)
    gc.enable()
    if verification.path != settings.artifact_path:
        verification = stack.enter_context(Verification(settings.artifact_path, watch.stop.check))
    verified = run.verified = verification.result()
    _tell_archive(verified)
    ask = credential_helper.runner(environ, watch.stop)
    found = credentials.find(settings, environ, ask)
    if settings.dry_run:
        return run.outcome()

    source = stack.enter_context(Source(verified.artifact, verified.file))
    entries = {source.address: source.credentials}
    if found:
        entries[settings.image_repository.partition("/")[0]] = found
    _configure_log(environ, settings, entries.values())
    authfile = stack.enter_context(credentials.AuthFile(entries))
    registry = Registry(
        settings.image_repository,
        authfile.path,
        bundle.path if bundle else "",
        settings.registry_insecure,
        (authfile.fd, *((bundle.fd,) if bundle else ())),
    )
    progress = Progress(verified.total, lambda: source.sent, time.monotonic)
    runner = Runner(
        registry,
        environ,
        watch,
        stall_timeout=settings.stall_timeout,
        moved=lambda: source.moved,
        tick=progress.tick,
    )
    push = Push(
        runner,
        verified,
        source,
        watch,
        retries=settings.push_retries,
        origin=found.origin if found else "",
        looked=() if found else credentials.looked_in(settings),
    )
    try:
        _push(push, plan, run)
    finally:
        run.sent, run.retries = source.sent, push.retried
    return run.outcome()


def _push(push: Push, plan: Plan, run: Run) -> None:
    """Content first, then the tags that stay, then those that move, ``latest`` after all others."""
    before = run.before = push.look(tag.name for tag in plan.tags)
    wanted = [tag for tag in plan.tags if before.get(tag.name) != push.digest]
    for tag in plan.tags:
        if tag not in wanted:
            run.done(tag.name, "unchanged")
        elif not tag.moving and before.get(tag.name):
            log.warning(
                "a tag that should stay is changed", tag=tag.name, previous=before[tag.name]
            )
    if not wanted:
        return
    push.content()
    for group in _stages(wanted):
        names = [tag.name for tag in group]
        push.tag(names, before, lambda name: run.done(name, "pushed"), moving=group[0].moving)


def _stages(wanted: list[Tag]) -> list[list[Tag]]:
    """The tags in the groups in which they are set: one is begun when the one before is right."""
    from publisher.tags import LATEST

    stays = [tag for tag in wanted if not tag.moving]
    moves = [tag for tag in wanted if tag.moving and tag.name != LATEST]
    last = [tag for tag in wanted if tag.moving and tag.name == LATEST]
    return [group for group in (stays, moves, last) if group]


def _settings(environ: Mapping[str, str], run: Run) -> Settings:
    """The settings; from here on the log is as they say, and results go where they say.

    Raises SettingInvalid, which the results tell as well, as far as they can be used.
    """
    from publisher import settings as variables

    read = variables.load_usable(environ)
    run.settings = read.settings
    _configure_log(environ, read.settings)
    if read.failure is not None:
        raise read.failure
    return read.settings


def _configure_log(
    environ: Mapping[str, str],
    settings: Settings | None,
    credentials: Iterable[Credentials] = (),
) -> None:
    """As the settings say; before they are known, as far as the environment can be read."""
    given = environ.get("PLP_LOG_FORMAT", "").strip().lower()
    secrets = [secret for each in credentials for secret in each.secrets()]
    if settings is not None:
        from publisher.settings import secret_values

        secrets += secret_values(settings)
    log.configure(
        settings.log_format if settings else "json" if given == "json" else "console",
        ("debug" if settings.debug else settings.log_level) if settings else "info",
        sys.stderr,
        tuple(secrets),
        colour=log.colourful(sys.stderr, environ),
    )


def _announce(settings: Settings, environ: Mapping[str, str]) -> None:
    from publisher.settings import unknown_variables

    log.info(
        "plp-container-image-publisher",
        version=__version__,
        archive=settings.artifact_path,
        repository=settings.image_repository,
    )
    for sentence in unknown_variables(environ):
        log.warning(sentence)


def _tell_archive(verified: Verified) -> None:
    artifact = verified.artifact
    log.info(
        "archive verified",
        digest=artifact.top.digest,
        size=human_size(artifact.size),
        platforms=",".join(map(str, artifact.platforms)),
        seconds=round(verified.seconds, 2),
    )
    for note in artifact.notes:
        log.warning(note)


def _tell_success(outcome: Outcome, settings: Settings, environ: Mapping[str, str]) -> None:
    from publisher import results
    from publisher.results import console

    for warning in results.write(outcome, settings):
        log.warning(warning)
    event, keys = console.success_event(outcome)
    log.outcome(event, keys, console.success(outcome, colour=log.colourful(sys.stderr, environ)))


def _tell_failure(failure: Failure, run: Run, environ: Mapping[str, str]) -> int:
    from plp_builder import telling

    if run.settings is not None:
        from publisher import results

        so_far = run.outcome() if run.verified else None
        for warning in results.write(results.Failed(failure, so_far), run.settings):
            log.warning(warning)
    event, keys = telling.failure_event(failure, "publication")
    lines = telling.failure(failure, colour=log.colourful(sys.stderr, environ))
    log.outcome(event, keys, lines, level="error")
    return failure.exit_code
