"""What the settings ask of the daemon, and when that is known before they are read."""

from __future__ import annotations

from typing import TYPE_CHECKING

from plp_builder.syntax.names import is_plain
from plp_builder.tuples import NamedTuple

if TYPE_CHECKING:
    from collections.abc import Mapping
    from pathlib import Path

    from plp_builder.settings import Settings


class Root(NamedTuple):
    """A directory of the daemon's user where the daemon's state outlives the run.

    ``tried`` says whether it is known to carry one; ``bound`` is how many bytes may be kept there.
    """

    path: Path
    tried: bool
    bound: int


class Options(NamedTuple):
    """What the settings ask of the daemon. ``config`` is the text of buildkitd.toml.

    Without a ``root`` the daemon's state lives as long as the run.
    """

    config: str = ""
    flags: tuple[str, ...] = ()
    debug: bool = False
    offline: bool = False
    host_network: bool = False
    root: Root | None = None


def foreseen(environ: Mapping[str, str]) -> Options | None:
    """What the settings will ask of the daemon, where that is plain without reading them.

    Importing the library that reads them takes as long as a daemon's start. None as soon as
    anything is set that may concern the daemon or may be refused, since a setting that cannot be
    used is told before any daemon runs.
    """
    return Options() if is_plain(environ) else None


def asked(settings: Settings) -> Options:
    """What the settings ask of the daemon. Raises SettingInvalid."""
    from plp_builder.buildkit import config

    base = config.read(settings.buildkitd_config) if settings.buildkitd_config else ""
    return Options(
        config.render(
            base,
            settings.registry_mirrors,
            settings.insecure_registries,
            settings.buildkitd_config,
        ),
        settings.buildkitd_flags,
        debug=settings.debug,
        offline=settings.offline,
        host_network=settings.network == "host",
    )
