"""`python -m benchmarks.rebuild RESULTS.json`: the tables as Markdown, and the plot again."""

from __future__ import annotations

import argparse
import json
import sys
from collections.abc import Sequence
from pathlib import Path

from benchmarks import report
from benchmarks.rebuild import plot, tables
from benchmarks.rebuild.results import Results


def main(arguments: Sequence[str] | None = None) -> int:
    parser = argparse.ArgumentParser(prog="python -m benchmarks.rebuild", description=__doc__)
    parser.add_argument("results", type=Path, help="what `make bench` wrote")
    parser.add_argument("--plot", type=Path, help="where the plot goes, for example docs/")
    options = parser.parse_args(arguments)
    read = json.loads(options.results.read_text())
    results = Results.read(read["rebuild"])
    machine = ", ".join(report.machine(read["machine"]))
    print(machine, "", *tables.markdown(results), sep="\n")
    if options.plot:
        options.plot.write_text(plot.svg(results, plot.caption(machine)))
    return 0


if __name__ == "__main__":
    sys.exit(main())
