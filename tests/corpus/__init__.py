"""Collections of difficult inputs, as data."""

from __future__ import annotations
