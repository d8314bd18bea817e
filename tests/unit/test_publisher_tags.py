"""Which tags an image gets: the rules as a table, and what holds for every input."""

from __future__ import annotations

from typing import NamedTuple

import pytest
from hypothesis import given
from hypothesis import strategies as st

from plp_builder.errors import SettingInvalid
from plp_builder.oci.reference import is_tag
from publisher.settings import load
from publisher.tags import LATEST, Plan, plan

SHA = "0123456789abcdef0123456789abcdef01234567"
SHORT = "0123456"
VARIABLES = {
    "commit": "PLP_COMMIT_SHA",
    "branch": "PLP_BRANCH",
    "tag": "PLP_TAG",
    "pr": "PLP_PULL_REQUEST_NUMBER",
    "mr": "PLP_MERGE_REQUEST_NUMBER",
    "default": "PLP_IS_DEFAULT_BRANCH",
    "extra": "PLP_EXTRA_TAGS",
}


def planned(**given: str) -> Plan:
    """The plan for the variables that the short names stand for."""
    environ = {VARIABLES[name]: text for name, text in given.items()}
    return plan(load({"PLP_IMAGE_REPOSITORY": "registry.example/app", **environ}))


class Row(NamedTuple):
    """Tags in the order of pushing: immutable, then ``|``, then moving, ``latest`` last."""

    given: dict[str, str]
    tags: str


