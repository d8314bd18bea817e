"""When the daemon may start before the settings are read: where reading changes nothing for it."""

from __future__ import annotations

import re
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from plp_builder.buildkit.options import Options, asked, foreseen
from plp_builder.errors import Failure
from plp_builder.settings import VARIABLES, load
from plp_builder.syntax.names import NAMES, NOT_IMPLEMENTED, OF_PUBLISHER, SIMPLE_IMAGE

KNOWN = (*VARIABLES, *NAMES.aliases.values(), *NOT_IMPLEMENTED)
"""Every variable that the builder reads, by all its names, or refuses."""

TEXTS = {
    "PLP_LOG_FORMAT": st.sampled_from(["console", "json", "x", ""]),
    "PLP_LOG_LEVEL": st.sampled_from(["debug", "info", "warning", "error", "x", ""]),
    "PLP_PROGRESS": st.sampled_from(["auto", "plain", "quiet", "rawjson", "x", ""]),
    "PLP_CACHE_STRATEGY": st.sampled_from(["auto", "state", "portable", "off", "x", ""]),
    "PLP_IMAGE": st.from_regex(re.compile(SIMPLE_IMAGE, re.ASCII), fullmatch=True)
    | st.sampled_from(["f" * 64, "a:1"]),
}
PLAIN = {
    "PLP_LOG_FORMAT": "json", "PLP_LOG_LEVEL": "debug", "PLP_PROGRESS": "plain",
    "PLP_CACHE_STRATEGY": "portable",
}  # fmt: skip
EARLY = {name for name in KNOWN if foreseen({name: PLAIN.get(name, "x")}) is not None}
CONTRACT = {
    "PLP_SOURCE_PATH": "/src",
    "PLP_BUILD_PATH": "/out",
    "PLP_CACHE_PATH": "/var/cache",
    "GIT_REPOSITORY_URL": "https://git.example/team/project.git",
    "GIT_SHA": "0123456789abcdef0123456789abcdef01234567",
}
SAID = ("x", "true", "host", "--debug", "docker.io=127.0.0.1:5000", "/file", "id=a", "off", "1")
"""Texts of which one at least asks the daemon for something, whichever variable has it."""


class Reader:
    """Default settings that note which of their fields are looked at."""

    def __init__(self) -> None:
        self.seen: set[str] = set()
        self._settings = load({})

    def __getattr__(self, field: str) -> object:
        self.seen.add(field)
        return getattr(self._settings, field)


def test_what_is_asked_of_the_daemon_forbids_an_early_start() -> None:
    reader: Any = Reader()
    asked(reader)
    shaping = {name for name, field in VARIABLES.items() if field in reader.seen}
    assert len(shaping) >= 7
    assert not shaping & EARLY


@pytest.mark.parametrize("name", KNOWN)
@pytest.mark.parametrize("text", SAID)
def test_an_early_daemon_is_the_one_that_the_settings_ask_for(name: str, text: str) -> None:
    expected = foreseen({**CONTRACT, name: text})
    if expected is not None:
        assert asked(load({name: text})) == expected


@given(
    st.fixed_dictionaries(
        {}, optional={name: TEXTS.get(name, st.text() | st.text("x")) for name in sorted(EARLY)}
    )
)
def test_what_may_be_refused_forbids_an_early_start(environ: dict[str, str]) -> None:
    """Whatever is wrong with a setting is told before any daemon runs."""
    if foreseen(environ) is not None:
        load(environ)


@pytest.mark.parametrize("text", ["two\nlines", "\x07", "\udcff", "x" * 5000])
def test_a_text_that_would_be_refused_forbids_an_early_start(text: str) -> None:
    with pytest.raises(Failure):
        load({"GIT_SHA": text})
    assert foreseen({"GIT_SHA": text}) is None


@pytest.mark.parametrize("name", [name for name in KNOWN if name not in EARLY])
def test_every_other_setting_forbids_an_early_start(name: str) -> None:
    """Also beside those that do not; but not when it is empty, which is the same as unset."""
    assert foreseen({**CONTRACT, name: "1"}) is None
    assert foreseen({**CONTRACT, name: ""}) == Options()


def test_the_contracts_variables_and_the_siblings_allow_an_early_start() -> None:
    siblings = dict.fromkeys(OF_PUBLISHER, "whatever\n")
    assert {*CONTRACT, *TEXTS} <= EARLY
    assert foreseen({**CONTRACT, **siblings, "PATH": "/bin", "HOME": "/a\nb"}) == Options()
    assert foreseen({}) == Options()


def test_a_variable_that_nobody_knows_forbids_an_early_start() -> None:
    assert foreseen({"PLP_OF_TOMORROW": "x"}) is None
