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

from plp_builder.process import Stop  # noqa: E402
from plp_builder.streams import run  # noqa: E402

STOPPED = "Publish again: what has arrived already is not sent a second time."
TIMED_OUT = "Raise PLP_TIMEOUT, or look above for the step that took so long."
PR_SET_DUMPABLE = 4


def main(arguments: Sequence[str] | None = None) -> int:
    """Run the command that ``arguments`` name (default: those of the process).

    The exit codes are those of the contract: 0, 1, 2 for credentials, 3 for the archive, 4 for a
    missing variable, 143 after SIGTERM and 130 after SIGINT.
    """
    stop = Stop("the publication", stopped_hint=STOPPED, timeout_hint=TIMED_OUT)
    stop.listen()
    match sys.argv[1:] if arguments is None else list(arguments):
        case []:
            close_to_others()
            from publisher import publish

            return publish.main(os.environ, stop)
        case ["-h" | "--help"]:
            from publisher import usage

            print(usage.text())
        case ["--version"]:
            from plp_builder import __version__
            from publisher import skopeo

            print(f"plp-container-image-publisher {__version__}")
            print(f"skopeo {skopeo.version(os.environ)}")
        case unknown:
            print(f"unknown arguments: {' '.join(map(ascii, unknown))}", file=sys.stderr)
            print("The publisher is driven by environment variables: see --help.", file=sys.stderr)
            return 1
    return 0


def close_to_others() -> None:
    """Keep other processes of this user out of this process's memory and environment.

    prctl(2), PR_SET_DUMPABLE: /proc/PID/environ and /proc/PID/mem then belong to root, nobody may
    trace us, and no core is dumped. Where the kernel refuses, the run goes on. It ends with
    execve(2): skopeo and credential helpers can be looked into while they run, as SECURITY.md says.
    """
    import ctypes

    ctypes.CDLL(None).prctl(PR_SET_DUMPABLE, 0, 0, 0, 0)


if __name__ == "__main__":
    run(main)
