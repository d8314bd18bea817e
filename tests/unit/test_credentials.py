"""Which source of credentials wins, and what skopeo is given of it."""

from __future__ import annotations

import base64
import fcntl
import io
import json
import os
import stat
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from plp_builder import log
from plp_builder.errors import CredentialsNotUsable
from plp_builder.process import Completed
from plp_builder.redaction import redactor
from publisher import credentials
from publisher.credentials import AuthFile, Credentials
from publisher.settings import Settings, load

SECRET = "canary-7f3a"
REQUIRED = {"PLP_IMAGE_REPOSITORY": "r.example/team/app", "PLP_COMMIT_SHA": "0123456"}


@pytest.fixture(autouse=True)
def logged() -> Iterator[io.StringIO]:
    stream = io.StringIO()
    log.configure("json", stream=stream)
    yield stream
    log.configure()


def settings(**variables: object) -> Settings:
    return load(REQUIRED | {name: str(value) for name, value in variables.items()})


def encoded(text: str) -> str:
    return base64.b64encode(text.encode()).decode()


def write(path: Path, user: str = "", registry: str = "r.example", **more: object) -> Path:
    path.parent.mkdir(parents=True, exist_ok=True)
    auths = {registry: {"auth": encoded(f"{user}:{SECRET}")}} if user else {}
    path.write_text(json.dumps({"auths": auths, **more}))
    return path


def no_helper(program: str, server: str) -> Completed:
    raise AssertionError((program, server))


class Helper:
    """Answers for the programs it knows, and notes who was asked."""

    def __init__(self, **users: str) -> None:
        self.users = users
        self.asked: list[tuple[str, str]] = []

    def __call__(self, program: str, server: str) -> Completed:
        self.asked.append((program, server))
        user = self.users.get(program.removeprefix("docker-credential-"))
        if user is None:
            raise CredentialsNotUsable(f"{program} was not found on PATH")
        if not user:
            said = b"credentials not found in native keychain"
            return Completed((program, "get"), 1, said, b"")
        answer = {"ServerURL": server, "Username": user, "Secret": SECRET}
        return Completed((program, "get"), 0, json.dumps(answer).encode(), b"")


def find(
    wanted: Settings, environ: dict[str, str] | None = None, run: Any = no_helper
) -> Credentials | None:
    return credentials.find(wanted, environ or {}, run)


def test_user_and_password_of_variables_win_over_all_files(tmp_path: Path) -> None:
    file = write(tmp_path / "auth.json", "file")
    wanted = settings(
        PLP_REGISTRY_USERNAME="me", PLP_REGISTRY_PASSWORD=SECRET, REGISTRY_AUTH_FILE=file
    )
    assert find(wanted) == Credentials("me", SECRET, origin="PLP_REGISTRY_PASSWORD")


def test_files_win_in_their_order(tmp_path: Path) -> None:
    first = write(tmp_path / "auth.json", "first")
    second = write(tmp_path / "docker" / "config.json", "second")
    third = write(tmp_path / "run" / "containers" / "auth.json", "third")
    fourth = write(tmp_path / "home" / ".config" / "containers" / "auth.json", "fourth")
    write(tmp_path / "home" / ".docker" / "config.json", "fifth")
    environ = {"XDG_RUNTIME_DIR": str(tmp_path / "run"), "HOME": str(tmp_path / "home")}
    both = settings(REGISTRY_AUTH_FILE=first, DOCKER_CONFIG=second.parent)

    def user(wanted: Settings) -> str:
        found = find(wanted, environ)
        assert found is not None
        assert found.password == SECRET
        return found.username

    assert user(both) == "first"
    assert user(settings(DOCKER_CONFIG=second.parent)) == "second"
    assert user(settings(DOCKER_CONFIG=second)) == "second"
    assert user(settings()) == "third"
    third.unlink()
    assert user(settings()) == "fourth"
    write(fourth)
    assert user(settings()) == "fifth"
    write(first)
    assert user(both) == "second"


def test_a_default_file_is_not_asked_where_another_was_named(
    tmp_path: Path, logged: io.StringIO
) -> None:
    write(tmp_path / ".docker" / "config.json", "home")
    named = write(tmp_path / "auth.json", "other", registry="other.example")
    assert find(settings(REGISTRY_AUTH_FILE=named), {"HOME": str(tmp_path)}) is None
    event = json.loads(logged.getvalue())
    assert event["level"] == "warning"
    assert event["registry"] == "r.example"
    assert str(named) in event["looked_in"]
    assert SECRET not in logged.getvalue()


