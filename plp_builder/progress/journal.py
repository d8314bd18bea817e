"""The build as log events with keys, for ``PLP_LOG_FORMAT=json``."""

from __future__ import annotations

from plp_builder import log
from plp_builder.progress.model import Change, Finished, Line, Model, Said, Started, Warned
from plp_builder.progress.plain import HEARTBEAT, SHOWN_AFTER
from plp_builder.progress.step import Step
from plp_builder.terminal import printable


class Journal:
    """Logs ``step started``, ``step output``, ``step finished``, ``step running`` and more.

    Keys: ``step`` (its number), ``name``, ``line``, ``seconds``, ``result`` (done, cached,
    canceled, error). BuildKit's own tasks are logged when they are slow, fail or print.
    """

    def __init__(self, model: Model) -> None:
        self._model = model
        self._begun: dict[Step, float] = {}
        self._heard: dict[Step, float] = {}

    def show(self, change: Change, now: float) -> None:
        if isinstance(change, Line):
            step = self._name(change.step, now)
            line = printable(change.text)
            log.info("step output", step=step, line=line, seconds=round(change.seconds, 3))
        elif isinstance(change, Started):
            self._begun.setdefault(change.step, now)
            if change.step.instruction:
                self._name(change.step, now)
        elif isinstance(change, Finished):
            self._finished(change.step, now)
        elif isinstance(change, Warned):
            warning = change.warning
            log.warning(
                "dockerfile check",
                message=printable(warning.short),
                file=printable(warning.file),
                line=warning.line,
                url=printable(warning.url),
            )
        elif isinstance(change, Said):
            tell = log.debug if change.noise else log.info
            tell("buildctl output", line=printable(change.text))

    def tick(self, now: float) -> None:
        for step, begun in self._begun.items():
            if not step.number:
                if now - begun >= SHOWN_AFTER:
                    self._name(step, now)
            elif now - self._heard[step] >= HEARTBEAT:
                self._heard[step] = now
                log.info("step running", step=step.number, seconds=round(now - begun, 1))

    def flush(self) -> None:
        """Log events are written as they come."""

    def _name(self, step: Step, now: float) -> int:
        if not step.number:
            log.info("step started", step=self._model.number(step), name=printable(step.name))
        self._heard[step] = now
        return step.number

    def _finished(self, step: Step, now: float) -> None:
        self._begun.pop(step, None)
        if step.number or step.error or step.duration >= SHOWN_AFTER:
            result = (
                "canceled" if step.canceled
                else "error" if step.error
                else "cached" if step.cached
                else "done"
            )  # fmt: skip
            keys: dict[str, object] = {"result": result, "seconds": round(step.duration, 3)}
            if step.error:
                keys["reason"] = printable(step.error)
            log.info("step finished", step=self._name(step, now), **keys)
        self._heard.pop(step, None)
