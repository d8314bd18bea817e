"""Environment in, exit code out: nothing else."""

from __future__ import annotations

import gc
import os
import sys
from collections.abc import Sequence

# Imports leave hardly any garbage, and looking for it takes a tenth of their time.
gc.disable()

from plp_builder import early  # noqa: E402

if __name__ == "__main__":
    early.end_by_signals()

from plp_builder.lazy import lazily  # noqa: E402

# What the standard library imports beside what is needed, and what can wait for the daemon.
lazily("hashlib", "ipaddress", "json", "locale", "re", "selectors", "shlex", "socket")
lazily("subprocess", "threading", "typing")

from plp_builder.process import Stop  # noqa: E402
from plp_builder.streams import run  # noqa: E402


def main(arguments: Sequence[str] | None = None) -> int:
    """Run the command that ``arguments`` name (default: those of the process).

    The exit codes are those of the contract: 0, 1, 143 after SIGTERM and 130 after SIGINT.
    """
    stop = Stop()
    stop.listen()
    match sys.argv[1:] if arguments is None else list(arguments):
        case []:
            from plp_builder import outset

            begun: outset.Outset | Exception
            try:
                begun = outset.begin(os.environ)
            except Exception as problem:  # noqa: BLE001 - told as any other, when there is a log
                begun = problem
            from plp_builder import build

            return build.main(os.environ, stop, begun)
        case ["doctor"]:
            from plp_builder.preflight import doctor

            return doctor.run(os.environ)
        case ["-h" | "--help"]:
            from plp_builder import usage

            print(usage.text())
        case ["--version"]:
            from plp_builder import version

            print(version.text(os.environ))
        case unknown:
            print(f"unknown arguments: {' '.join(map(ascii, unknown))}", file=sys.stderr)
            print("The builder is driven by environment variables: see --help.", file=sys.stderr)
            return 1
    return 0


if __name__ == "__main__":
    run(main)
