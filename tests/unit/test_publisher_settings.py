"""Environment in, the publisher's settings out: what is accepted, refused, missing, hidden."""

from __future__ import annotations

from base64 import b64encode
from collections.abc import Mapping
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from plp_builder import settings as builder
from plp_builder.errors import SettingInvalid, VariableMissing
from plp_builder.syntax import names as builder_names
from publisher import usage
from publisher.names import MEANT, NAMES, OF_BUILDER
from publisher.settings import VARIABLES, load, load_usable, secret_values, unknown_variables

SHA = "0123456789abcdef0123456789abcdef01234567"
ENOUGH = {"PLP_IMAGE_REPOSITORY": "registry.example/team/app", "PLP_COMMIT_SHA": SHA}
CANARY = "hunter2-Äß"


def problems(environ: Mapping[str, str]) -> tuple[str, ...]:
    """The lines of the failure; all that is required is set, unless ``environ`` says otherwise."""
    with pytest.raises(SettingInvalid) as caught:
        load({**ENOUGH, **environ})
    assert caught.value.exit_code == (4 if isinstance(caught.value, VariableMissing) else 1)
    return caught.value.why


def test_the_contract_s_example() -> None:
    """Repository, commit, user and password: neither branch nor tag."""
    found = load({**ENOUGH, "PLP_REGISTRY_USERNAME": "me", "PLP_REGISTRY_PASSWORD": "secret"})
    assert found.image_repository == "registry.example/team/app"
    assert found.commit_sha == SHA
    assert (found.registry_username, found.registry_password) == ("me", "secret")
    assert found.artifact_path == Path("/artifacts/container-image.tar")
    assert (found.push_retries, found.timeout, found.stall_timeout) == (5, None, 300.0)
    assert not found.dry_run
    assert not found.registry_insecure


def test_empty_is_not_set() -> None:
    assert load({**dict.fromkeys(VARIABLES, ""), **ENOUGH}) == load(ENOUGH)


GIVEN = {
    "PLP_IMAGE_REPOSITORY": "other.example/app",
    "PLP_COMMIT_SHA": "abcdef0",
    "PLP_PULL_REQUEST_NUMBER": "7",
    "PLP_PUSH_RETRIES": "7",
    "PLP_TIMEOUT": "7m",
    "PLP_STALL_TIMEOUT": "7s",
    "PLP_LOG_FORMAT": "json",
    "PLP_LOG_LEVEL": "error",
    "PLP_IS_DEFAULT_BRANCH": "true",
    "PLP_DRY_RUN": "1",
    "PLP_DEBUG": "on",
    "PLP_REGISTRY_INSECURE": "yes",
}
BESIDE = {
    "PLP_REGISTRY_USERNAME": {"PLP_REGISTRY_TOKEN": "x"},
    "PLP_REGISTRY_PASSWORD": {"PLP_REGISTRY_USERNAME": "x"},
}


@pytest.mark.parametrize("name", VARIABLES)
def test_every_variable_is_read(name: str) -> None:
    field = VARIABLES[name]
    found = load({**ENOUGH, **BESIDE.get(name, {}), name: GIVEN.get(name, "/some/text")})
    assert getattr(found, field) != getattr(load(ENOUGH), field)


def test_what_is_missing_is_named_at_once() -> None:
    with pytest.raises(VariableMissing) as caught:
        load({"PLP_REGISTRY_PASSWORD": "x"})
    assert caught.value.exit_code == 4
    assert caught.value.what == "3 required variables are not set"
    assert caught.value.why == (
        "PLP_IMAGE_REPOSITORY is not set: where to push, as registry/name",
        "none of PLP_COMMIT_SHA, PLP_BRANCH, PLP_TAG and PLP_PULL_REQUEST_NUMBER is set: "
        "the tags come from them",
        "PLP_REGISTRY_USERNAME is not set, but PLP_REGISTRY_PASSWORD is",
    )


