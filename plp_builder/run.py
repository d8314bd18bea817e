"""What is known of a run while it goes on, and how it is opened: log, room, settings."""

from __future__ import annotations

import sys
from collections.abc import Mapping
from contextlib import ExitStack
from typing import TYPE_CHECKING

from plp_builder import log
from plp_builder.buildkit.daemonless import Daemon
from plp_builder.buildkit.options import foreseen
from plp_builder.buildkit.room import ROOT, room
from plp_builder.errors import Failure, SettingInvalid
from plp_builder.phases import Phases
from plp_builder.preflight import environment
from plp_builder.process import Stop, Watch
from plp_builder.tuples import NamedTuple

if TYPE_CHECKING:
    from plp_builder.cache.choice import Choice
    from plp_builder.preflight.facts import Facts
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


def opened(environ: Mapping[str, str], stop: Stop, phases: Phases, stack: ExitStack) -> Run:
    """A run that has looked at the machine, but not yet at its settings.

    Its daemon starts, if what will be asked of it is known already.
    """
    watch = stack.enter_context(Watch(stop))
    facts = environment.read_facts(environ)
    user = environment.daemon_user(facts)
    outliving = stack.enter_context(ExitStack())
    daemon: Daemon | Failure
    try:
        environment.check_environment(facts)
        made = room(user, facts.proc_masks, environ, environment.id_map(facts, user))
        daemon = stack.enter_context(Daemon(made, environ, watch, _debug_line))
    except Failure as failure:
        daemon = failure
    # While the room is being made; what the choice holds outlives the daemon.
    from plp_builder.cache.choice import Choice

    choice = outliving.enter_context(Choice(facts, user or ROOT))
    if isinstance(daemon, Daemon):
        try:
            _expect(daemon, choice, environ)
        except Failure as failure:
            daemon = failure
    return Run(environ, facts, daemon, choice, watch, stack, phases)


def _expect(daemon: Daemon, choice: Choice, environ: Mapping[str, str]) -> None:
    """Start the daemon, if what will be asked of it is known already."""
    options = foreseen(environ)
    place = environ.get("PLP_CACHE_PATH"), environ.get("PLP_CACHE_STRATEGY")
    if options is not None and choice.early(*place):
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
