"""The solve of one build: begun while the daemon still starts, shown, and explained if it fails."""

from __future__ import annotations

import sys
import time
from collections.abc import Callable, Mapping
from functools import partial
from typing import TYPE_CHECKING, Self

from plp_builder import log, solve
from plp_builder.buildkit.buildctl import Call
from plp_builder.progress import Model, Progress, create, failure

if TYPE_CHECKING:
    from plp_builder.buildkit.daemonless import Daemon
    from plp_builder.cache.portable import BuildCache
    from plp_builder.output import Output
    from plp_builder.process import Watch
    from plp_builder.settings import Settings
    from plp_builder.solve import SolveRequest


class Solving:
    """A context manager around one solve; leaving it ends what has not come to its end.

    Where the daemon listens already, buildctl is called at once and gets ready beside it.
    ``request`` makes a request of the cache's imports and export.
    """

    def __init__(
        self,
        request: Callable[..., SolveRequest],
        daemon: Daemon,
        cache: BuildCache,
        output: Output | None,
        watch: Watch,
        environ: Mapping[str, str],
    ) -> None:
        self._request = request
        self._daemon = daemon
        self._cache = cache
        self._output = output
        self._watch = watch
        self._environ = environ
        self._early = self._call(early=True) if daemon.listens() else None

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        if self._early:
            self._early.end()

    def finish(self, settings: Settings) -> Model:
        """Let the daemon, which is ready, build; once more without a cache that is to blame.

        Raises DaemonDied or BuildFailed.
        """
        call = self._early or self._call()
        while True:
            model = Model()
            shown = self._display(settings, model)
            code = call.finish(shown.feed, partial(self._tick, shown))
            shown.finish(time.monotonic())
            if code == 0:
                return model
            self._daemon.check()
            if not self._cache.give_up("\n".join(model.texts)):
                raise failure.explain(model, dockerfile=str(settings.dockerfile))
            if self._output:
                self._output.restart()
            call = self._call()

    def _call(self, *, early: bool = False) -> Call:
        wanted = self._request(cache_imports=self._cache.imports, cache_export=self._cache.export)
        return Call(
            self._daemon.endpoint,
            solve.arguments(wanted),
            env=solve.environment(wanted, self._environ),
            stdout=self._output.file.fileno() if self._output else None,
            watch=self._watch,
            early=early,
        )

    def _display(self, settings: Settings, model: Model) -> Progress:
        return create(
            settings.progress,
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
