"""Files of credentials: which entry fits, and what is refused without repeating it."""

from __future__ import annotations

import base64
import json
import os
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from plp_builder.errors import CredentialsNotUsable
from publisher import docker_config
from publisher.docker_config import Config, Entry

SECRET = "canary-7f3a"


def encoded(text: str) -> str:
    return base64.b64encode(text.encode()).decode()


def auth(name: str) -> dict[str, str]:
    return {"auth": encoded(f"{name}:{SECRET}")}


def config(content: object, path: Path = Path("config.json")) -> Config:
    assert isinstance(content, dict)
    return Config(
        path, content.get("auths", {}), content.get("credHelpers", {}), content.get("credsStore")
    )


@pytest.mark.parametrize(
    ("keys", "registry", "repository", "wanted"),
    [
        (["registry.example"], "registry.example", "team/app", "registry.example"),
        (["Registry.Example"], "registry.example", "team/app", "Registry.Example"),
        (["registry.example:5000"], "registry.example:5000", "app", "registry.example:5000"),
        (["registry.example:5000"], "registry.example", "app", None),
        (["registry.example"], "registry.example:5000", "app", None),
        (["other.example"], "registry.example", "app", None),
        (["https://registry.example"], "registry.example", "app", "https://registry.example"),
        (["http://registry.example/v2/"], "registry.example", "a", "http://registry.example/v2/"),
        (["https://registry.example/team"], "registry.example", "a", "https://registry.example/team"),
        (["registry.example/v1/"], "registry.example", "app", "registry.example/v1/"),
        (["registry.example/"], "registry.example", "app", "registry.example/"),
        (["registry.example/team"], "registry.example", "team/app", "registry.example/team"),
        (["registry.example/team"], "registry.example", "teams/app", None),
        (["registry.example/team"], "registry.example", "app", None),
        (["registry.example/team/app/x"], "registry.example", "team/app", None),
        (
            ["registry.example", "registry.example/team", "registry.example/team/app"],
            "registry.example", "team/app", "registry.example/team/app",
        ),
        (
            ["https://registry.example", "registry.example", "registry.example/team"],
            "registry.example", "team/app", "registry.example/team",
        ),
        (
            ["https://registry.example/v2/", "registry.example"],
            "registry.example", "team/app", "registry.example",
        ),
        (["https://index.docker.io/v1/"], "docker.io", "me/app", "https://index.docker.io/v1/"),
        (["index.docker.io"], "docker.io", "me/app", "index.docker.io"),
        (["registry-1.docker.io"], "docker.io", "me/app", "registry-1.docker.io"),
        (["https://index.docker.io/v1/", "docker.io"], "docker.io", "me/app", "docker.io"),
        (["docker.io/me"], "docker.io", "me/app", "docker.io/me"),
        (["notdocker.io"], "docker.io", "me/app", None),
    ],
)  # fmt: skip
def test_the_most_exact_key_wins(
    keys: list[str], registry: str, repository: str, wanted: str | None
) -> None:
    auths = {key: auth(f"user{number}") for number, key in enumerate(keys)}
    found = docker_config.entry(config({"auths": auths}), registry, repository)
    assert found == (None if wanted is None else Entry(f"user{keys.index(wanted)}", SECRET))


@pytest.mark.parametrize(
    ("value", "expected"),
    [
        ({"auth": encoded(f"me:{SECRET}")}, Entry("me", SECRET)),
        ({"auth": encoded("me:a:b:")}, Entry("me", "a:b:")),
        ({"auth": encoded("me:")}, Entry("me", "")),
        ({"auth": encoded("me:pass\0\0")}, Entry("me", "pass")),
        ({"auth": encoded("jürgen:pässwörd")}, Entry("jürgen", "pässwörd")),
        ({"auth": encoded("me:" + "x" * 90)[:60] + "\n" + encoded("me:" + "x" * 90)[60:]},
         Entry("me", "x" * 90)),
        ({"username": "me", "password": SECRET}, Entry("me", SECRET)),
        ({"username": "you", "password": "old", "auth": encoded("me:new")}, Entry("me", "new")),
        ({"username": "me", "password": SECRET, "email": 3, "auth": None}, Entry("me", SECRET)),
        ({"auth": encoded("0000:"), "identitytoken": SECRET}, Entry("0000", "", SECRET)),
        ({"identitytoken": SECRET}, Entry("", "", SECRET)),
        ({"auth": encoded("me:p"), "registrytoken": SECRET}, Entry("me", "p")),
        ({}, None),
        ({"auth": ""}, None),
    ],
)  # fmt: skip
def test_forms_of_an_entry(value: object, expected: Entry | None) -> None:
    assert (
        docker_config.entry(config({"auths": {"r.example": value}}), "r.example", "a") == expected
    )


