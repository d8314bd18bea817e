"""Which cache a build uses: the daemon's state where that can be, else the portable one.

Decided before the daemon starts; where it cannot use the state, or a solve fails on what the state
holds, the build goes on with an empty state or without one. None of this ever fails a build.
"""

from __future__ import annotations

from collections.abc import Callable
from contextlib import ExitStack, suppress
from pathlib import Path
from typing import TYPE_CHECKING

from plp_builder import log
from plp_builder.buildkit import damage
from plp_builder.buildkit.command import KEPT_SNAPSHOTTER
from plp_builder.buildkit.deaths import WHILE_NEEDED
from plp_builder.buildkit.options import Options, Root
from plp_builder.buildkit.runtime import remove_trees
from plp_builder.cache import state
from plp_builder.cache.files import remove
from plp_builder.cache.filesystem import room_for
from plp_builder.cache.lock import LockNotFreeError
from plp_builder.cache.state import Maker, State
from plp_builder.errors import (
    CacheNotUsable,
    DaemonFailure,
    Failure,
    PathFailure,
    StateDamaged,
    StateNotCarried,
)
from plp_builder.preflight.cache_path import check_cache
from plp_builder.preflight.facts import ranges_of

if TYPE_CHECKING:
    from typing import Self

    from plp_builder.preflight.facts import Facts
    from plp_builder.settings import Settings
    from plp_builder.users import User

DEFAULT_PATH = "/tmp/cache"  # noqa: S108 - the contract's default
DEFAULT_BOUND = 10_000_000_000
"""What holds where nothing is set, for a daemon that starts before the settings are read: a path,
and bytes. A test holds both to the settings."""

_WITH_STATE = frozenset({"auto", "state"})
_ELSEWHERE = "--root", "--oci-worker-snapshotter", "--oci-worker=false", "--containerd-worker=true"


