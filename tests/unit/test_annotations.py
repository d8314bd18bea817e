"""The annotations of an image: which, with what values, and whose value wins."""

from __future__ import annotations

from datetime import UTC, datetime, timedelta, timezone

import pytest
from hypothesis import given
from hypothesis import strategies as st

from plp_builder import settings
from plp_builder.annotations import image_annotations, public_url

NOW = datetime(2024, 5, 6, 7, 8, 9, 987654, UTC)


def made(environ: dict[str, str], now: datetime = NOW) -> dict[str, str]:
    pairs = image_annotations(settings.load(environ), now)
    assert len({pair.key for pair in pairs}) == len(pairs)
    return {pair.key.removeprefix("org.opencontainers.image."): pair.value for pair in pairs}


def test_nothing_given_leaves_only_the_time() -> None:
    assert made({}) == {"created": "2024-05-06T07:08:09Z"}


def test_the_original_contract() -> None:
    assert made({"GIT_REPOSITORY_URL": "https://example.com/a.git", "GIT_SHA": "0123abc"}) == {
        "source": "https://example.com/a.git",
        "revision": "0123abc",
        "created": "2024-05-06T07:08:09Z",
    }


def test_time_is_utc() -> None:
    now = datetime(2024, 1, 1, 1, 30, tzinfo=timezone(timedelta(hours=2)))
    assert made({}, now)["created"] == "2023-12-31T23:30:00Z"


@pytest.mark.parametrize(
    ("epoch", "text"),
    [
        ("0", "1970-01-01T00:00:00Z"),
        ("1700000000", "2023-11-14T22:13:20Z"),
        ("253402300799", "9999-12-31T23:59:59Z"),
    ],
)
def test_source_date_epoch_is_the_time(epoch: str, text: str) -> None:
    assert made({"SOURCE_DATE_EPOCH": epoch})["created"] == text


def test_given_annotations_win_and_keep_their_value() -> None:
    environ = {
        "GIT_SHA": "ours",
        "PLP_ANNOTATIONS": 'org.opencontainers.image.revision=theirs, "x" =\nother=1',
    }
    found = made(environ)
    assert found["revision"] == 'theirs, "x" ='
    assert found["other"] == "1"


@pytest.mark.parametrize(
    ("url", "public"),
    [
        ("https://github.com/a/b.git", "https://github.com/a/b.git"),
        ("https://user:secret@host/a", "https://host/a"),
        ("https://secret@host:8443/a?x=1#f", "https://host:8443/a?x=1#f"),
        ("https://user:se@cret@host/a", "https://host/a"),
        ("https://user:se/cret@host/a", "https://host/a"),
        ("https://user:se?cret@host/a", "https://host/a"),
        ("https://user:se#cret@host/a", "https://host/a"),
        ("https://:secret@host/a", "https://host/a"),
        ("https://user:secret%40@[::1]:80/a", "https://[::1]:80/a"),
        ("https://host:8080/@scope/package", "https://host:8080/@scope/package"),
        ("https://[2001:db8::1]/a@b", "https://[2001:db8::1]/a@b"),
        ("git+https://user:secret@host/a", "git+https://host/a"),
        ("ssh://git@host:22/a/b.git", "ssh://host:22/a/b.git"),
        ("git@host:a/b.git", "git@host:a/b.git"),
        ("user:secret@host:a/b.git", "host:a/b.git"),
        ("user:secret@host/a", "host/a"),
        ("https://host/a?private_token=secret", "https://host/a"),
        ("https://host/a?ref=main&access_token=secret&x=1", "https://host/a?ref=main&x=1"),
        ("https://host/a?X-Amz-Signature=secret", "https://host/a"),
        ("https://host/a?apiKey=secret", "https://host/a"),
        ("https://host/a#access_token=secret", "https://host/a"),
        ("https://host/a?path=/x&version=GBmain", "https://host/a?path=/x&version=GBmain"),
        ("https://host/a?author=me&monkey=1", "https://host/a?author=me&monkey=1"),
        ("  https://host/a  ", "https://host/a"),
        ("https://https://user:secret@host/a", "https://host/a"),
        ("/srv/git/a.git", "/srv/git/a.git"),
        ("", ""),
    ],
)
def test_public_url(url: str, public: str) -> None:
    assert public_url(url) == public


@given(
    user=st.text(st.characters(codec="utf-8", exclude_characters="@/?#\\"), max_size=8),
    password=st.text("abz019@:/?#&=%\\ ", max_size=8),
    rest=st.sampled_from(["/a", "/a?b=c", "", ":80/a", "/a#b"]),
)
def test_no_password_survives(user: str, password: str, rest: str) -> None:
    """Whatever characters a password holds, also those that it should have encoded."""
    marked = f"s3cr3t{password}s3cr3t"
    assert "s3cr3t" not in public_url(f"https://{user}:{marked}@example.com{rest}")
