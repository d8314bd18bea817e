"""What credential helpers answer, and what becomes of it."""

from __future__ import annotations

import json

import pytest

from plp_builder.errors import CredentialsNotUsable
from plp_builder.process import Completed
from publisher import credential_helper
from publisher.docker_config import Entry

SECRET = "canary-7f3a"


def answering(stdout: object, *, code: int = 0, stderr: bytes = b"") -> credential_helper.RunHelper:
    output = stdout if isinstance(stdout, bytes) else json.dumps(stdout).encode()

    def run(program: str, server: str) -> Completed:
        assert (program, server) == ("docker-credential-pass", "r.example")
        return Completed((program, "get"), code, output, stderr)

    return run


@pytest.mark.parametrize(
    ("answer", "expected"),
    [
        ({"ServerURL": "r.example", "Username": "me", "Secret": SECRET}, Entry("me", SECRET)),
        ({"Username": "me", "Secret": SECRET}, Entry("me", SECRET)),
        ({"Username": "<token>", "Secret": SECRET}, Entry("", "", SECRET)),
        ({"Username": "", "Secret": ""}, None),
        ({"Username": "me", "Secret": ""}, None),
    ],
)
def test_answers(answer: object, expected: Entry | None) -> None:
    assert credential_helper.ask("pass", "r.example", answering(answer)) == expected


@pytest.mark.parametrize("said", [b"credentials not found in native keychain\n"])
def test_a_helper_without_credentials_has_none(said: bytes) -> None:
    assert credential_helper.ask("pass", "r.example", answering(said, code=1)) is None


@pytest.mark.parametrize(
    ("answer", "why"),
    [
        (SECRET.encode(), "no JSON"),
        (b"", "no JSON"),
        (b"[" * 100_000, "no JSON"),
        (b"\xff", "no JSON"),
        ([SECRET], "no object with"),
        ({"Username": "me", "Secret": 1}, "no object with"),
        ({"Username": "me"}, "no object with"),
        ({"Username": "", "Secret": SECRET}, "no user name"),
        ({"Username": "a:b", "Secret": SECRET}, "colon"),
        ({"Username": "me", "Secret": f"{SECRET}\n"}, "line break"),
        ({"Username": "<token>", "Secret": f"{SECRET}\n"}, "line break"),
        (b'{"Username":"me","Secret":"' + b"x" * (1 << 20), "too long"),
    ],
)
def test_unusable_answers_are_not_repeated(answer: object, why: str) -> None:
    with pytest.raises(CredentialsNotUsable) as caught:
        credential_helper.ask("pass", "r.example", answering(answer, stderr=b""))
    text = " ".join((caught.value.what, *caught.value.why))
    assert "docker-credential-pass" in text
    assert why in text
    assert SECRET not in text


@pytest.mark.parametrize(
    ("stdout", "code"),
    [
        (f"error getting token {SECRET}".encode(), 3),
        (SECRET.encode(), 1),
        (json.dumps({"secret": SECRET}).encode(), 1),
        (json.dumps({"Username": "me", "Secret": SECRET}).encode(), -9),
        (b"a warning\n" + json.dumps({"Username": "me", "Secret": SECRET}).encode(), 0),
    ],
)
def test_nothing_that_a_helper_prints_is_shown(stdout: bytes, code: int) -> None:
    stderr = f"+ T={SECRET}".encode()
    with pytest.raises(CredentialsNotUsable) as caught:
        credential_helper.ask("pass", "r.example", answering(stdout, code=code, stderr=stderr))
    told = caught.value
    assert SECRET not in " ".join((told.what, *told.why, told.hint))
    assert "may hold a secret and is not shown" in told.why[-1]
    assert "printf %s REGISTRY | docker-credential-pass get" in told.hint
    ending = {0: "no usable answer", -9: "(signal 9)"}.get(code, f"(exit code {code})")
    assert told.what.endswith(ending)


@pytest.mark.parametrize(
    "name", ["", "../evil", "a b", "a/b", "a\n", "a;rm", "$(id)", "ü", "x" * 65, "\x1b[2J"]
)
def test_names_that_are_no_programs_are_not_run(name: str) -> None:
    def run(program: str, server: str) -> Completed:
        raise AssertionError((program, server))

    with pytest.raises(CredentialsNotUsable) as caught:
        credential_helper.ask(name, "r.example", run)
    assert "\x1b" not in caught.value.what
    assert "\n" not in caught.value.what
