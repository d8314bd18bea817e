"""The publisher's entry point."""

from __future__ import annotations

import sys


def main() -> int:
    """Say that this version cannot publish yet; returns the exit code 1."""
    sys.stderr.write(
        "The publisher is not part of this version yet: nothing was pushed.\n"
        "Until it is, push the archive with skopeo:\n"
        "  skopeo copy oci-archive:container-image.tar docker://REGISTRY/NAME:TAG\n"
    )
    return 1


if __name__ == "__main__":
    sys.exit(main())
