"""The solves of a build: for the image, then for the portable cache."""

from __future__ import annotations

import sys
import time
from collections.abc import Callable, Mapping
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Self

from plp_builder import log, solve
from plp_builder.buildkit.buildctl import Call
from plp_builder.buildkit.sandbox import Sandbox
from plp_builder.cache.mounts import Reach
from plp_builder.errors import (
    CacheDamaged,
    CacheNotUsable,
    DaemonFailure,
    StateDamaged,
    StateNotCarried,
    TimedOut,
)
from plp_builder.preflight import environment
from plp_builder.tuples import NamedTuple

if TYPE_CHECKING:
    from plp_builder.buildkit.daemonless import Daemon
    from plp_builder.buildkit.options import Options
    from plp_builder.caching import Caching
    from plp_builder.preflight.facts import Facts
    from plp_builder.process import Watch
    from plp_builder.progress import Model, Progress
    from plp_builder.run import Run
    from plp_builder.settings import Settings
    from plp_builder.solve import SolveRequest


class Solved(NamedTuple):
    """What there is to say of the image: how many steps it has, how many of them had been done.

    ``asked`` is whether the daemon was.
    """

    steps: int
    cached: int
    warnings: int = 0
    asked: bool = True

    @property
    def all_cached(self) -> bool:
        """Whether no step had to run."""
        return self.cached == self.steps


class Solving:
    """Asks one daemon for one solve after another. A context manager; leaving it ends the last.

    ``stdout`` is the descriptor that an archive goes to, where BuildKit writes one itself.
    """

    def __init__(
        self,
        daemon: Daemon,
        settings: Settings,
        watch: Watch,
        environ: Mapping[str, str],
        stdout: int | None,
    ) -> None:
        self._daemon = daemon
        self._settings = settings
        self._watch = watch
        self._environ = environ
        self._stdout = stdout
        self._call: Call | None = None

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self.end()

    def begin_early(self, request: SolveRequest) -> None:
        """Call buildctl, if the daemon listens; it may not serve yet. May be called again."""
        if not self._call and self._daemon.listens():
            self.begin(request, early=True)

    def begin(self, request: SolveRequest, *, early: bool = False) -> None:
        """Call buildctl; ``early`` for a daemon that may not serve yet."""
        self._call = Call(
            self._daemon.endpoint,
            solve.arguments(request),
            env=solve.environment(request, self._environ),
            stdout=self._stdout if request.writes_archive else None,
            watch=self._watch,
            early=early,
        )

    def end(self) -> None:
        """End what has not come to its end; may be called again."""
        call, self._call = self._call, None
        if call:
            call.end()

    def finish(self, request: SolveRequest, model: Model, *, quiet: bool = False) -> bool:
        """Let the daemon, which is ready, solve, if it has not begun; whether it succeeded.

        ``model`` takes up what happens. Raises DaemonDied, TimedOut.
        """
        if not self._call:
            self.begin(request)
        assert self._call  # noqa: S101 - for the type checker
        shown = self._display(model, quiet=quiet)
        at_work: list[str] = []
        try:
            code = self._call.finish(
                shown.feed,
                partial(self._tick, shown),
                early=lambda: at_work.extend(model.running),  # buildctl's end changes the model
            )
            shown.finish(time.monotonic())
            if code:
                self._daemon.check()
        except TimedOut as late:
            why = [*late.why, *(f"at work then: {name}" for name in at_work)]
            raise TimedOut(late.what, why=why, hint=late.hint) from None
        finally:
            self.end()
        return code == 0

    def _display(self, model: Model, *, quiet: bool) -> Progress:
        from plp_builder.progress import create

        settings = self._settings
        return create(
            "hidden" if quiet and not settings.debug else settings.progress,
            settings.log_format,
            log.Redacted(sys.stderr),
            log.colourful(sys.stderr, self._environ),
            model,
            verbose=settings.debug,
        )

    def _tick(self, shown: Progress, now: float) -> None:
        shown.tick(now)
        if ended := self._daemon.end_hanging_steps():
            log.warning(
                "ended processes that a step left running",
                processes=ended,
                hint="without the process sandbox they would make the build hang",
            )


