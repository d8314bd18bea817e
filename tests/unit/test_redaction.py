"""Secrets and credentials never get out."""

from __future__ import annotations

import base64
import html
import json
import re
from collections.abc import Iterator
from urllib.parse import quote, quote_plus

import pytest
from hypothesis import given
from hypothesis import strategies as st

from plp_builder.redaction import forms, redactor
from plp_builder.terminal import printable

LETTERS = st.characters(exclude_characters="\x00", codec="utf-8")


@pytest.mark.parametrize(
    ("secrets", "text", "shown"),
    [
        (("hunter2",), "it is hunter2!", "it is <hidden>!"),
        (("abc", "abcdef"), "abcdef abc", "<hidden> <hidden>"),
        (("a.c",), "abc a.c", "abc <hidden>"),
        (("token\n",), "Authorization: token", "Authorization: <hidden>"),
        (("-----BEGIN-----\nMIIEvQ==x\nab\n",), "line MIIEvQ==x and ab", "line <hidden> and ab"),
        (("ab", "", " "), "ab a b", "ab a b"),
        ((), "nothing", "nothing"),
    ],
)
def test_secrets(secrets: tuple[str, ...], text: str, shown: str) -> None:
    assert redactor(secrets)(text) == shown


@pytest.mark.parametrize(
    ("text", "shown"),
    [
        ("https://user:pass@host/path", "https://<hidden>@host/path"),
        ("https://token@host", "https://<hidden>@host"),
        ("https://user:p@ss@host/x", "https://<hidden>@host/x"),
        ("two http://a:b@c/ and ssh://d@e/", "two http://<hidden>@c/ and ssh://<hidden>@e/"),
        ("https://host/path@1 https://host?q=a@b", "https://host/path@1 https://host?q=a@b"),
        ("mail@example.com", "mail@example.com"),
    ],
)
def test_user_info_of_urls(text: str, shown: str) -> None:
    assert redactor()(text) == shown


@given(
    st.lists(st.text(LETTERS, min_size=3, max_size=12), min_size=1, max_size=4),
    st.text(LETTERS, max_size=20),
    st.data(),
)
def test_no_secret_is_ever_left(secrets: list[str], around: str, data: st.DataObject) -> None:
    chosen = data.draw(st.sampled_from(secrets))
    shown = redactor(secrets)(f"{around}\n{chosen}\n{around}")
    rest = shown.replace("<hidden>", "\x00")
    assert all(secret not in rest for secret in secrets)


AWKWARD = 'c4n4ry"Pa55\\w0rd<&>/ü +'


def echoed(secret: str) -> Iterator[str]:
    """What registries, proxies and Go make of a secret that they repeat."""
    go = json.dumps(secret, ensure_ascii=False)[1:-1]
    yield from (secret, go, json.dumps(go)[1:-1], json.dumps(json.dumps(json.dumps(secret))))
    yield (
        go.replace("<", "\\u003c")
        .replace("&", "\\u0026")
        .replace(">", "\\u003e")
        .replace("ü", "\\u00fc")
    )
    yield from (
        quote(secret),
        quote(secret, ""),
        quote_plus(secret),
        re.sub("%..", lambda code: code[0].lower(), quote(secret, "")),
    )
    yield from (html.escape(secret), html.escape(secret).replace("&quot;", "&#34;"))
    for before in ("", "a", "ab", "ci:"):
        for encode in (base64.b64encode, base64.urlsafe_b64encode):
            yield encode(f"{before}{secret}".encode()).decode()
            yield encode(f"{before}{secret} and more".encode()).decode()
    yield from (f"{secret[:5]}{mark}{secret[5:]}" for mark in ("\u200e", "\x1b[0m", "\u200b", "\0"))
    marks = (r"\u200e", r"\\u200E", r"\x1b[0m", r"\U0000200b")
    yield from (f"{secret[:5]}{mark}{secret[5:]}" for mark in marks)
    yield f"<hidden>{secret[:5]}\u202e{secret[5:]}"


@pytest.mark.parametrize("form", list(echoed(AWKWARD)))
def test_every_form_of_a_secret(form: str) -> None:
    shown = redactor([AWKWARD])(f"you said\n{form}, no?\n\tbye")
    assert shown.startswith("you said\n")
    assert shown.endswith("no?\n\tbye")
    rest = printable(shown.split("\n")[1]).replace("\u200b", "")
    assert "<hidden>" in rest
    for part in ("c4n4ry", "w0rd", base64.b64encode(b"c4n4ry").decode()):
        assert part not in rest


def test_what_shows_no_secret_stays_as_it_is() -> None:
    text = "\\u200e \\n \\x1b[0m\\Uffffffff \\\n\x1b[31mred\x1b[0m\tand\u200e\n\n of\0 <hidden>\x7f"
    assert redactor([AWKWARD])(text) == text


def test_user_info_that_shows_when_the_invisible_has_gone() -> None:
    assert redactor()("https:/\u200e/me:pw@host/") == "https://<hidden>@host/"


def test_forms_of_large_secrets_are_few() -> None:
    large = "\n".join(f"line {number}: {number:032x}" for number in range(2000))
    assert len(forms(large)) < 2100
    assert forms("ab") == frozenset()


def test_a_long_run_of_backslashes_takes_no_time() -> None:
    text = "\\" * 200_000
    assert redactor([AWKWARD])(text) == text
