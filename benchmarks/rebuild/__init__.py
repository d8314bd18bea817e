"""Builds and rebuilds of larger projects, side by side with other builders."""
