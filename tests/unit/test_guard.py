"""The guard of the unit tests itself."""

from __future__ import annotations

import os
import socket
import subprocess

import pytest


def test_no_process_can_be_started() -> None:
    with pytest.raises(AssertionError, match=r"subprocess\.Popen"):
        subprocess.run(["true"], check=False)


def test_no_process_can_be_forked() -> None:
    with pytest.raises(AssertionError, match=r"os\.fork"):
        os.fork()


def test_no_socket_can_be_opened() -> None:
    with pytest.raises(AssertionError, match=r"socket\.__new__"):
        socket.socket()


def test_the_environment_is_empty() -> None:
    """PYTEST_CURRENT_TEST is pytest's own and comes back with each phase."""
    assert set(os.environ) <= {"PYTEST_CURRENT_TEST"}