ROWS = (
    # commit alone
    Row({"commit": SHA}, f"{SHORT} {SHA} |"),
    Row({"commit": SHORT}, f"{SHORT} |"),
    Row({"commit": SHA.upper()}, f"{SHORT} {SHA} |"),
    Row({"commit": "f" * 64}, f"{'f' * 7} {'f' * 64} |"),
    Row({"commit": SHA, "default": "true"}, f"{SHORT} {SHA} |"),
    # branches
    Row({"branch": "main", "commit": SHA}, f"main-{SHORT} | main"),
    Row({"branch": "main"}, "| main"),
    Row({"branch": "main", "commit": SHA, "default": "true"}, f"main-{SHORT} | main latest"),
    Row({"branch": "main", "default": "yes"}, "| main latest"),
    Row({"branch": "refs/heads/main", "commit": SHA}, f"main-{SHORT} | main"),
    Row({"branch": "feature/login", "commit": SHA}, f"feature-login-{SHORT} | feature-login"),
    Row({"branch": "Feature/JIRA-12", "commit": SHA}, f"Feature-JIRA-12-{SHORT} | Feature-JIRA-12"),
    Row({"branch": "release/1.x"}, "| release-1.x"),
    Row({"branch": "a//b c"}, "| a--b-c"),
    Row({"branch": "dependabot/npm_and_yarn/a@1"}, "| dependabot-npm_and_yarn-a-1"),
    Row({"branch": "-.-x"}, "| x"),
    Row({"branch": "_x"}, "| _x"),
    Row({"branch": "grün"}, "| gr-n"),
    Row({"branch": "日本", "commit": SHA}, f"{SHORT} {SHA} |"),
    Row({"branch": "日本", "commit": SHA, "default": "1"}, f"{SHORT} {SHA} | latest"),
    Row({"branch": "日本", "default": "true"}, "| latest"),
    Row({"branch": "日本-x", "commit": SHA}, f"x-{SHORT} | x"),
    Row({"branch": "x" * 300, "commit": SHA}, f"{'x' * 120}-{SHORT} | {'x' * 128}"),
    Row({"branch": "x" * 125, "commit": SHA}, f"{'x' * 120}-{SHORT} | {'x' * 125}"),
    Row({"branch": "latest", "commit": SHA}, f"latest-{SHORT} | latest"),
    Row({"branch": "v1.2.3"}, "| v1.2.3"),
    # pull requests
    Row({"pr": "7", "commit": SHA}, f"pr-7-{SHORT} | pr-7"),
    Row({"pr": "7"}, "| pr-7"),
    Row({"pr": "007"}, "| pr-7"),
    Row({"mr": "12", "commit": SHA}, f"pr-12-{SHORT} | pr-12"),
    Row({"pr": "false", "mr": "12"}, "| pr-12"),
    Row({"pr": "7", "branch": "main", "default": "true"}, "| pr-7"),
    Row({"pr": "7", "branch": "refs/pull/7/merge", "commit": SHA}, f"pr-7-{SHORT} | pr-7"),
    Row({"pr": "7", "tag": "v1.2.3"}, "| pr-7"),
    Row({"pr": "false", "branch": "main", "commit": SHA}, f"main-{SHORT} | main"),
    # version tags
    Row({"tag": "v1.2.3"}, "1.2.3 | 1.2 1"),
    Row({"tag": "1.2.3"}, "1.2.3 | 1.2 1"),
    Row({"tag": "refs/tags/v10.20.30", "commit": SHA}, "10.20.30 | 10.20 10"),
    Row({"tag": "v0.1.0"}, "0.1.0 | 0.1 0"),
    Row({"tag": "v1.2.3-rc.1"}, "1.2.3-rc.1 |"),
    Row({"tag": "v1.2.3-0.a-b.x"}, "1.2.3-0.a-b.x |"),
    Row({"tag": "v1.2.3+build.5"}, "1.2.3-build.5 | 1.2 1"),
    Row({"tag": "v1.2.3-rc.1+b5"}, "1.2.3-rc.1-b5 |"),
    Row({"tag": "v1.2.3", "default": "true"}, "1.2.3 | 1.2 1"),
    # other tags
    Row({"tag": "v01.2.3"}, "v01.2.3 |"),
    Row({"tag": "v1.2.3-01"}, "v1.2.3-01 |"),
    Row({"tag": "v1.2"}, "v1.2 |"),
    Row({"tag": "V1.2.3"}, "V1.2.3 |"),
    Row({"tag": "v1.2.3.4"}, "v1.2.3.4 |"),
    Row({"tag": "nightly/2024-01-01"}, "nightly-2024-01-01 |"),
    Row({"tag": "latest"}, "| latest"),
    Row({"tag": "日本", "commit": SHA}, f"{SHORT} {SHA} |"),
    # several at once
    Row({"tag": "v1.2.3", "branch": "日本", "commit": SHA}, "1.2.3 | 1.2 1"),
    Row({"tag": "日本", "branch": "main", "commit": SHA}, f"main-{SHORT} | main"),
    Row(
        {"tag": "v1.2.3", "branch": "main", "commit": SHA, "default": "true"},
        f"1.2.3 main-{SHORT} | 1.2 1 main latest",
    ),
    Row({"tag": "v1.2.3", "branch": "1.2.3"}, "1.2.3 | 1.2 1"),
    Row({"tag": "v1.2.3", "branch": "1.2"}, "1.2.3 | 1.2 1"),
    # extra tags
    Row({"commit": SHA, "extra": "stable, edge"}, f"{SHORT} {SHA} | stable edge"),
    Row({"commit": SHA, "extra": "stable\r\n\n edge \n"}, f"{SHORT} {SHA} | stable edge"),
    Row({"commit": SHA, "extra": f"latest,x,{SHORT}"}, f"{SHORT} {SHA} | x latest"),
    Row({"branch": "x", "extra": "a/b, a-b, -"}, "| x a-b"),
    Row({"pr": "7", "commit": SHA, "extra": "latest,main,stable"}, f"pr-7-{SHORT} | pr-7"),
    Row({"branch": "日本", "extra": "stable"}, "| stable"),
)  # fmt: skip


@pytest.mark.parametrize("row", ROWS, ids=lambda row: f"{row.given} -> {row.tags}"[:150])
def test_rules(row: Row) -> None:
    tags = planned(**row.given).tags
    immutable = [tag.name for tag in tags if not tag.moving]
    moving = [tag.name for tag in tags if tag.moving]
    assert " ".join([*immutable, "|", *moving]) == row.tags
    assert [tag.name for tag in tags] == immutable + moving