def solve_image(
    run: Run,
    options: Options,
    request: Callable[..., SolveRequest],
    daemon: Daemon,
    caching: Caching,
    solving: Solving,
    settings: Settings,
    meanwhile: Callable[[Callable[[], object]], None],
) -> Solved:
    """Solve for the image; again where only what was kept from earlier builds stood in the way.

    Not at all where it is known what would come out; the daemon is ended then.

    ``request`` makes a request of the cache's imports and the layout to export to; ``meanwhile``
    is called while others are at work, in each attempt, with what to call now and then. Raises
    DaemonDied, DaemonNotReady, RootlessNotPermitted, BuildFailed.
    """
    phases = run.phases
    reach = reach_of(run, daemon)
    while True:
        try:
            with phases.part("cache"):
                known = caching.begin(request())
            if known is not None:
                daemon.kill()
                why = "all is as it was in the last build"
                log.info("nothing to solve", cache=caching.kind, reason=why)
                return Solved(known, known, asked=False)
            wanted = request(
                cache_imports=caching.imports,
                cache_export=caching.export_with_image,
                layout=caching.layout,
            )
            begin = _nothing if caching.must_settle else partial(solving.begin_early, wanted)
            begin()
            meanwhile(begin)
            daemon.ready(settings.start_timeout, listening=begin, before_another=caching.end_draft)
            _tell_daemon(daemon, run.facts, caching, phases.since_start("ready"))
            model = new_model()
            with phases.part("settle"):
                caching.settle(reach)
            with phases.part("solve"), caching.forwarding():
                done = solving.finish(wanted, model)
            caching.heard(model.printed)
            if done:
                repeatable = model.of_fixed_sources and not model.warnings
                caching.solved(steps=model.steps_total if repeatable else None)
                with phases.part("verify"):
                    whole = caching.verify()
                if not whole:
                    continue
                if model.all_cached:
                    caching.forget(daemon.endpoint)
                return Solved(model.steps_total, model.steps_cached, len(model.warnings))
            _check_failure(model, daemon, caching, settings)
        except (DaemonFailure, CacheDamaged, CacheNotUsable) as problem:
            solving.end()
            caching.end_draft()
            caching.heard(True)
            if not run.choice.another(problem):
                raise
            daemon.restart(options._replace(root=run.choice.root))


def _check_failure(model: Model, daemon: Daemon, caching: Caching, settings: Settings) -> None:
    """Raise why a solve failed, unless that was what it imported, which is left out the next time.

    Raises StateDamaged and StateNotCarried where another state may help, otherwise BuildFailed.
    """
    said = "\n".join(model.texts)
    if caching.is_blamed(said):
        raise StateDamaged("a solve failed on it", why=list(model.texts)[-3:])
    if caching.is_too_full(said):
        raise StateNotCarried("The daemon's state cannot be kept", why=list(model.texts)[-1:])
    if not caching.gives_up(said):
        caching.failed(daemon.endpoint)
        from plp_builder.progress import failure

        raise failure.explain(model, dockerfile=str(settings.dockerfile))


def new_model() -> Model:
    """What takes up the events of a solve."""
    from plp_builder.progress import Model

    return Model()


def _nothing() -> None:
    return None


def reach_of(run: Run, daemon: Daemon) -> Reach:
    """What solves beside the image's take."""
    return Reach(daemon.endpoint, run.watch, run.environ, Path(daemon.room.runtime.client))


def keep(
    run: Run,
    request: Callable[..., SolveRequest],
    daemon: Daemon,
    caching: Caching,
    solving: Solving,
    solved: Solved,
) -> None:
    """Have the daemon leave to later builds what this one made.

    Nothing gets out but a stop.
    """
    if solved.asked and caching.wants_export(all_cached=solved.all_cached):
        with run.phases.part("portable export"):
            wanted = request(
                image=False, cache_imports=caching.export_imports, cache_export=caching.export
            )
            said = new_model()
            done = solving.finish(wanted, said, quiet=True)
            caching.heard(said.printed)
            if done:
                caching.exported()
            else:
                why = "".join(list(said.texts)[-1:])
                log.warning("the portable cache lacks this build", why=why)
    if not solved.all_cached:
        with run.phases.part("cache mounts"):
            caching.keep_mounts(reach_of(run, daemon))
    with run.phases.part("tidy"):
        caching.tidy(daemon.endpoint if solved.asked else None, grown=not solved.all_cached)


def _tell_daemon(daemon: Daemon, facts: Facts, caching: Caching, seconds: float) -> None:
    sandbox, user = daemon.room.sandbox, daemon.room.user
    log.info(
        "daemon ready",
        user=user.name or user.uid if user else "root",
        sandbox=sandbox.text,
        cache=caching.kind,
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
