"""The first moments of a build: the machine is looked at, and the daemon's room opened.

Nothing is imported before that can be imported after it: the daemon starts meanwhile.
"""

from __future__ import annotations

import time
from typing import TYPE_CHECKING

from plp_builder.buildkit.opening import opened
from plp_builder.buildkit.options import foreseen
from plp_builder.buildkit.room import room
from plp_builder.buildkit.runtime import remove
from plp_builder.errors import Failure
from plp_builder.preflight import environment
from plp_builder.tuples import NamedTuple

if TYPE_CHECKING:
    from collections.abc import Mapping

    from plp_builder.buildkit.opening import Opened
    from plp_builder.buildkit.options import Options
    from plp_builder.preflight.facts import Facts
    from plp_builder.users import User


class Outset(NamedTuple):
    """``user`` runs the daemon, None for root; ``room`` may be the reason why there is none.

    ``expected`` is what will be asked of the daemon, where that is known already; ``began`` is a
    moment of time.monotonic.
    """

    began: float
    environ: Mapping[str, str]
    facts: Facts
    user: User | None
    expected: Options | None
    room: Opened | Failure


def begin(environ: Mapping[str, str]) -> Outset:
    """Look at the machine and open a room in it, as far as that is possible. Raises OSError."""
    began = time.monotonic()
    facts = environment.read_facts(environ)
    user = environment.daemon_user(facts)
    expected = foreseen(environ)
    found: Opened | Failure
    try:
        environment.check_environment(facts)
        made = room(user, facts.proc_masks, environ, environment.id_map(facts, user))
        try:
            found = opened(made, environ, expecting_nothing=expected is not None)
        except BaseException:
            remove(made.runtime, environ)
            raise
    except Failure as failure:
        found = failure
    return Outset(began, environ, facts, user, expected, found)
