"""What all tests share: unit tests cannot reach the world, and CI skips nothing."""

from __future__ import annotations

import os
import signal
import sys
from collections.abc import Generator, Iterator
from pathlib import Path
from typing import TYPE_CHECKING, Any

import pytest
from hypothesis import HealthCheck, settings

if TYPE_CHECKING:
    from tests.support.engine import Engine

# How long an example takes says more about the machine's other work than about the code.
settings.register_profile("unhurried", deadline=None, suppress_health_check=[HealthCheck.too_slow])
settings.load_profile("unhurried")

_UNIT = Path(__file__).parent / "unit"
_WORLD = (
    "os.exec",
    "os.fork",
    "os.forkpty",
    "os.posix_spawn",
    "os.spawn",
    "os.system",
    "pty.spawn",
    "socket.__new__",
    "subprocess.Popen",
)
_guarded = False


class WorldReachedError(AssertionError):
    """A unit test started a process or opened a socket."""


class _Watched(str):
    """An audit event that is caught when it is looked up in a table."""

    __slots__ = ()
    __hash__ = str.__hash__

    def __eq__(self, other: object) -> bool:
        if _guarded:
            raise WorldReachedError(f"A unit test must not reach the world: {other}")
        return True


# An audit hook sees every way to the world, also through names imported long before. This one runs
# Python for these events alone: within sys.settrace, which coverage calls in each new thread,
# another thread would get its turn, and CPython 3.11 allows but one of them in there.
_WATCHED: dict[str, tuple[Any, ...]] = {_Watched(event): () for event in _WORLD}
sys.addaudithook(_WATCHED.get)


def pytest_configure() -> None:
    """Hear signals that whoever started us ignores, as nohup(1) and a shell's ``&`` do.

    Children inherit that, and no test of signals could work in them.
    """
    for number in (signal.SIGINT, signal.SIGHUP):
        if signal.getsignal(number) == signal.SIG_IGN:
            signal.signal(
                number, signal.default_int_handler if number == signal.SIGINT else signal.SIG_DFL
            )


@pytest.hookimpl(wrapper=True)
def pytest_runtest_call(item: pytest.Item) -> Iterator[None]:
    """Guard unit tests: no processes, no sockets, an empty environment."""
    global _guarded  # noqa: PLW0603 - an audit hook cannot be removed, only switched off
    if not item.path.is_relative_to(_UNIT):
        return (yield)
    before = dict(os.environ)
    os.environ.clear()
    _guarded = True
    try:
        return (yield)
    finally:
        _guarded = False
        os.environ.clear()
        os.environ.update(before)


@pytest.hookimpl(wrapper=True)
def pytest_runtest_makereport(
    item: pytest.Item, call: pytest.CallInfo[None]
) -> Generator[None, pytest.TestReport, pytest.TestReport]:
    """With CI=true a skip is a failure: there the machine has to have what a test needs."""
    report = yield
    wanted = os.environ.get("CI", "").lower() in {"true", "1"}
    if wanted and report.skipped and not hasattr(report, "wasxfail"):
        assert call.excinfo is not None
        report.outcome = "failed"
        report.longrepr = f"skipped, which CI=true does not allow: {call.excinfo.value}"
    return report


@pytest.fixture(scope="session")
def docker_engine(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Engine]:
    """The machine's Docker engine, else one of this test run."""
    from tests.support import engine

    with engine.available(tmp_path_factory.mktemp("engine")) as running:
        yield running