def test_what_no_helper_knows_can_be_checked_without_one(tmp_path: Path) -> None:
    """`find` would ask: `no_helper` does not let it."""
    path = write(tmp_path / "c.json", credHelpers={"r.example": "own"}, credsStore="all")
    credentials.check(settings(DOCKER_CONFIG=path))
    credentials.check(settings())
    path.write_text("{")
    for wanted in (
        settings(DOCKER_CONFIG=path),
        settings(REGISTRY_AUTH_FILE=tmp_path / "none"),
        settings(PLP_IMAGE_REPOSITORY="me/app", PLP_REGISTRY_TOKEN=SECRET),
    ):
        with pytest.raises(CredentialsNotUsable) as caught:
            credentials.check(wanted)
        with pytest.raises(CredentialsNotUsable) as found:
            find(wanted)
        assert (found.value.what, found.value.hint) == (caught.value.what, caught.value.hint)


def test_where_credentials_were_looked_for_can_be_told(tmp_path: Path) -> None:
    named = write(tmp_path / "auth.json", "other", registry="other.example")
    wanted = settings(REGISTRY_AUTH_FILE=named, DOCKER_CONFIG=tmp_path)
    assert credentials.looked_in(wanted) == (
        f"REGISTRY_AUTH_FILE={named} has no entry for r.example",
        f"DOCKER_CONFIG={tmp_path} has no entry for r.example",
    )
    assert credentials.looked_in(settings()) == ()


def test_without_any_file_there_are_none(tmp_path: Path, logged: io.StringIO) -> None:
    environ = {"HOME": str(tmp_path), "XDG_RUNTIME_DIR": str(tmp_path / "none")}
    assert find(settings(), environ) is None
    assert find(settings(), {"HOME": "relative"}) is None
    assert find(settings()) is None
    assert logged.getvalue() == ""


def test_a_named_file_must_be_usable(tmp_path: Path) -> None:
    for variable in ("REGISTRY_AUTH_FILE", "DOCKER_CONFIG"):
        with pytest.raises(CredentialsNotUsable, match=f"{variable} cannot be used: .*none"):
            find(settings(**{variable: tmp_path / "none"}))
        (tmp_path / "config.json").write_text("{")
        with pytest.raises(CredentialsNotUsable, match=f"{variable} cannot be used: .*no JSON"):
            find(settings(**{variable: tmp_path / "config.json"}))


def test_a_directory_without_a_file_is_told(tmp_path: Path, logged: io.StringIO) -> None:
    assert find(settings(DOCKER_CONFIG=tmp_path)) is None
    assert "no credentials for this registry" in logged.getvalue()


def test_a_damaged_default_file_is_a_warning(tmp_path: Path, logged: io.StringIO) -> None:
    (tmp_path / ".config" / "containers").mkdir(parents=True)
    (tmp_path / ".config" / "containers" / "auth.json").write_text(SECRET)
    write(tmp_path / ".docker" / "config.json", "home")
    found = find(settings(), {"HOME": str(tmp_path)})
    assert found is not None
    assert found.username == "home"
    assert "no JSON" in logged.getvalue()
    assert SECRET not in logged.getvalue()


def test_the_registrys_own_helper_comes_first_and_the_general_one_last(tmp_path: Path) -> None:
    path = tmp_path / "config.json"
    helper = Helper(own="own", all="all")
    for more, user, asked in (
        ({"credHelpers": {"r.example": "own"}, "credsStore": "all"}, "own", "own"),
        ({"credsStore": "all"}, "entry", ""),
    ):
        write(path, "entry", **more)
        helper.asked.clear()
        found = find(settings(DOCKER_CONFIG=path), run=helper)
        assert found is not None
        assert found.username == user
        assert helper.asked == ([(f"docker-credential-{asked}", "r.example")] if asked else [])
    path.write_text(json.dumps({"auths": {"r.example": {}}, "credsStore": "all"}))
    found = find(settings(DOCKER_CONFIG=path), run=helper)
    assert found == Credentials("all", SECRET, origin=f"docker-credential-all of {path}")


def test_a_helper_that_has_nothing_leaves_it_to_the_next(tmp_path: Path) -> None:
    path = write(
        tmp_path / "c.json", "entry", credHelpers={"r.example": "empty"}, credsStore="none"
    )
    found = find(settings(REGISTRY_AUTH_FILE=path), run=Helper(empty=""))
    assert found is not None
    assert found.username == "entry"


def test_docker_hub_has_a_name_of_its_own_for_helpers(tmp_path: Path) -> None:
    path = write(tmp_path / "c.json", credsStore="all")
    helper = Helper(all="me")
    find(settings(PLP_IMAGE_REPOSITORY="me/app", REGISTRY_AUTH_FILE=path), run=helper)
    assert helper.asked == [("docker-credential-all", "https://index.docker.io/v1/")]


def test_a_missing_helper_ends_the_run_only_if_it_was_meant(
    tmp_path: Path, logged: io.StringIO
) -> None:
    path = write(tmp_path / ".docker" / "config.json", credsStore="desktop")
    assert find(settings(), {"HOME": str(tmp_path)}, Helper()) is None
    assert "docker-credential-desktop" in logged.getvalue()
    with pytest.raises(CredentialsNotUsable, match=r"DOCKER_CONFIG .*docker-credential-desktop"):
        find(settings(DOCKER_CONFIG=path.parent), run=Helper())
    write(path, credHelpers={"r.example": "cloud"})
    with pytest.raises(CredentialsNotUsable, match="docker-credential-cloud"):
        find(settings(), {"HOME": str(tmp_path)}, Helper())