def withheld(*names: str) -> list[str]:
    return [
        f"{name} makes no tag: this is the pull request 7, which must not move what others rely on"
        for name in names
    ]


def crossing(variable: str, name: str, owner: str) -> list[str]:
    return [
        f'{variable} "{name}" makes the tag {name}, as {owner} does elsewhere: '
        "it will show what was published last"
    ]


@pytest.mark.parametrize(
    ("given", "notes", "warnings"),
    [
        ({"branch": "main", "commit": SHA, "default": "1", "extra": "stable"}, [], []),
        ({"tag": "v1.2.3"}, [], []),
        (
            {"branch": "a/b", "commit": SHA},
            ['PLP_BRANCH "a/b" makes the tag a-b: a tag cannot have all of its characters'],
            [],
        ),
        (
            {"branch": "日本", "commit": SHA},
            [],
            ['PLP_BRANCH "日本" has no character that a tag can have: it makes no tag'],
        ),
        (
            {"branch": "x" * 125, "commit": SHA},
            [
                f'PLP_BRANCH "{"x" * 79}…" is shortened, so that -{SHORT} fits behind it: '
                f"{'x' * 120}-{SHORT}"
            ],
            [],
        ),
        (
            {"branch": "x" * 129, "commit": SHA},
            [f'PLP_BRANCH "{"x" * 79}…" is longer than the 128 characters of a tag: shortened'],
            [],
        ),
        (
            {"tag": "v1.2.3", "branch": "1.2.3"},
            [],
            ["PLP_BRANCH makes the tag 1.2.3, and so does PLP_TAG: it is one tag"],
        ),
        (
            {"branch": "main", "default": "1", "extra": "latest"},
            [],
            [
                "PLP_EXTRA_TAGS makes the tag latest, and so does PLP_IS_DEFAULT_BRANCH: "
                "it is one tag"
            ],
        ),
        ({"branch": "x", "extra": "a,b,a"}, [], []),
        (
            {"branch": "x", "extra": "a_b,a b,a-b"},
            ['PLP_EXTRA_TAGS "a b" makes the tag a-b: a tag cannot have all of its characters'],
            ["PLP_EXTRA_TAGS makes the tag a-b more than once: it is one tag"],
        ),
        (
            {"commit": SHA, "default": "true"},
            [],
            ["PLP_IS_DEFAULT_BRANCH makes no tag: PLP_BRANCH is not set"],
        ),
        # Names that another rule makes of something else.
        ({"branch": "latest"}, [], crossing("PLP_BRANCH", "latest", "the default branch")),
        (
            {"branch": "latest", "commit": SHA, "extra": "1.2"},
            [],
            crossing("PLP_BRANCH", "latest", "the default branch"),
        ),
        ({"tag": "latest"}, [], crossing("PLP_TAG", "latest", "the default branch")),
        ({"branch": "1.2.3"}, [], crossing("PLP_BRANCH", "1.2.3", "a version")),
        ({"branch": "1.2.3-rc.1"}, [], crossing("PLP_BRANCH", "1.2.3-rc.1", "a version")),
        ({"branch": "1.2"}, [], crossing("PLP_BRANCH", "1.2", "a version")),
        ({"tag": "1"}, [], crossing("PLP_TAG", "1", "a version")),
        ({"branch": "pr-5", "commit": SHA}, [], crossing("PLP_BRANCH", "pr-5", "a pull request")),
        ({"tag": "pr-5"}, [], crossing("PLP_TAG", "pr-5", "a pull request")),
        ({"branch": "v1.2.3"}, [], []),
        ({"branch": "release-1.2"}, [], []),
        (
            {"tag": "v1.2.3+b"},
            ['PLP_TAG "1.2.3+b" makes the tag 1.2.3-b: a tag cannot have all of its characters'],
            [],
        ),
        # What a pull request does not get is told, and nothing where it lacks nothing.
        ({"pr": "7", "default": "true"}, [], []),
        ({"pr": "7", "branch": "7/merge"}, [], []),
        ({"pr": "7", "branch": "refs/pull/7/merge"}, [], []),
        ({"pr": "7", "branch": "refs/merge-requests/7/head"}, [], []),
        ({"pr": "7", "branch": "17/merge"}, [], withheld("PLP_BRANCH")),
        ({"pr": "7", "branch": "fix/7/merge"}, [], withheld("PLP_BRANCH")),
        (
            {"pr": "7", "branch": "main", "default": "true", "tag": "v1", "extra": "latest"},
            [],
            withheld("PLP_BRANCH", "PLP_TAG", "PLP_IS_DEFAULT_BRANCH", "PLP_EXTRA_TAGS"),
        ),
    ],
)
def test_what_is_not_as_given_is_told(
    given: dict[str, str], notes: list[str], warnings: list[str]
) -> None:
    found = planned(**given)
    assert list(found.notes) == notes
    assert list(found.warnings) == warnings


