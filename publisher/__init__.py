"""Pushes an image archive to a registry, under the tags of its commit."""

from __future__ import annotations