@pytest.mark.parametrize(
    ("environ", "named"),
    [
        ({"PLP_IMAGE_REPOSITORY": ""}, "PLP_IMAGE_REPOSITORY"),
        ({"PLP_IMAGE_REPOSITORY": " \n"}, "PLP_IMAGE_REPOSITORY"),
        ({"PLP_COMMIT_SHA": ""}, "PLP_COMMIT_SHA"),
        ({"PLP_COMMIT_SHA": "", "PLP_EXTRA_TAGS": "x"}, "PLP_COMMIT_SHA"),
        ({"PLP_COMMIT_SHA": "", "PLP_IS_DEFAULT_BRANCH": "1"}, "PLP_COMMIT_SHA"),
        ({"PLP_COMMIT_SHA": "", "PLP_PULL_REQUEST_NUMBER": "false"}, "PLP_COMMIT_SHA"),
        ({"PLP_COMMIT_SHA": "", "PLP_BRANCH": " "}, "PLP_COMMIT_SHA"),
        ({"PLP_REGISTRY_USERNAME": "x"}, "PLP_REGISTRY_TOKEN"),
        ({"PLP_REGISTRY_PASSWORD": "x"}, "PLP_REGISTRY_USERNAME"),
    ],
)
def test_what_is_missing(environ: dict[str, str], named: str) -> None:
    with pytest.raises(VariableMissing) as caught:
        load({**ENOUGH, **environ})
    (line,) = caught.value.why
    assert named in line
    assert caught.value.what == "a required variable is not set"


def test_what_cannot_be_used_is_told_beside_what_is_missing() -> None:
    lines = problems({"PLP_IMAGE_REPOSITORY": "", "PLP_COMMIT_SHA": "xyz", "PLP_TIMEOUT": "soon"})
    assert [line.split()[0].rstrip(":") for line in lines] == [
        "PLP_IMAGE_REPOSITORY",
        "PLP_COMMIT_SHA",
        "PLP_TIMEOUT",
    ]


def test_unknown_variables_are_told_beside_what_is_missing_or_wrong() -> None:
    misspelt = {"PLP_IMAGE_REPO": "r.example/app", "PLP_CACHE_PATH": "/cache"}
    question = "PLP_IMAGE_REPO is unknown; did you mean PLP_IMAGE_REPOSITORY?"
    missing = problems({**misspelt, "PLP_IMAGE_REPOSITORY": ""})
    assert missing[0].startswith("PLP_IMAGE_REPOSITORY is not set")
    assert missing[1:] == (question,)
    wrong = problems({**misspelt, "PLP_TIMEOUT": "soon"})
    assert wrong[0].startswith("PLP_TIMEOUT")
    assert wrong[1:] == (question,)


def test_the_builders_name_of_the_commit_is_known() -> None:
    (told,) = problems({"PLP_COMMIT_SHA": "", "GIT_SHA": SHA})
    assert told.endswith("the tags come from them (GIT_SHA is for the builder alone)")
    (told,) = problems({"PLP_COMMIT_SHA": ""})
    assert "GIT_SHA" not in told


def test_what_can_be_used_beside_what_is_missing() -> None:
    found = load_usable({"PLP_RESULT_FILE": "/r.json", "PLP_TIMEOUT": "soon"})
    assert found.settings.result_file == Path("/r.json")
    assert found.bad == {"timeout"}
    assert isinstance(found.failure, VariableMissing)
    assert load_usable(ENOUGH).failure is None


@pytest.mark.parametrize(
    "environ",
    [
        {"PLP_BRANCH": "main"},
        {"PLP_TAG": "v1"},
        {"PLP_PULL_REQUEST_NUMBER": "1"},
        {"PLP_MERGE_REQUEST_NUMBER": "1"},
        {"PLP_COMMIT_SHA": SHA, "PLP_REGISTRY_TOKEN": "x"},
        {"PLP_COMMIT_SHA": SHA, "PLP_REGISTRY_TOKEN": "x", "PLP_REGISTRY_USERNAME": "x"},
    ],
)
def test_what_is_enough(environ: dict[str, str]) -> None:
    load({"PLP_IMAGE_REPOSITORY": "r.example/a", **environ})


