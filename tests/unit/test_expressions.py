"""The tests' runner of actions evaluates expressions as GitHub documents them."""

from __future__ import annotations

import pytest

from tests.support.actions import read_outputs
from tests.support.expressions import evaluate, filled

CONTEXTS = {
    "github": {"ref_name": "main", "event": {"pull_request": {"number": 7}}, "sha": "abc"},
    "inputs": {"empty": "", "build-path": "/out", "on": "true"},
}


@pytest.mark.parametrize(
    ("text", "value"),
    [
        ("github.ref_name", "main"),
        ("inputs.build-path", "/out"),
        ("github.event.absent.number", None),
        ("!github.event.pull_request", False),
        ("!github.event.absent && 'yes' || ''", "yes"),
        ("github.event.pull_request && 'a' || 'b'", "a"),
        ("inputs.empty || github.sha", "abc"),
        ("github.ref_name == 'MAIN'", True),
        ("github.ref_name != 'main'", False),
        ("github.event.absent == 'main'", False),
        ("inputs.on == 'true' || (inputs.on == 'auto' && github.sha == 'x')", True),
        ("'it''s'", "it's"),
        ("true && null", None),
    ],
)
def test_values(text: str, value: object) -> None:
    assert evaluate(text, CONTEXTS) == value


@pytest.mark.parametrize(
    "text",
    ["secrets.a", "format('x')", "github.sha github.sha", "(github.sha", "github.sha ==", ""],
)
def test_what_is_not_known_is_refused(text: str) -> None:
    with pytest.raises(ValueError, match=r"\w"):
        evaluate(text, CONTEXTS)


def test_places_are_filled() -> None:
    text = "pr-${{ github.event.pull_request.number }}${{ github.event.absent }}:${{ !inputs.on }}"
    assert filled(text, CONTEXTS) == "pr-7:false"
    with pytest.raises(ValueError, match="no string"):
        filled("${{ github.event }}", CONTEXTS)


def test_outputs_are_read_in_both_forms() -> None:
    text = "digest=sha256:1=2\ntags<<end-1\na=b\nc<<d\nend-1\nlast=\n"
    assert read_outputs(text) == {"digest": "sha256:1=2", "tags": "a=b\nc<<d", "last": ""}


@pytest.mark.parametrize("text", ["a<<end\nb\n", "nothing\n"])
def test_outputs_that_github_refuses(text: str) -> None:
    with pytest.raises(ValueError, match=r"\w"):
        read_outputs(text)
