"""Where cache mounts are packed and unpacked: solves of our own on the build's daemon."""

from __future__ import annotations

from collections.abc import Sequence
from contextlib import suppress
from pathlib import Path
from typing import Self

from plp_builder import process, solve
from plp_builder.buildkit.buildctl import Call
from plp_builder.cache.files import random_name, remove
from plp_builder.cache.mounts import Reach, recipe, tool
from plp_builder.cache.mounts.recipe import Task
from plp_builder.errors import Failure
from plp_builder.progress import Model, failure
from plp_builder.progress.events import parse
from plp_builder.solve import SolveRequest
from plp_builder.tuples import NamedTuple

__all__ = ["Bench", "Reach", "Refused"]

_PRUNING = 300.0
_SAID = 3
_BY_TAR = "did not complete successfully: exit code: 2"
_FULL = ("no space left", "quota exceeded")


class Refused(NamedTuple):
    """Why a solve failed. ``by_tar`` is whether tar could not do with what it got."""

    why: tuple[str, ...]
    by_tar: bool


class Bench:
    """A context manager: tar lies ready in it. Raises CacheNotUsable or OSError at its begin."""

    def __init__(self, reach: Reach, namespace: str) -> None:
        self._reach = reach
        self._namespace = namespace
        self._directory = reach.directory / random_name("mounts-")
        self._tool, self._steps = self._directory / "tool", self._directory / "steps"
        self._tar: tuple[str, ...] = ()

    def __enter__(self) -> Self:
        for place in (self._directory, self._tool, self._steps):
            place.mkdir(0o700)
        try:
            self._tar = tool.install(self._tool, self._reach.environ)
        except BaseException:
            remove(self._directory)
            raise
        return self

    def __exit__(self, *_: object) -> None:
        remove(self._directory)

    def unpack(self, tasks: Sequence[Task]) -> Refused | None:
        """Fill the mounts from the archives. Only what the watch raises gets out."""
        return self._solve(
            recipe.unpacking(tasks, self._tar, self._steps, self._tool, self._namespace)
        )

    def pack(self, tasks: Sequence[Task], to: Path) -> Refused | None:
        """Leave archives and listings in the directory ``to``, likewise."""
        return self._solve(
            recipe.packing(tasks, self._tar, self._steps, self._tool, self._namespace, to)
        )

    def is_new(self) -> bool:
        """Whether the daemon has no cache mounts at all. Never raises."""
        words = ["du", "--verbose", "--filter", "type==exec.cachemount"]
        command = ["buildctl", *self._reach.endpoint.arguments(), *words]
        with suppress(Failure):
            done = process.run(command, env=self._env(), timeout=_PRUNING)
            return done.code == 0 and b"ID:" not in done.stdout
        return False

    def forget(self, *filters: str) -> None:
        """Have the daemon remove what any of them matches. Never raises: it is only room."""
        command = ["buildctl", *self._reach.endpoint.arguments(), "prune", "--all"]
        for each in filters:
            command += ["--filter", each]
        with suppress(Failure):
            process.run(command, env=self._env(), timeout=_PRUNING)

    def _solve(self, request: SolveRequest) -> Refused | None:
        reach = self._reach
        call = Call(
            reach.endpoint,
            solve.arguments(request),
            env=self._env(),
            stdout=None,
            watch=reach.watch,
        )
        model = Model()

        def line(text: bytes, _: float) -> None:
            for event in parse(text):
                model.apply(event)

        if call.finish(line, lambda _: None) == 0:
            return None
        model.finish()
        told = failure.explain(model)
        why = tuple(line for line in told.why if line.startswith("tar: ")) or (told.what,)
        said = "\n".join((*model.texts, *told.why))
        full = any(words in said.lower() for words in _FULL)
        return Refused(why[-_SAID:], _BY_TAR in said and not full)

    def _env(self) -> dict[str, str]:
        return solve.environment(solve.SolveRequest("", (), ()), self._reach.environ)
