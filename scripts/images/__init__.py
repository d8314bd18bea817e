"""What `make image` does: both images, built by this very builder, without Docker."""

from __future__ import annotations
