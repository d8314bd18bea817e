"""Secrets and credentials never get out."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from plp_builder.terminal import redactor

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
