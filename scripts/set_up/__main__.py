"""`make setup`: everything a fresh clone needs, and nothing twice."""

from __future__ import annotations

import sys
import time

from scripts.set_up import environment, go, packages, test_user, toolchain
from scripts.set_up.step import SetupError


def main() -> int:
    """Run the steps in order; returns the exit code."""
    started = time.monotonic()
    try:
        packages.install()
        environment.install()
        toolchain.install(go.find_or_fetch(toolchain.lowest_go()))
        test_user.install()
    except SetupError as error:
        print(f"\nSet-up failed: {error}", file=sys.stderr)
        return 1
    print(f"Set up in {time.monotonic() - started:.1f} s.")
    return 0


if __name__ == "__main__":
    sys.exit(main())
