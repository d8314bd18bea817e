"""`python -m benchmarks.container_rebuild`: rebuilds inside the container image, against a shell.

From `docker run` to its exit, and what of it is the container's own time, from its start to its
end as the engine's events tell: cold, unchanged, with a code change, back at the first code, and
with a dependency change, with the cache on a directory of the host and on a named volume. The shell
side is upstream's buildctl-daemonless.sh in the same image, with import and export of a local cache
on a directory of the host. The sides take turns. Base images and packages come from loopback, for
which the containers have the host's network.
"""

from __future__ import annotations

import argparse
import json
import os
import shutil
import subprocess
import sys
import tempfile
import time
from collections.abc import Sequence
from contextlib import ExitStack
from itertools import permutations
from pathlib import Path
from typing import NamedTuple

from benchmarks.container import SHELL
from benchmarks.measure import spread
from benchmarks.rebuild import plan
from benchmarks.rebuild.arena import SETTLED
from benchmarks.rebuild.contest import served_inputs
from benchmarks.rebuild.workloads import FIRST, WORKLOADS, Workload, prepare
from benchmarks.stage import UPSTREAM, upstream_module
from benchmarks.subjects import SHA, URL
from scripts.images.build import Wanted
from scripts.set_up.step import SetupError
from tests.support import containers, engine
from tests.support.engine import Engine

SIDES = ("directory", "volume", "shell")
SCENARIOS = ("cold", "unchanged", "code", "back", "dependencies")
_ORDERS = list(permutations(SIDES))
"""All, so that each side follows each of the others as often, in six rounds."""
_NAMES = [workload.name for workload in WORKLOADS if not workload.mounts]


class Served(NamedTuple):
    """The addresses of a registry with base images and of a proxy with packages."""

    registry: str
    proxy: str


class Took(NamedTuple):
    """Seconds of a run as its caller sees it, and of its container."""

    all: float
    inside: float


Times = dict[tuple[str, str, str], list[Took]]


def main(arguments: Sequence[str] | None = None) -> int:
    parser = argparse.ArgumentParser(prog="python -m benchmarks.container_rebuild")
    parser.add_argument("--rounds", type=int, default=5)
    parser.add_argument("--workloads", nargs="+", choices=_NAMES, default=_NAMES)
    parser.add_argument("--scenarios", nargs="+", choices=SCENARIOS[1:], default=SCENARIOS[1:])
    parser.add_argument("--json", type=Path, help="also write the seconds to this file")
    parser.add_argument("--directory", default="/var/tmp", help="15 GB are needed")  # noqa: S108
    options = parser.parse_args(arguments)
    work = Path(tempfile.mkdtemp(prefix="plp-bench-", dir=options.directory))
    times: Times = {}
    try:
        with ExitStack() as stack:
            running = stack.enter_context(engine.available(work))
            image = containers.load(running, Wanted("builder"))
            shutil.copy(upstream_module() / UPSTREAM, work / "upstream.sh")
            wanted = [each for each in WORKLOADS if each.name in options.workloads]
            served = None
            if any(each.base for each in wanted):
                registry, packages = stack.enter_context(served_inputs(work))
                served = Served(registry, packages.address)
            for workload in wanted:
                use = served if workload.base else None
                found = plan.wanted(
                    0, workload.name, workload.dependencies is not None, options.scenarios
                )
                names = [name for name in SCENARIOS if name in found]
                _measure(running, image, work, workload, names, options.rounds, use, times)
    except SetupError as error:
        print(error, file=sys.stderr)
        return 1
    finally:
        shutil.rmtree(work, ignore_errors=True)
    _tell(times)
    if options.json:
        plain = {" ".join(key): list(map(Took._asdict, runs)) for key, runs in times.items()}
        options.json.write_text(json.dumps(plain, indent=2) + "\n")
    return 0


def _edit(workload: Workload, source: Path, scenario: str, number: int) -> bool:
    """Make the source what a scenario of round ``number`` builds; whether it was changed."""
    if scenario == "code":
        workload.code(source, f"changed {number}")
    elif scenario == "back":
        workload.code(source, FIRST)
    elif scenario == "dependencies" and workload.dependencies is not None:
        workload.dependencies(source, f"changed {number}")
    else:
        return False
    return True