@pytest.mark.parametrize(
    ("registry", "user"),
    [
        ("me.azurecr.io", "00000000-0000-0000-0000-000000000000"),
        ("europe-west1-docker.pkg.dev", "oauth2accesstoken"),
        ("gcr.io", "oauth2accesstoken"),
        ("eu.gcr.io", "oauth2accesstoken"),
        ("notgcr.io", "token"),
        ("123456789012.dkr.ecr.eu-central-1.amazonaws.com", "AWS"),
        ("public.ecr.aws", "AWS"),
        ("quay.io", "$oauthtoken"),
        ("nvcr.io", "$oauthtoken"),
        ("registry.gitlab.com", "gitlab-ci-token"),
        ("gitlab.example.com:5050", "gitlab-ci-token"),
        ("ghcr.io", "token"),
        ("r.example:5000", "token"),
    ],
)
def test_a_token_comes_with_the_user_that_the_registry_wants(registry: str, user: str) -> None:
    wanted = settings(PLP_IMAGE_REPOSITORY=f"{registry}/a/b", PLP_REGISTRY_TOKEN=SECRET)
    assert find(wanted) == Credentials(user, SECRET, origin="PLP_REGISTRY_TOKEN")


def test_a_given_user_stays_with_the_token() -> None:
    wanted = settings(
        PLP_IMAGE_REPOSITORY="me/app", PLP_REGISTRY_TOKEN=SECRET, PLP_REGISTRY_USERNAME="me"
    )
    assert find(wanted) == Credentials("me", SECRET, origin="PLP_REGISTRY_TOKEN")


def test_docker_hub_wants_to_know_whose_token_it_is() -> None:
    with pytest.raises(CredentialsNotUsable) as caught:
        find(settings(PLP_IMAGE_REPOSITORY="me/app", PLP_REGISTRY_TOKEN=SECRET))
    assert "PLP_REGISTRY_USERNAME" in caught.value.hint


def test_nothing_shows_credentials() -> None:
    held = Credentials("me", SECRET, "identity", "somewhere")
    for text in (repr(held), str(held), f"{held}", f"{(held,)}"):
        assert SECRET not in text
        assert "identity" not in text
        assert "somewhere" in text


def test_secrets_are_known_in_every_form_in_which_they_travel() -> None:
    held = Credentials("me", f"{SECRET}/+", "identity")
    hide = redactor(held.secrets())
    for form in (
        f"{SECRET}/+", f"{SECRET}/%2B", f"{SECRET}%2F%2B", "identity",
        encoded(f"{SECRET}/+"), encoded("identity"), encoded(f"me:{SECRET}/+"),
    ):  # fmt: skip
        assert hide(f"it is {form} now") == "it is <hidden> now"
    assert redactor(Credentials("me", "x").secrets())(encoded("me:x")) == "<hidden>"
    assert Credentials("me", "").secrets() == ()
    assert Credentials("me", os.fsdecode(b"\xff\xfe")).secrets()


def test_the_authfile_is_private_sealed_and_gone_when_closed() -> None:
    entries = {
        "127.0.0.1:4000": Credentials("archive", "pass:word"),
        "r.example": Credentials("", "", "identity"),
    }
    with AuthFile(entries) as file:
        assert file.path == f"/proc/self/fd/{file.fd}"
        held = json.loads(Path(file.path).read_text())
        assert held == json.loads(Path(file.path).read_text())
        state = os.fstat(file.fd)
        assert (stat.S_IMODE(state.st_mode), state.st_nlink) == (0o600, 0)
        assert not os.get_inheritable(file.fd)
        for attempt in (lambda: os.write(file.fd, b"x"), lambda: os.ftruncate(file.fd, 0)):
            with pytest.raises(PermissionError):
                attempt()
        assert fcntl.fcntl(file.fd, fcntl.F_GET_SEALS) & fcntl.F_SEAL_SEAL
        number = file.fd
    file.close()
    with pytest.raises(OSError, match="Bad file descriptor"):
        os.fstat(number)
    assert held == {
        "auths": {
            "127.0.0.1:4000": {"auth": encoded("archive:pass:word")},
            "r.example": {"auth": encoded("<token>:"), "identitytoken": "identity"},
        }
    }


def test_a_password_of_other_bytes_than_utf8_goes_out_as_it_came_in() -> None:
    with AuthFile({"r.example": Credentials("me", os.fsdecode(b"\xff\xfe"))}) as file:
        auth = json.loads(Path(file.path).read_text())["auths"]["r.example"]["auth"]
    assert base64.b64decode(auth) == b"me:\xff\xfe"
