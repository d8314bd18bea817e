"""`python -m benchmarks.container`: from `docker run` to its exit, against a shell entrypoint.

Both sides run in the same image, build the same context with the same annotations, and import and
export the same kind of local cache. The shell side is upstream's buildctl-daemonless.sh, as user
1000. They take turns, and who begins changes every round.
"""

from __future__ import annotations

import argparse
import json
import os
import re
import shutil
import subprocess
import sys
import tempfile
import time
from collections.abc import Sequence
from pathlib import Path

from benchmarks.measure import Spread, spread
from benchmarks.stage import UPSTREAM, upstream_module
from benchmarks.subjects import SHA, URL
from scripts.images.build import Wanted
from scripts.set_up.step import ROOT, SetupError
from tests.support import containers, engine
from tests.support.engine import Engine

SIDES = ("builder", "builder --user 1000", "shell")
SHELL = """\
export HOME=/home/plp XDG_RUNTIME_DIR=/tmp/run USER=plp
mkdir -p -m 700 "$XDG_RUNTIME_DIR"
import=
[ ! -e /cache/index.json ] || import=--import-cache=type=local,src=/cache
exec sh /upstream.sh build --progress=plain --frontend=dockerfile.v0 \\
    --local=context=/source --local=dockerfile=/source --output="$OUTPUT" \\
    $import --export-cache=type=local,dest=/cache,mode=max $FURTHER
"""
_READY = re.compile(r'"event":"daemon ready".*"seconds":([\d.]+)')


def main(arguments: Sequence[str] | None = None) -> int:
    parser = argparse.ArgumentParser(prog="python -m benchmarks.container", description=__doc__)
    parser.add_argument("--rounds", type=int, default=11)
    parser.add_argument("--json", type=Path, help="also write the results to this file")
    options = parser.parse_args(arguments)
    work = Path(tempfile.mkdtemp(prefix="plp-bench-", dir="/var/tmp"))
    try:
        with engine.available(work) as running:
            image = containers.load(running, Wanted("builder"))
            results = _compare(running, image, work, options.rounds)
    except SetupError as error:
        print(error, file=sys.stderr)
        return 1
    finally:
        shutil.rmtree(work, ignore_errors=True)
    if options.json:
        options.json.write_text(json.dumps(results, indent=2) + "\n")
    return 0


def _compare(running: Engine, image: str, work: Path, rounds: int) -> dict[str, object]:
    shutil.copytree(ROOT / "tests/contexts/scratch-file", work / "source")
    shutil.copy(upstream_module() / UPSTREAM, work / "upstream.sh")
    for side in range(len(SIDES)):
        for name in ("build", "cache"):
            (work / f"{name}{side}").mkdir()
            os.chown(work / f"{name}{side}", 1000, 1000)
    seconds: dict[tuple[str, str], list[float]] = {}
    ready: list[float] = []
    for number in range(rounds):
        order = list(range(len(SIDES)))
        order = order[number % 3 :] + order[: number % 3]
        for side in order:
            for path in (work / f"cache{side}").iterdir():
                shutil.rmtree(path) if path.is_dir() else path.unlink()
        for cache in ("cold", "warm"):
            for side in order:
                took, said = _run(running, image, work, side)
                seconds.setdefault((cache, SIDES[side]), []).append(took)
                if side == 0:
                    ready += [float(text) for text in _READY.findall(said)]
    return _tell(seconds, spread(ready))


def _run(running: Engine, image: str, work: Path, side: int) -> tuple[float, str]:
    archive = work / f"build{side}/container-image.tar"
    archive.unlink(missing_ok=True)
    words = ["docker", *(["--host", running.host] if running.host else [])]
    words += ["run", "--rm", "--privileged", "--network=none"]
    words += ["-v", f"{work}/source:/source:ro", "-v", f"{work}/build{side}:/build"]
    if side:
        words += ["--user", "1000:1000"]
    if SIDES[side] == "shell":
        annotations = ("source=" + URL, "revision=" + SHA, "created=2000-01-01T00:00:00Z")
        output = ["type=docker", "oci-mediatypes=true", "dest=/build/container-image.tar"]
        output += [f"annotation.org.opencontainers.image.{text}" for text in annotations]
        words += ["-v", f"{work}/upstream.sh:/upstream.sh:ro", "-v", f"{work}/cache{side}:/cache"]
        words += ["-e", f"OUTPUT={','.join(output)}", "-e", "BUILDKITD_FLAGS=--root=/var/tmp/state"]
        words += ["--entrypoint=sh", image, "-c", SHELL]
    else:
        words += ["-v", f"{work}/cache{side}:/tmp/cache", "-e", "PLP_LOG_FORMAT=json"]
        words += ["-e", f"GIT_REPOSITORY_URL={URL}", "-e", f"GIT_SHA={SHA}", image]
    began = time.perf_counter()
    done = subprocess.run(words, check=False, capture_output=True, text=True)
    took = time.perf_counter() - began
    if done.returncode or not archive.stat().st_size:
        raise SetupError(f"{SIDES[side]} ended with {done.returncode}:\n{done.stderr[-2000:]}")
    return took, done.stderr


def _tell(seconds: dict[tuple[str, str], list[float]], ready: Spread) -> dict[str, object]:
    print("FROM scratch and one file, docker run to exit, milliseconds: median (middle half)")
    results: dict[str, object] = {"daemon_ready": ready._asdict()}
    for cache in ("cold", "warm"):
        shell = spread(seconds[cache, "shell"]).median
        for side in SIDES:
            found = spread(seconds[cache, side])
            numbers = [round(value * 1000) for value in (found.median, found.low, found.high)]
            text = "{} ({}-{})".format(*numbers)
            print(f"{cache:<6}{side:<22}{text:>18}{found.median / shell:>8.2f}")
            results[f"{cache}, {side}"] = {**found._asdict(), "ratio": found.median / shell}
    print(f"start of the builder to daemon ready: {ready.median:.2f} s (to {ready.high:.2f})")
    return results


if __name__ == "__main__":
    sys.exit(main())
