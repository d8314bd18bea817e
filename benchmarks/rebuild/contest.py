"""Who takes part in what: registry, packages and subjects around the rounds."""

from __future__ import annotations

import os
import pwd
from collections.abc import Collection, Iterator, Sequence
from contextlib import ExitStack, contextmanager
from pathlib import Path

import pytest

from benchmarks.rebuild import packages, peers
from benchmarks.rebuild.packages import Packages
from benchmarks.rebuild.record import Record
from benchmarks.rebuild.results import Results
from benchmarks.rebuild.run import Options, rounds
from benchmarks.rebuild.subjects import (
    Builder,
    Original,
    OriginalMax,
    Portable,
    Subject,
    Surroundings,
)
from benchmarks.rebuild.turn import Cast
from benchmarks.rebuild.workloads import Workload
from benchmarks.stage import Stage
from scripts.set_up.step import SetupError, cache_home
from tests.support import registry
from tests.support.engine import Engine

OWN: tuple[type[Subject], ...] = (Builder, Portable, Original, OriginalMax)
PEERS = ("buildah", "docker", "kaniko")
NAMES = (*(subject.name for subject in OWN), *PEERS)


def compare(
    stage: Stage,
    user: pwd.struct_passwd | None,
    names: Sequence[str],
    workloads: Sequence[Workload],
    options: Options,
) -> Results:
    """Build all workloads with all subjects that this machine has; what it lacks is a note."""
    directory = stage.directory / "rebuild"
    directory.mkdir()
    directory.chmod(0o755)
    record = Record()
    with ExitStack() as stack:
        around = Surroundings(stage, user)
        served: Packages | None = None
        if "kaniko" in names or any(workload.base for workload in workloads):
            try:
                images, served = stack.enter_context(served_inputs(directory))
                around = around._replace(registry=images, proxy=served.address)
            except (SetupError, OSError) as error:
                left_out = [workload for workload in workloads if workload.base]
                record.notes += [f"{workload.name}: left out: {error}" for workload in left_out]
                workloads = [workload for workload in workloads if not workload.base]
        subjects = [known(around) for known in OWN if known.name in with_needed(names)]
        subjects += _peers(names, around, stack, record.notes)
        record.notes += [
            f"{subject.name}: left out of {workload.name}: it has no cache mounts"
            for subject in subjects
            for workload in workloads
            if workload.mounts and not subject.mounts
        ]
        cast = Cast({subject.name: subject for subject in subjects}, served)
        rounds(directory, cast, workloads, options, record)
        return record.results(workloads, subjects)


def with_needed(names: Collection[str]) -> frozenset[str]:
    """The names and whose saved caches they begin with."""
    return frozenset({*names, Builder.name} if Portable.name in names else names)


def _peers(
    names: Collection[str], around: Surroundings, stack: ExitStack, notes: list[str]
) -> list[Subject]:
    found: list[Subject] = []
    directory = around.stage.directory / "peers"
    directory.mkdir()
    running: Engine | None = None
    for name in PEERS:
        if name not in names:
            continue
        try:
            if name == "buildah":
                found.append(peers.buildah(around))
                continue
            if running is None:
                running = stack.enter_context(peers.engine_for(directory))
                stack.callback(peers.forget_images, running)
            if name == "docker":
                found.append(peers.Docker(around, running))
            else:
                found.append(peers.kaniko(around, running, directory))
        except SetupError as error:
            notes.append(f"{name}: left out: {error}")
    return found


@contextmanager
def served_inputs(directory: Path) -> Iterator[tuple[str, Packages]]:
    """The address of a registry with the base images, and a proxy with packages.

    SetupError or OSError where there cannot be one.
    """
    if os.geteuid() != 0:
        raise SetupError("the base images are made by root")
    try:
        with (
            registry.with_base_images(directory) as running,
            packages.serving(cache_home() / "benchmarks") as served,
        ):
            yield running.address, served
    except pytest.skip.Exception as error:
        raise SetupError(str(error)) from error