@pytest.mark.parametrize(
    ("value", "said"),
    [
        (None, "no JSON object"),
        (SECRET, "no JSON object"),
        ([SECRET], "no JSON object"),
        ({"auth": 3}, "auth is no text"),
        ({"auth": [SECRET]}, "auth is no text"),
        ({"username": {"a": SECRET}}, "username is no text"),
        ({"identitytoken": 1}, "identitytoken is no text"),
        ({"auth": f"me:{SECRET}"}, "no base64"),
        ({"auth": encoded(SECRET) + "!"}, "no base64"),
        ({"auth": "ÄÖÜ="}, "no base64"),
        ({"auth": encoded(f"me:{SECRET}x")[:-1]}, "no base64"),
        ({"auth": base64.b64encode(b"me:\xff\xfe").decode()}, "no base64"),
        ({"auth": encoded(SECRET)}, "no colon"),
        ({"auth": encoded(f"me:{SECRET}\n")}, "line break"),
        ({"auth": encoded(f"me\r\n:{SECRET}")}, "line break"),
        ({"auth": encoded(f"me:{SECRET}\0{SECRET}")}, "control character"),
        ({"auth": encoded(f"me:{SECRET}\x1b[2J")}, "control character"),
        ({"username": "a:b", "password": SECRET}, "colon"),
        ({"auth": encoded(f":{SECRET}")}, "without a user name"),
        ({"identitytoken": f"{SECRET}\n"}, "line break"),
        ({"registrytoken": SECRET}, "registrytoken"),
    ],
)
def test_a_malformed_entry_is_named_and_not_repeated(value: object, said: str) -> None:
    with pytest.raises(CredentialsNotUsable) as caught:
        docker_config.entry(config({"auths": {"r.example": value}}), "r.example", "a")
    text = " ".join((caught.value.what, *caught.value.why, caught.value.hint))
    assert said in text
    assert "config.json" in text
    assert "r.example" in text
    assert SECRET not in text
    assert encoded(SECRET) not in text
    assert caught.value.exit_code == 2


def test_an_entry_of_another_registry_may_hold_anything() -> None:
    held = config({"auths": {"other.example": [SECRET], "r.example": auth("me")}})
    assert docker_config.entry(held, "r.example", "a") == Entry("me", SECRET)


def test_an_entry_without_content_leaves_it_to_a_shorter_key() -> None:
    held = config({"auths": {"r.example/team": {}, "r.example": auth("me")}})
    assert docker_config.entry(held, "r.example", "team/app") == Entry("me", SECRET)


def test_user_info_in_a_key_is_not_shown() -> None:
    held = config({"auths": {f"https://me:{SECRET}@r.example": {"auth": "!"}, "r.example": 1}})
    with pytest.raises(CredentialsNotUsable) as caught:
        docker_config.entry(held, "r.example", "a")
    assert SECRET not in str(caught.value)


@pytest.mark.parametrize(
    ("helpers", "registry", "expected"),
    [
        ({"r.example": "pass"}, "r.example", "pass"),
        ({"r.example": "pass"}, "s.example", ""),
        ({"https://index.docker.io/v1/": "hub"}, "docker.io", "hub"),
        ({"docker.io": "hub"}, "docker.io", "hub"),
        ({"r.example/team": "pass"}, "r.example", ""),
        ({"r.example": ""}, "r.example", ""),
        ({"r.example": None}, "r.example", ""),
    ],
)
def test_helper_of_a_registry(helpers: object, registry: str, expected: str) -> None:
    assert docker_config.helper(config({"credHelpers": helpers}), registry) == expected


def test_helpers_must_be_named_by_a_text() -> None:
    with pytest.raises(CredentialsNotUsable, match="is no text"):
        docker_config.helper(config({"credHelpers": {"r.example": ["sh"]}}), "r.example")
    with pytest.raises(CredentialsNotUsable, match="credsStore is no text"):
        docker_config.store(config({"credsStore": {}}))
    assert docker_config.store(config({"credsStore": "desktop"})) == "desktop"
    assert docker_config.store(config({})) == ""


