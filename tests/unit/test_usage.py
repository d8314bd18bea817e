"""The text of --help agrees with the settings."""

from __future__ import annotations

from plp_builder import usage
from plp_builder.settings import ALIASES, NOT_IMPLEMENTED, VARIABLES, described

LINES = usage.text().splitlines()


def test_every_variable_has_a_line_with_its_meaning() -> None:
    for name, field in VARIABLES.items():
        (line,) = [line for line in LINES if line.startswith(f"  {name} ")]
        assert described(field).meaning[:20] in line


def test_what_is_not_implemented_is_said_to_be_so() -> None:
    text = usage.text()
    later = text[text.index("Not in this version") :]
    assert all(name in later for name in NOT_IMPLEMENTED)
    assert all(alias in text for alias in ALIASES.values())


def test_lines_fit_into_100_columns() -> None:
    assert max(map(len, LINES)) <= 100
    assert not any(line != line.rstrip() for line in LINES)


def test_defaults() -> None:
    defaults = {line.split()[0]: line.split()[1] for line in LINES if line.startswith("  PLP_")}
    assert defaults["PLP_CACHE_MAX_SIZE"] == "10GB"
    assert defaults["PLP_NO_CACHE"] == "false"
    assert defaults["PLP_CONTEXT"] == "."
    assert defaults["PLP_START_TIMEOUT"] == "60s"
    assert defaults["PLP_OUTPUTS"] == "archive"
    assert defaults["PLP_TARGET"] == "-"


def test_the_commands_are_named() -> None:
    text = usage.text()
    assert all(word in text for word in ("doctor", "--version", "--help"))