class Choice:
    """The state of a build, if it has one. A context manager that must outlive the daemon.

    ``user`` runs the daemon; ``facts`` know its subordinate ids and the daemon's program. ``asked``
    is what the settings ask of the daemon, once they are known.
    """

    def __init__(self, facts: Facts, user: User) -> None:
        self.state: State | None = None
        self.refusal: Failure | None = None
        self.asked = Options()
        self._facts = facts
        self._user = user
        self._bound = DEFAULT_BOUND
        self._stack = ExitStack()
        self._retried = False

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self._stack.close()

    @property
    def root(self) -> Root | None:
        """Where the daemon's state is to be; None: it lives as long as the run."""
        found = self.state
        if found is None:
            return None
        return Root(found.root, found.tried, room_for(found.directory, self._bound))

    def early(self, cache: str | None, strategy: str | None = None) -> bool:
        """Choose for plain settings, if that can be done at once; whether it was.

        ``cache`` is PLP_CACHE_PATH, ``strategy`` PLP_CACHE_STRATEGY. What is wrong with the former
        is told when its turn has come.
        """
        if (strategy or "auto") not in _WITH_STATE:
            return True
        try:
            found, unusable = check_cache(cache or DEFAULT_PATH)
            if found is None or unusable:
                return True
            self._open(found, Options(), patience=0.0, check=_nothing, waiting=_nothing)
        except (LockNotFreeError, PathFailure):
            return False
        except StateNotCarried as refusal:
            self.refusal = refusal
        return True

    def choose(
        self, settings: Settings, cache: Path | None, asked: Options, check: Callable[[], None]
    ) -> None:
        """Choose as the settings say, after a wait for another build if need be.

        ``cache`` is the cache directory, if there is one that can be used. Only what ``check``
        raises gets out.
        """
        self._bound = settings.cache_max_size
        self.asked = asked
        if cache is None or settings.cache_strategy not in _WITH_STATE:
            self._drop()
            return
        if not (self.state or self.refusal):
            self._choose(settings, cache, asked, check)
        if self.refusal:
            _tell(self.refusal)

    def _choose(
        self, settings: Settings, cache: Path, asked: Options, check: Callable[[], None]
    ) -> None:
        elsewhere = [flag for flag in asked.flags if flag.startswith(_ELSEWHERE)]
        patience = settings.cache_lock_timeout
        try:
            if elsewhere:
                raise StateNotCarried(
                    "The daemon's state cannot be kept",
                    why=[f"PLP_BUILDKITD_FLAGS has {elsewhere[0]}"],
                )
            self._open(
                cache, asked, patience=patience, check=check, waiting=lambda: _tell_wait(patience)
            )
        except LockNotFreeError:
            self.refusal = CacheNotUsable(
                "Another build still uses the daemon's state",
                why=[f"waited for {patience:g} s (PLP_CACHE_LOCK_TIMEOUT)"],
            )
        except StateNotCarried as refusal:
            self.refusal = refusal

    def another(self, failure: Failure) -> bool:
        """Whether the state is to blame for a failure, and is out of the way now: try again.

        A directory that cannot carry a state is left, and one that is full emptied; a state that
        the daemon cannot open, or that a solve failed on, is put aside once. Raises nothing.
        """
        found = self.state
        if found is None:
            return False
        said = "\n".join((failure.what, *failure.why))
        full = damage.lacks_room(said)
        if full and isinstance(failure, DaemonFailure):
            lines = [line for line in failure.why if damage.lacks_room(line)]
            failure = StateNotCarried("The daemon's state cannot be kept", why=lines[-1:])
        if isinstance(failure, StateNotCarried):
            if full:
                self._make_room(found)
            else:
                found.keep_verdict("; ".join(failure.why))
                self._clear(found)
            self.refusal = failure
            _tell(failure)
            self._drop()
            return True
        if self._retried or not (found.warm and _is_blamed(failure, said)):
            return False
        self._retried = True
        log.warning(
            "the daemon's state is put aside",
            name=StateDamaged.name,
            why="; ".join((failure.what, *_last_words(failure.why))),
            hint="Nothing has to be done: what is missing is built again.",
        )
        try:
            found.renew()
        except (OSError, StateNotCarried):
            self._drop()
        return True

    def _open(
        self,
        cache: Path,
        asked: Options,
        *,
        patience: float,
        check: Callable[[], None],
        waiting: Callable[[], None],
    ) -> None:
        found = self._stack.enter_context(
            state.opened(
                cache,
                _maker(self._facts, self._user, asked),
                self._user,
                patience=patience,
                check=check,
                waiting=waiting,
            )
        )
        try:
            try:
                aside = found.prepare()
            except OSError as error:
                if not damage.lacks_room(str(error)):
                    raise
                self._make_room(found)
                aside = found.prepare() or "its disk is full"
            if aside:
                log.info("the daemon's state begins anew", why=aside)
        except OSError as error:
            self._drop()
            raise state.not_carried(error) from None
        except StateNotCarried:
            self._drop()
            raise
        self.state = found

    def _make_room(self, found: State) -> None:
        """Remove all that is kept beside the portable cache: without room there is no build."""
        self._clear(found)
        remove(found.layout)

    def _clear(self, found: State) -> None:
        """Remove what a daemon has left."""
        with suppress(OSError):
            found.put_aside()
        remove_trees(found.remnants(), {"PATH": self._facts.path})

    def _drop(self) -> None:
        self.state = None
        self._stack.close()


def _last_words(why: tuple[str, ...]) -> tuple[str, ...]:
    """BuildKit's error, without what is told besides; the last lines where there is none."""
    return tuple(line for line in why if line.startswith("error: ")) or why[-2:]


def _is_blamed(failure: Failure, said: str) -> bool:
    if isinstance(failure, StateDamaged):
        return True
    ready = WHILE_NEEDED in said
    return isinstance(failure, DaemonFailure) and damage.blames_state_of_death(said, ready=ready)


def _maker(facts: Facts, user: User, asked: Options) -> Maker:
    program = Path(facts.tools["buildkitd"]).stat()
    owned = [] if user.uid == 0 else [ranges_of(user, facts.subuid), ranges_of(user, facts.subgid)]
    ranges = [(one.start, one.size) for kind in owned for one in kind]
    worker = asked.config if "worker" in asked.config else ""
    return Maker(
        f"{program.st_size}-{program.st_mtime_ns}",
        KEPT_SNAPSHOTTER,
        f"{user.uid}:{user.gid}",
        tuple(ranges),
        "\n".join((*asked.flags, worker)),
    )


def _tell_wait(patience: float) -> None:
    log.release()  # there is time now, and somebody waits
    log.info("waiting for another build to leave the daemon's state", at_most=f"{patience:g} s")


def _tell(refusal: Failure) -> None:
    hint = {"hint": refusal.hint} if refusal.hint else {}
    log.info(
        f"{refusal.what}: the portable cache is used",
        name=refusal.name,
        why="; ".join(refusal.why),
        **hint,
    )


def _nothing() -> None:
    return None