@pytest.mark.parametrize(
    ("text", "repository"),
    [
        ("registry.example/app", "registry.example/app"),
        (" registry.example:5000/a/b/c\n", "registry.example:5000/a/b/c"),
        ("localhost/app", "localhost/app"),
        ("127.0.0.1:5000/app", "127.0.0.1:5000/app"),
        ("[::1]:5000/app", "[::1]:5000/app"),
        ("me/app", "docker.io/me/app"),
        ("app", "docker.io/library/app"),
        ("index.docker.io/me/app", "docker.io/me/app"),
    ],
)
def test_repositories(text: str, repository: str) -> None:
    assert load({**ENOUGH, "PLP_IMAGE_REPOSITORY": text}).image_repository == repository


@pytest.mark.parametrize(
    ("text", "said"),
    [
        ("https://ghcr.io/me/app", "has a scheme; use ghcr.io/me/app"),
        ("docker://ghcr.io/me/app", "has a scheme; use ghcr.io/me/app"),
        ("ghcr.io/me/app:1", "has a tag; use ghcr.io/me/app"),
        ("localhost:5000/app:1", "has a tag; use localhost:5000/app"),
        (f"app@sha256:{'a' * 64}", "has a digest; use app"),
        (f"me/app:1@sha256:{'a' * 64}", "has a tag and a digest; use me/app"),
        ("ghcr.io/Me/App", "has upper-case letters; use ghcr.io/me/app"),
        ("Me/app", "has upper-case letters; use me/app"),
        ("ghcr.io/me/app/", "has a slash at its end; use ghcr.io/me/app"),
        ("https://GHCR.io/me/app:1/", "has a scheme and a slash at its end and a tag and"),
        ("localhost:5000", 'is a registry alone; add a name: "localhost:5000/NAME"'),
        ("https://ghcr.io/", 'is a registry alone; add a name: "ghcr.io/NAME"'),
        ("ghcr.io/", "is a registry alone"),
        ("ghcr.io//app", "is no repository"),
        ("ghcr.io/me/a pp", "is no repository"),
        ("ghcr.io/" + "x" * 300, "longer than 255"),
        ("ghcr.io/ä", "is no repository"),
        ("/", "is no repository"),
        (":", "is no repository"),
    ],
)
def test_what_is_no_repository(text: str, said: str) -> None:
    (line,) = problems({"PLP_IMAGE_REPOSITORY": text})
    assert line.startswith("PLP_IMAGE_REPOSITORY: ")
    assert said in line
    assert line.isprintable()


@pytest.mark.parametrize(
    ("name", "text", "value"),
    [
        ("PLP_COMMIT_SHA", " ABCDEF0\n", "abcdef0"),
        ("PLP_COMMIT_SHA", "a" * 64, "a" * 64),
        ("PLP_BRANCH", "refs/heads/feature/x", "feature/x"),
        ("PLP_TAG", "refs/tags/v1.2.3", "v1.2.3"),
        ("PLP_PULL_REQUEST_NUMBER", " 12 ", 12),
        ("PLP_PULL_REQUEST_NUMBER", "False", None),
        ("PLP_MERGE_REQUEST_NUMBER", "12", 12),
        ("PLP_EXTRA_TAGS", "a, b\n\nc\r\na", ("a", "b", "c")),
        ("PLP_PUSH_RETRIES", "0", 0),
        ("PLP_REGISTRY_TOKEN", "tok en\r\n", "tok en"),
        ("GITHUB_OUTPUT", "/github/output", Path("/github/output")),
        ("DOCKER_CONFIG", "/kaniko/.docker", Path("/kaniko/.docker")),
    ],
)
def test_values(name: str, text: str, value: object) -> None:
    environ = {**ENOUGH, name: text}
    field = VARIABLES.get(name, "pull_request_number")
    assert getattr(load(environ), field) == value


