"""`make setup`: everything a fresh clone needs, and nothing twice.

With ``--without-tests`` what builds need, and nothing that only tests use.
"""

from __future__ import annotations

import sys
import time
from collections.abc import Sequence

from scripts.set_up import environment, go, newer_skopeo, packages, test_user, toolchain
from scripts.set_up.step import SetupError

WITHOUT_TESTS = "--without-tests"


def main(arguments: Sequence[str]) -> int:
    """Run the steps in order; returns the exit code."""
    if unknown := [argument for argument in arguments if argument != WITHOUT_TESTS]:
        print(f"unknown: {' '.join(unknown)}; accepted is {WITHOUT_TESTS}", file=sys.stderr)
        return 1
    tests = not arguments
    started = time.monotonic()
    try:
        packages.install(packages.needed(tests=tests))
        environment.install()
        modules = toolchain.needed(tests=tests)
        toolchain.install(go.find_or_fetch(toolchain.lowest_go(modules)), modules)
        if tests:
            newer_skopeo.install()
        test_user.install()
    except SetupError as error:
        print(f"\nSet-up failed: {error}", file=sys.stderr)
        return 1
    print(f"Set up in {time.monotonic() - started:.1f} s.")
    return 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
