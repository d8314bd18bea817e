"""The trial of a directory: its text, and what its log says."""

from __future__ import annotations

import shlex
from pathlib import Path

import pytest

from plp_builder.buildkit.trial import refusal, script

MARK = "plp: this directory cannot carry the daemon's state: "


@pytest.mark.parametrize("path", ["/cache/state/1/root", "/my cache/it's $HOME; `id`/root"])
def test_the_place_is_one_word_of_the_shell(path: str) -> None:
    first = script(Path(path), rootless=True, beside=False).splitlines()[0]
    assert shlex.split(first) == [f"p={path}/.trial"]


def test_only_a_user_namespace_asks_for_attributes_of_its_own() -> None:
    assert "userxattr" in script(Path("/x"), rootless=True, beside=False)
    assert "userxattr" not in script(Path("/x"), rootless=False, beside=False)


def test_the_reason_is_what_follows_the_mark_on_a_line_of_its_own() -> None:
    log = ["time=now level=warning", f"{MARK}no overlay can be mounted: mount: /x: wrong fs type"]
    assert refusal(log) == "no overlay can be mounted: mount: /x: wrong fs type"


def test_the_mark_inside_another_line_is_no_reason() -> None:
    assert refusal([f"step printed {MARK}nothing"]) == ""
    assert refusal([]) == ""
    assert refusal(["buildkitd: no space left on device"]) == ""


def test_there_is_always_a_reason_and_never_a_long_one() -> None:
    assert refusal([MARK]) == "no reason was given"
    assert len(refusal([MARK + "x" * 10_000])) == 300


def test_the_script_says_what_the_reader_looks_for() -> None:
    assert f'echo "{MARK}$*"' in script(Path("/x"), rootless=True, beside=False)
