"""What `make setup` does: tools, Python environment, test user. Only the standard library."""

from __future__ import annotations