def test_what_tags_come_from_is_named() -> None:
    tags = planned(tag="v1.2.3", branch="1.2", commit=SHA, extra="1").tags
    assert {tag.name: tag.origins for tag in tags} == {
        "1.2.3": ("PLP_TAG",),
        f"1.2-{SHORT}": ("PLP_BRANCH",),
        "1.2": ("PLP_TAG", "PLP_BRANCH"),
        "1": ("PLP_TAG", "PLP_EXTRA_TAGS"),
    }


def test_nothing_legal_is_an_error_that_names_it() -> None:
    with pytest.raises(SettingInvalid) as caught:
        planned(branch="日本", extra="ü")
    assert caught.value.why == (
        'PLP_BRANCH "日本" has no character that a tag can have: it makes no tag',
        'PLP_EXTRA_TAGS "ü" has no character that a tag can have: it makes no tag',
    )
    assert caught.value.exit_code == 1


@pytest.mark.parametrize("with_commit", [False, True])
def test_no_text_is_obeyed_by_a_terminal(with_commit: bool) -> None:
    commit = {"commit": SHA} if with_commit else {}
    found = planned(branch="a\x1b[31m\nb\u202e", **commit)
    assert found.notes
    assert all(note.isprintable() for note in found.notes)
    assert found.tags[-1].name == "a--31m-b-"


# What environments can hold: no NUL; surrogates stand for bytes that are no UTF-8.
TEXT = st.text(st.characters(exclude_characters="\0"), max_size=300) | st.from_regex(
    r"v?[0-9]{1,2}\.[0-9]{1,2}\.[0-9]{1,2}([-+][0-9a-z.+-]{0,140})?", fullmatch=True
)
GIVEN = st.fixed_dictionaries(
    {},
    optional={
        "branch": TEXT,
        "tag": TEXT,
        "commit": st.from_regex(r"[0-9a-f]{7,64}", fullmatch=True),
        "pr": st.integers(1, 10**12).map(str),
        "default": st.sampled_from(["true", "false"]),
        "extra": TEXT,
    },
)


@given(GIVEN)
def test_whatever_is_given(given: dict[str, str]) -> None:
    """Legal, each once, immutable before moving before latest, the same every time."""
    try:
        found = planned(**given)
    except SettingInvalid as failure:
        assert failure.exit_code in {1, 4}  # noqa: PT017 - what is refused is not the question
        return
    names = [tag.name for tag in found.tags]
    assert names
    assert all(is_tag(name) for name in names)
    assert len(set(names)) == len(names)
    order = [(tag.name == LATEST, tag.moving) for tag in found.tags]
    assert order == sorted(order)
    assert all(tag.moving for tag in found.tags if tag.name == LATEST)
    assert found == planned(**dict(reversed(given.items())))
    assert all(note.isprintable() for note in (*found.notes, *found.warnings))
    if "pr" in given:
        n = given["pr"]
        assert {o for tag in found.tags for o in tag.origins} == {"PLP_PULL_REQUEST_NUMBER"}
        assert all(name == f"pr-{n}" or name.startswith(f"pr-{n}-") for name in names)