@pytest.mark.parametrize(
    ("environ", "said"),
    [
        ({"PLP_COMMIT_SHA": "abcdef"}, "use its 7 to 64 hexadecimal digits"),
        ({"PLP_COMMIT_SHA": "a" * 65}, "use its 7 to 64 hexadecimal digits"),
        ({"PLP_COMMIT_SHA": "HEAD"}, '"HEAD" is no commit'),
        ({"PLP_PULL_REQUEST_NUMBER": "0"}, '"0" is no number of a pull request'),
        ({"PLP_PULL_REQUEST_NUMBER": "-1"}, "is no number"),
        ({"PLP_PULL_REQUEST_NUMBER": "#7"}, "is no number"),
        ({"PLP_PULL_REQUEST_NUMBER": "٣"}, "is no number"),
        ({"PLP_PULL_REQUEST_NUMBER": "9" * 5000}, "is no number"),
        ({"PLP_MERGE_REQUEST_NUMBER": "$(X)"}, "is no number"),
        ({"PLP_PULL_REQUEST_NUMBER": "1", "PLP_MERGE_REQUEST_NUMBER": "2"}, "differ"),
        ({"PLP_TAG": "refs/heads/main"}, "is no tag"),
        ({"PLP_BRANCH": "refs/tags/v1"}, "is no branch"),
        ({"PLP_BRANCH": "refs/pull/7/merge"}, "PLP_PULL_REQUEST_NUMBER"),
        ({"PLP_PUSH_RETRIES": "101"}, "use 0 to 100"),
        ({"PLP_IS_DEFAULT_BRANCH": "main"}, "is no boolean"),
        ({"PLP_REGISTRY_USERNAME": "a:b", "PLP_REGISTRY_PASSWORD": "x"}, "holds a colon"),
        ({"PLP_REGISTRY_PASSWORD": "a\nb", "PLP_REGISTRY_USERNAME": "x"}, "control character"),
        (
            {"PLP_REGISTRY_USERNAME": "x", "PLP_REGISTRY_PASSWORD": "x", "PLP_REGISTRY_TOKEN": "x"},
            "both set",
        ),
        ({"GITHUB_OUTPUT": "\udcff"}, "is no UTF-8"),
    ],
)
def test_what_is_refused(environ: dict[str, str], said: str) -> None:
    (line,) = problems(environ)
    assert said in line
    assert line.split()[0].rstrip(":") in environ


def test_a_pull_request_may_have_a_strange_branch() -> None:
    """GitHub's github.ref is refs/pull/7/merge there, and the branch makes no tag anyway."""
    load({**ENOUGH, "PLP_BRANCH": "refs/pull/7/merge", "PLP_PULL_REQUEST_NUMBER": "7"})


def test_no_number_does_not_hide_the_other_name_s() -> None:
    environ = {**ENOUGH, "PLP_PULL_REQUEST_NUMBER": "false", "PLP_MERGE_REQUEST_NUMBER": "7"}
    assert load(environ).pull_request_number == 7


@pytest.mark.parametrize(
    "environ",
    [
        {"PLP_REGISTRY_PASSWORD": CANARY, "PLP_REGISTRY_TOKEN": CANARY},
        {"PLP_REGISTRY_PASSWORD": f"{CANARY}\n{CANARY}"},
        {"PLP_REGISTRY_TOKEN": f"{CANARY}\udcff"},
        {"PLP_REGISTRY_USERNAME": f"me:{CANARY}"},
        {"PLP_IMAGE_REPOSITORY": f"me:{CANARY}@ghcr.io/me/app"},
        {"PLP_IMAGE_REPOSITORY": f"https://me:{CANARY}@ghcr.io/me/app:1"},
        {"PLP_IMAGE_REPOSITORY": f"https://{CANARY}@ghcr.io/me/app"},
    ],
)
def test_no_error_shows_a_secret(environ: dict[str, str]) -> None:
    assert "hunter2" not in " ".join(problems(environ))


