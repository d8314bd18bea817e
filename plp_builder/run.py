"""What is known of a run while it goes on, and how it is opened: log, daemon, settings."""

from __future__ import annotations

import sys
from collections.abc import Mapping
from contextlib import ExitStack
from typing import TYPE_CHECKING

from plp_builder import log
from plp_builder.buildkit.daemonless import Daemon
from plp_builder.buildkit.opening import abandon
from plp_builder.buildkit.room import ROOT
from plp_builder.cache.choice import Choice
from plp_builder.errors import Failure, SettingInvalid
from plp_builder.phases import Phases
from plp_builder.process import Watch
from plp_builder.tuples import NamedTuple

if TYPE_CHECKING:
    from plp_builder.buildkit.options import Options
    from plp_builder.outset import Outset
    from plp_builder.preflight.facts import Facts
    from plp_builder.process import Stop
    from plp_builder.settings import Settings


class Run(NamedTuple):
    """``daemon`` is one in an open room, started or not, or why there is none.

    ``stack`` ends what the run has begun, in reverse, when its time has come.
    """

    environ: Mapping[str, str]
    facts: Facts
    daemon: Daemon | Failure
    choice: Choice
    watch: Watch
    stack: ExitStack
    phases: Phases


def opened(outset: Outset, stop: Stop, phases: Phases, stack: ExitStack) -> Run:
    """A run that has looked at the machine, but not yet at its settings.

    Its daemon starts, if what will be asked of it is known already.
    """
    environ, facts, first = outset.environ, outset.facts, outset.room
    try:
        watch = stack.enter_context(Watch(stop))
    except BaseException:
        if not isinstance(first, Failure):
            abandon(first, environ)
        raise
    outliving = stack.enter_context(ExitStack())
    daemon: Daemon | Failure
    if isinstance(first, Failure):
        daemon = first
    else:
        daemon = stack.enter_context(Daemon(first.room, environ, watch, _debug_line, first))
    # What the choice holds outlives the daemon.
    choice = outliving.enter_context(Choice(facts, outset.user or ROOT))
    if isinstance(daemon, Daemon) and outset.expected is not None:
        try:
            _expect(daemon, choice, environ, outset.expected)
        except Failure as failure:
            daemon = failure
    return Run(environ, facts, daemon, choice, watch, stack, phases)


def _expect(daemon: Daemon, choice: Choice, environ: Mapping[str, str], options: Options) -> None:
    """Start the daemon, if where its state is to be can be decided at once."""
    place = environ.get("PLP_CACHE_PATH"), environ.get("PLP_CACHE_STRATEGY")
    if choice.early(*place):
        daemon.expect(options._replace(root=choice.root))


def settings(environ: Mapping[str, str]) -> Settings:
    """The settings; from here on the log is as they say. Raises SettingInvalid."""
    from plp_builder import settings as variables

    try:
        found = variables.load(environ)
    except SettingInvalid:
        for sentence in variables.unknown_variables(environ):
            log.warning(sentence)
        raise
    secrets = variables.secret_values(found, environ)
    if paths := [secret.path for secret in found.secrets if secret.path is not None]:
        from plp_builder.results.secret_files import secret_file_values

        secrets += secret_file_values(paths)
    configure_log(environ, found, secrets)
    return found


def configure_log(
    environ: Mapping[str, str], settings: Settings | None = None, secrets: tuple[str, ...] = ()
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