@pytest.mark.parametrize(
    ("content", "said"),
    [
        (b"", "is no JSON"),
        (b"{", "is no JSON (line 1)"),
        (b'{"auths": {}} x', "is no JSON"),
        (b"\xff\xfe{}", "is no JSON"),
        (b"\xef\xbb\xbf{}", "is no JSON"),
        (b'{"a": NaN}', "is no JSON"),
        (b'{"a": ' + b"9" * 10_000 + b"}", "is no JSON"),
        (b"[" * 200_000, "is no JSON"),
        (b"[]", "holds no JSON object"),
        (b'"canary-7f3a"', "holds no JSON object"),
        (b"null", "holds no JSON object"),
        (b'{"auths": []}', "auths is no JSON object"),
        (b'{"auths": "canary-7f3a"}', "auths is no JSON object"),
        (b'{"credHelpers": 1}', "credHelpers is no JSON object"),
        (b" " * (docker_config.MAX_BYTES + 1), "larger than 1 MiB"),
    ],
)
def test_a_malformed_file_is_named_and_not_repeated(
    content: bytes, said: str, tmp_path: Path
) -> None:
    path = tmp_path / "auth.json"
    path.write_bytes(content)
    with pytest.raises(CredentialsNotUsable) as caught:
        docker_config.read(path)
    assert said in caught.value.what
    assert str(path) in caught.value.what
    assert SECRET not in caught.value.what


def test_what_is_no_file_is_refused_without_waiting(tmp_path: Path) -> None:
    os.mkfifo(tmp_path / "fifo")
    for path in (tmp_path, tmp_path / "fifo", Path("/dev/zero")):
        with pytest.raises(CredentialsNotUsable, match=r"no regular file|cannot be read"):
            docker_config.read(path)
    with pytest.raises(CredentialsNotUsable, match="cannot be read: No such file"):
        docker_config.read(tmp_path / "none")


def test_a_control_character_in_a_path_is_not_shown(tmp_path: Path) -> None:
    with pytest.raises(CredentialsNotUsable) as caught:
        docker_config.read(tmp_path / "a\x1b[2Jb")
    assert "\x1b" not in caught.value.what


@pytest.mark.parametrize(
    "name", ["config.json", ".dockerconfigjson", "config.json/.dockerconfigjson", ".dockercfg"]
)
def test_a_directory_may_hold_the_file_under_several_names(name: str, tmp_path: Path) -> None:
    file = tmp_path / name
    file.parent.mkdir(exist_ok=True)
    auths = {"r.example": auth("me")}
    file.write_text(json.dumps(auths if name == ".dockercfg" else {"auths": auths}))
    located = docker_config.locate(tmp_path)
    assert located == file
    assert docker_config.entry(docker_config.read(located), "r.example", "a") == Entry("me", SECRET)


def test_a_kubernetes_mount_is_followed_through_its_links(tmp_path: Path) -> None:
    (tmp_path / "..2026").mkdir()
    (tmp_path / "..2026" / ".dockerconfigjson").write_text("{}")
    (tmp_path / "..data").symlink_to("..2026")
    (tmp_path / ".dockerconfigjson").symlink_to("..data/.dockerconfigjson")
    located = docker_config.locate(tmp_path)
    assert located == tmp_path / ".dockerconfigjson"
    assert docker_config.read(located).auths == {}


def test_a_file_is_itself_and_an_empty_directory_is_none(tmp_path: Path) -> None:
    file = tmp_path / "anything"
    file.write_text("{}")
    assert docker_config.locate(file) == file
    (tmp_path / "empty").mkdir()
    assert docker_config.locate(tmp_path / "empty") is None
    with pytest.raises(CredentialsNotUsable, match="cannot be read"):
        docker_config.locate(tmp_path / "missing")


def test_nothing_shows_what_is_held() -> None:
    held = config({"auths": {"r.example": auth("me")}})
    assert SECRET not in repr(Entry("me", SECRET, SECRET))
    assert encoded(f"me:{SECRET}") not in repr(held)


JSON = st.recursive(
    st.none() | st.booleans() | st.integers() | st.text(),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(), inner, max_size=3),
    max_leaves=8,
)
NAMES = st.sampled_from(["auth", "username", "password", "identitytoken", "registrytoken"])


@given(st.dictionaries(NAMES, JSON | st.text().map(encoded)) | JSON)
def test_whatever_an_entry_holds_it_is_usable_or_refused(value: object) -> None:
    try:
        found = docker_config.entry(config({"auths": {"r.example": value}}), "r.example", "a/b")
    except CredentialsNotUsable:
        return
    if found is not None:
        assert not docker_config.flaw(found.username, found.password)
        assert found.username or found.identity_token
