"""A source directory in, one OCI image archive out."""

from __future__ import annotations

__version__ = "0.1.0"
