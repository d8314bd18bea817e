"""What a fresh interpreter really loads, by every detour: the import graph test sees only ours."""

from __future__ import annotations

import subprocess
import sys

import pytest

from scripts.set_up.step import ROOT

ALWAYS_TOO_DEAR = {"asyncio", "email", "http.client", "rich", "ssl", "structlog", "urllib.request"}
BEFORE_SIGNALS = ALWAYS_TOO_DEAR | {"logging", "pydantic", "pydantic_settings", "tempfile"}

# A lazily executed module stands in sys.modules, too; its type is then not yet `module`.
LIST = """
import sys
import {name}
print(*(name for name, module in sys.modules.items() if type(module) is type(sys)))
"""


def loaded(name: str) -> set[str]:
    """The modules that are executed when ``name`` is imported."""
    command = [sys.executable, "-P", "-c", LIST.format(name=name)]
    environment = {"PYTHONPATH": str(ROOT)}
    done = subprocess.run(command, env=environment, check=True, capture_output=True, text=True)
    return set(done.stdout.split())


@pytest.mark.parametrize(
    ("name", "forbidden"),
    [
        ("plp_builder.__main__", BEFORE_SIGNALS),
        ("plp_builder.buildkit.daemonless", BEFORE_SIGNALS),
        ("plp_builder.cache.portable", BEFORE_SIGNALS),
        ("plp_builder.build", BEFORE_SIGNALS),
        ("plp_builder.settings", BEFORE_SIGNALS),
    ],
)
def test_nothing_dear_is_loaded(name: str, forbidden: set[str]) -> None:
    found = loaded(name)
    assert name in found
    assert found & forbidden == set()


BEFORE_THE_ROOM = frozenset(
    {"enum", "json", "pathlib", "re", "selectors", "signal", "socket", "subprocess", "threading"}
    | {"typing", "plp_builder.build", "plp_builder.log", "plp_builder.settings"}
)
"""What takes longer to import than the daemon's room takes to open."""


def test_the_room_is_opened_before_anything_that_can_wait() -> None:
    program = LIST.format(name="plp_builder.__main__, plp_builder.outset")
    command = [sys.executable, "-P", "-S", "-c", program]
    environment = {"PYTHONPATH": str(ROOT)}
    done = subprocess.run(command, env=environment, check=True, capture_output=True, text=True)
    found = set(done.stdout.split())
    assert "plp_builder.outset" in found
    assert found & BEFORE_THE_ROOM == set()


COMMAND = """
import os, sys
sys.argv = ["command", "unknown"]
def end(code):
    print(*(name for name, module in sys.modules.items() if type(module) is type(sys)), flush=True)
    leave(code)
leave, os._exit = os._exit, end
from plp_builder.program import run
run()
"""


def test_the_installed_command_puts_off_what_the_module_does() -> None:
    command = [sys.executable, "-P", "-S", "-c", COMMAND]
    environment = {"PYTHONPATH": str(ROOT)}
    done = subprocess.run(command, env=environment, check=False, capture_output=True, text=True)
    found = set(done.stdout.split())
    assert (done.returncode, "plp_builder.streams" in found) == (1, True)
    assert found & BEFORE_THE_ROOM == set()