def _measure(
    running: Engine,
    image: str,
    work: Path,
    workload: Workload,
    scenarios: Sequence[str],
    rounds: int,
    served: Served | None,
    times: Times,
) -> None:
    home = work / workload.name
    home.mkdir()
    source = prepare(workload, home / "source")
    for side in SIDES:
        for name in ("build", "cache"):
            (home / f"{name}-{side}").mkdir()
            os.chown(home / f"{name}-{side}", 1000, 1000)
    if served:  # so that nobody waits for packages that the proxy has not got yet
        _run(running, image, work, home, "directory", f"{home}/cache-directory", served)
    volumes = [f"{work.name}-{workload.name}-{number}" for number in range(rounds)]
    try:
        for number in range(rounds):
            order = _ORDERS[number % len(_ORDERS)]
            workload.code(source, FIRST)
            if workload.dependencies is not None:
                workload.dependencies(source, FIRST)
            changed = time.monotonic()
            for side in order:
                shutil.rmtree(home / f"cache-{side}")
                (home / f"cache-{side}").mkdir()
                os.chown(home / f"cache-{side}", 1000, 1000)
            for scenario in scenarios:
                if _edit(workload, source, scenario, number):
                    changed = time.monotonic()
                for side in order:
                    (home / f"build-{side}/container-image.tar").unlink(missing_ok=True)
                    os.sync()
                    time.sleep(max(0.0, changed + SETTLED - time.monotonic()))
                    volume = volumes[number] if side == "volume" else f"{home}/cache-{side}"
                    took = _run(running, image, work, home, side, volume, served)
                    times.setdefault((workload.name, scenario, side), []).append(took)
                    seconds = f"{took.all:8.2f}{took.inside:8.2f}"
                    print(f"{workload.name} {scenario:<13}{side:<10}{seconds}", file=sys.stderr)
    finally:
        running.docker("volume", "rm", "--force", *volumes, check=False)
        shutil.rmtree(home, ignore_errors=True)


def _run(
    running: Engine,
    image: str,
    work: Path,
    home: Path,
    side: str,
    cache: str,
    served: Served | None,
) -> Took:
    archive = home / f"build-{side}/container-image.tar"
    words = ["docker", *(["--host", running.host] if running.host else [])]
    name = f"plp-bench-{os.urandom(4).hex()}"
    words += [
        "run",
        "--rm",
        f"--name={name}",
        "--privileged",
        f"--network={'host' if served else 'none'}",
    ]
    words += ["-v", f"{home}/source:/source:ro", "-v", f"{home}/build-{side}:/build"]
    if side == "shell":
        annotations = ("source=" + URL, "revision=" + SHA, "created=2000-01-01T00:00:00Z")
        output = ["type=docker", "oci-mediatypes=true", "dest=/build/container-image.tar"]
        output += [f"annotation.org.opencontainers.image.{text}" for text in annotations]
        words += ["--user", "1000:1000", "-v", f"{work}/upstream.sh:/upstream.sh:ro"]
        words += ["-v", f"{cache}:/cache", "-e", f"OUTPUT={','.join(output)}"]
        flags = "--root=/var/tmp/state"
        if served:
            (work / "buildkitd.toml").write_text(
                f'[registry."docker.io"]\nmirrors = ["{served.registry}"]\n'
                f'[registry."{served.registry}"]\nhttp = true\n'
            )
            flags += " --config=/buildkitd.toml"
            words += ["-v", f"{work}/buildkitd.toml:/buildkitd.toml:ro"]
            words += ["-e", f"FURTHER=--opt=build-arg:http_proxy={served.proxy}"]
        words += ["-e", f"BUILDKITD_FLAGS={flags}"]
        words += ["-e", "BUILDCTL_CONNECT_RETRIES_MAX=100", "--entrypoint=sh", image, "-c", SHELL]
    else:
        words += ["-v", f"{cache}:/tmp/cache"]
        if served:
            words += ["-e", f"PLP_REGISTRY_MIRRORS=docker.io={served.registry}"]
            words += ["-e", f"PLP_INSECURE_REGISTRIES={served.registry}"]
            words += ["-e", f"PLP_BUILD_ARGS=http_proxy={served.proxy}"]
        words += ["-e", f"GIT_REPOSITORY_URL={URL}", "-e", f"GIT_SHA={SHA}", image]
    since, began = time.time(), time.perf_counter()
    done = subprocess.run(words, check=False, capture_output=True, text=True)
    took = time.perf_counter() - began
    if done.returncode or not archive.stat().st_size:
        raise SetupError(f"{side} ended with {done.returncode}:\n{done.stderr[-2000:]}")
    return Took(took, _inside(running, name, since))


def _inside(running: Engine, name: str, since: float) -> float:
    """Seconds from the container's start to its end, both later than ``since``."""
    window = (f"--since={since - 1:.3f}", f"--until={time.time() + 1:.3f}")
    wanted = (f"--filter=container={name}", "--filter=event=start", "--filter=event=die")
    told = running.docker("events", *window, *wanted, "--format={{.TimeNano}}").stdout
    started, ended = map(int, told.split())
    return (ended - started) / 1e9


def _tell(times: Times) -> None:
    print("seconds: median (middle half), ratio to the shell")
    print(f"{'':<28}{'docker run to exit':>22}{'':8}{'in the container':>22}")
    for (workload, scenario, side), runs in times.items():
        line = f"{workload:<4}{scenario:<13}{side:<11}"
        for kind in range(len(Took._fields)):
            found = spread([took[kind] for took in runs])
            shell = spread([took[kind] for took in times[workload, scenario, "shell"]])
            text = f"{found.median:.2f} ({found.low:.2f}-{found.high:.2f})"
            line += f"{text:>22}{found.median / shell.median:>8.3f}"
        print(line)


if __name__ == "__main__":
    sys.exit(main())
