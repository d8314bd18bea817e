"""Checks that find what would fail before anything is started."""
