"""`make image`: both archives in build/, and what takes the room in them."""

from __future__ import annotations

import sys
import time
from collections.abc import Sequence

from scripts.images import bases
from scripts.images.build import Wanted, bring
from scripts.images.contents import weigh
from scripts.set_up.step import ROOT, SetupError

_WIDTH = 72


def main(arguments: Sequence[str]) -> int:
    """Build both targets; ``arguments`` may hold one version of BuildKit. The exit code."""
    started = time.monotonic()
    where = "Docker Hub" if bases.hub_answers() else "stand-ins: Docker Hub does not answer"
    print(f"Base images: {where}.")
    try:
        for target in ("builder", "publisher"):
            path = bring(Wanted(target, *arguments[:1]), ROOT / "build")
            weight = weigh(path)
            print(f"  build/{path.name}: {path.stat().st_size / 1e6:.0f} MB to load, unpacked")
            print(f"  {weight.above / 1e6:7.1f} MB above the base image's {weight.base / 1e6:.0f}:")
            for layer in weight.layers:
                if layer.size >= 100_000:
                    print(
                        f"  {layer.size / 1e6:7.1f} MB {' '.join(layer.made_by.split())[:_WIDTH]}"
                    )
    except SetupError as error:
        print(f"\n{error}", file=sys.stderr)
        return 1
    print(f"Both images in {time.monotonic() - started:.1f} s. Next: docker load < build/NAME.tar")
    return 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
