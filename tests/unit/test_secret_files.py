"""What is hidden of secrets that come from files."""

from __future__ import annotations

import os
from pathlib import Path

from plp_builder.redaction import redactor
from plp_builder.results.secret_files import MAX_BYTES, secret_file_values


def test_each_text_once_in_order(tmp_path: Path) -> None:
    first, second, same = (tmp_path / name for name in "abc")
    first.write_text("one\n")
    second.write_bytes(b"\xfftwo")
    same.write_text("one\n")
    assert secret_file_values([first, second, same]) == ("one\n", "\ufffdtwo")


def test_what_cannot_be_read_gives_nothing(tmp_path: Path) -> None:
    os.mkfifo(tmp_path / "fifo")
    (tmp_path / "empty").touch()
    (tmp_path / "blank").write_text(" \n")
    names = ("fifo", "empty", "blank", "missing", ".", "n" * 300, "zero\0")
    assert secret_file_values(tmp_path / name for name in names) == ()


def test_a_link_is_followed(tmp_path: Path) -> None:
    """As an orchestrator mounts its secrets."""
    (tmp_path / "file").write_text("token")
    (tmp_path / "link").symlink_to("file")
    assert secret_file_values([tmp_path / "link"]) == ("token",)


def test_of_a_large_file_only_the_beginning(tmp_path: Path) -> None:
    path = tmp_path / "large"
    path.write_bytes(b"a" * (MAX_BYTES + 1))
    assert secret_file_values([path]) == ("a" * MAX_BYTES,)


def test_a_line_of_a_file_is_hidden_where_a_step_prints_it(tmp_path: Path) -> None:
    path = tmp_path / ".npmrc"
    path.write_text("//registry.example/:_authToken=npm_0123456789\nfund=false\n")
    hide = redactor(secret_file_values([path]))
    assert hide("+ cat .npmrc: //registry.example/:_authToken=npm_0123456789") == (
        "+ cat .npmrc: <hidden>"
    )
