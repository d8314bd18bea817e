"""The syntax of single variables: text in, frozen values out, pure functions throughout."""

from __future__ import annotations