def test_no_representation_shows_a_secret() -> None:
    environ = {**ENOUGH, "PLP_REGISTRY_USERNAME": "me", "PLP_REGISTRY_PASSWORD": CANARY}
    found = load(environ)
    assert "hunter2" not in repr(found) + str(found)
    assert "registry_password='<hidden>'" in repr(found)
    assert "registry_token=''" in repr(found)
    assert "hunter2" not in repr(load({**ENOUGH, "PLP_REGISTRY_TOKEN": CANARY}))


def test_what_no_log_may_show() -> None:
    environ = {**ENOUGH, "PLP_REGISTRY_USERNAME": "me", "PLP_REGISTRY_PASSWORD": CANARY}
    pair = b64encode(f"me:{CANARY}".encode()).decode()
    assert secret_values(load(environ)) == (CANARY, pair)
    assert CANARY in secret_values(load({**ENOUGH, "PLP_REGISTRY_TOKEN": CANARY}))
    assert secret_values(load(ENOUGH)) == ()


def test_unknown_variables_are_named_with_the_nearest_known_one() -> None:
    environ = {"PLP_TAGS": "x", "PLP_BRANCHE": "x", "PLP_X": "", "PLP_CACHE_PATH": "x", "X": ""}
    assert unknown_variables(environ) == (
        "PLP_BRANCHE is unknown; did you mean PLP_BRANCH?",
        "PLP_TAGS is unknown; did you mean PLP_EXTRA_TAGS?",
        "PLP_X is unknown",
    )
    assert unknown_variables(environ_of_both()) == ()
    assert set(MEANT.values()) <= set(VARIABLES)


def environ_of_both() -> dict[str, str]:
    """Every variable that builder and publisher have, as one pipeline may set them."""
    ours = {*VARIABLES, *NAMES.aliases.values()}
    return dict.fromkeys({*ours, *builder.VARIABLES, *builder.NOT_IMPLEMENTED}, "")


def test_builder_and_publisher_know_each_other_s_variables() -> None:
    ours = {name for name in (*VARIABLES, *NAMES.aliases.values()) if name.startswith("PLP_")}
    theirs = {
        name for name in (*builder.VARIABLES, *builder.NOT_IMPLEMENTED) if name.startswith("PLP_")
    }
    assert theirs - ours == OF_BUILDER
    assert ours - theirs == builder_names.OF_PUBLISHER
    assert builder.unknown_variables(environ_of_both()) == ()


def test_variables_of_the_builder_change_nothing() -> None:
    environ = {**ENOUGH, **dict.fromkeys(OF_BUILDER, "\udcff, whatever")}
    assert load(environ) == load(ENOUGH)


TEXT = st.text(st.characters(exclude_categories=[], exclude_characters="\0"), max_size=80)


@given(st.dictionaries(st.sampled_from(sorted(VARIABLES)), TEXT))
def test_whatever_is_given_can_be_read_or_told(environ: dict[str, str]) -> None:
    lines: tuple[str, ...] = ()
    try:
        load(environ)
    except SettingInvalid as failure:
        lines = failure.why
    assert all(line.isprintable() for line in lines)


def test_help_has_every_variable_and_fits() -> None:
    lines = usage.text().splitlines()
    for name in VARIABLES:
        assert [line for line in lines if line.startswith(f"  {name} ")], name
    assert "PLP_MERGE_REQUEST_NUMBER" in usage.text()
    assert max(map(len, lines)) <= 100
    assert all(code in usage.text() for code in ("0", "2", "3", "4", "143", "130"))


@pytest.mark.parametrize("name", ["PLP_ARTIFACT_PATH", "DOCKER_CONFIG", "PLP_REGISTRY_CA_PATH"])
def test_no_result_is_written_where_nobody_knows_what_is_read(name: str) -> None:
    written = {"PLP_RESULT_FILE": "/r.json", "GITHUB_STEP_SUMMARY": "/s.md"}
    read = load_usable({**written, name: "/\udcff"})
    assert read.settings.result_file is None
    assert read.settings.github_step_summary is None
    assert load_usable({**written, "PLP_BRANCH": "\udcff"}).settings.result_file == Path("/r.json")
