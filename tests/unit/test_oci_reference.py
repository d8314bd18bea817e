"""Image references by the grammar of distribution/reference."""

from __future__ import annotations

import re

import pytest
from hypothesis import given
from hypothesis import strategies as st

from plp_builder.oci.reference import Reference, parse

DIGEST = "sha256:" + "0123456789abcdef" * 4


@pytest.mark.parametrize(
    ("text", "canonical"),
    [
        ("alpine", "docker.io/library/alpine"),
        ("alpine:3.22", "docker.io/library/alpine:3.22"),
        ("moby/buildkit:v0.32.2-rootless", "docker.io/moby/buildkit:v0.32.2-rootless"),
        ("docker.io/alpine", "docker.io/library/alpine"),
        ("index.docker.io/alpine", "docker.io/library/alpine"),
        ("library/alpine", "docker.io/library/alpine"),
        ("localhost/a", "localhost/a"),
        ("localhost:5000/a/b/c:latest", "localhost:5000/a/b/c:latest"),
        ("[2001:db8::1]:5000/a", "[2001:db8::1]:5000/a"),
        ("10.0.0.1/a", "10.0.0.1/a"),
        ("Registry/a", "Registry/a"),
        ("example.com/a_b/c__d/e---f/g.h", "example.com/a_b/c__d/e---f/g.h"),
        (f"example.com/a@{DIGEST}", f"example.com/a@{DIGEST}"),
        (f"example.com/a:t@{DIGEST}", f"example.com/a:t@{DIGEST}"),
        ("a:" + "t" * 128, "docker.io/library/a:" + "t" * 128),
    ],
)
def test_familiar_names_are_completed(text: str, canonical: str) -> None:
    assert str(parse(text)) == canonical


@pytest.mark.parametrize(
    ("text", "sentence"),
    [
        ("", "cannot be empty"),
        ("a" * 64, "image's id"),
        ("Alpine", "lower case"),
        ("example.com/A", "lower case"),
        ("a b", "repository 'a b' is not valid"),
        ("alpine\n", "is not valid"),
        ("alpine:3\n", "the tag '3\\n' is not valid"),
        ("alpine:", "the tag '' is not valid"),
        ("alpine:.t", "the tag '.t' is not valid"),
        ("alpine:" + "t" * 129, "the tag"),
        ("alpine:ä", "the tag"),
        ("-a", "is not valid"),
        ("a..b", "is not valid"),
        ("a___b", "is not valid"),
        ("a/", "is not valid"),
        ("/a", "is not valid"),
        ("a//b", "is not valid"),
        ("example.com/", "is not valid"),
        ("example.com:x/a", "not a host name"),
        ("-example.com/a", "not a host name"),
        ("[::1/a", "not a host name"),
        ("https://example.com/a", "not a host name"),
        ("alpine@sha256:abc", "digest"),
        ("alpine@", "digest"),
        ("alpine@" + DIGEST.upper(), "digest"),
        ("example.com/" + "a" * 256, "longer than 255"),
    ],
)
def test_what_is_no_reference_is_refused_with_a_sentence(text: str, sentence: str) -> None:
    with pytest.raises(ValueError, match=re.escape(sentence)):
        parse(text)


@pytest.mark.parametrize(
    ("text", "familiar"),
    [
        ("docker.io/library/alpine:3", "alpine:3"),
        ("docker.io/a/b:1", "a/b:1"),
        ("docker.io/library/a/b", "library/a/b"),
        ("localhost/library/a", "localhost/library/a"),
    ],
)
def test_the_familiar_form_leaves_out_what_docker_completes(text: str, familiar: str) -> None:
    assert parse(text).familiar == familiar


def test_the_default_tag_is_latest_where_nothing_is_given() -> None:
    assert parse("a").with_default_tag().tag == "latest"
    assert parse("a:1").with_default_tag().tag == "1"
    assert parse(f"a@{DIGEST}").with_default_tag().tag == ""


@given(st.text(alphabet="aZ0.:/_-@[]\n é", max_size=30) | st.text(max_size=30))
def test_a_canonical_reference_means_itself(text: str) -> None:
    """Whatever is accepted reads back as the same from both of its forms."""
    try:
        parsed = parse(text)
    except ValueError:
        return
    assert isinstance(parsed, Reference)
    assert parse(str(parsed)) == parsed
    assert parse(parsed.familiar) == parsed
