"""buildkitd.toml as the builder writes it, read back by a TOML parser."""

from __future__ import annotations

import tomllib
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from plp_builder.buildkit.config import quoted, render, with_worker
from plp_builder.errors import SettingInvalid
from plp_builder.values import Mirror


@given(st.text(st.characters(exclude_categories=["Cs"])))
def test_any_text_survives_quoting(text: str) -> None:
    assert tomllib.loads(f"key = {quoted(text)}") == {"key": text}


def test_mirrors_of_one_registry_keep_their_order() -> None:
    mirrors = [Mirror("docker.io", "b.example"), Mirror("docker.io", "a.example/cache")]
    assert tomllib.loads(render("", mirrors, [])) == {
        "registry": {"docker.io": {"mirrors": ["b.example", "a.example/cache"]}}
    }


def test_a_mirror_on_loopback_is_spoken_to_over_plain_http() -> None:
    config = tomllib.loads(render("", [Mirror("docker.io", "127.0.0.1:5000/x")], []))
    assert config["registry"]["127.0.0.1:5000"] == {"http": True}


def test_an_insecure_registry_may_be_unverified_tls_or_plain_http() -> None:
    config = tomllib.loads(render("", [Mirror("docker.io", "r:5000")], ["r:5000"]))
    assert config["registry"]["r:5000"] == {"http": True, "insecure": True}


def test_what_the_user_configured_comes_along() -> None:
    text = render("[worker.oci]\nmax-parallelism = 2\n", [Mirror("docker.io", "m")], [])
    config = tomllib.loads(text)
    assert config["worker"] == {"oci": {"max-parallelism": 2}}
    assert config["registry"] == {"docker.io": {"mirrors": ["m"]}}


def test_one_registry_configured_in_two_places_is_refused() -> None:
    with pytest.raises(SettingInvalid, match=r"docker\.io is configured twice"):
        render('[registry."docker.io"]\nmirrors=["x"]', [Mirror("docker.io", "m")], [])


def test_a_file_that_is_no_toml_is_refused() -> None:
    with pytest.raises(SettingInvalid, match="not valid TOML") as caught:
        render("= nonsense", [], [], Path("/etc/x.toml"))
    assert caught.value.why[0].startswith("/etc/x.toml: ")


def test_the_daemon_need_not_try_out_which_platforms_run_here() -> None:
    mirrored = render("", [Mirror("docker.io", "m")], [])
    config = tomllib.loads(with_worker(mirrored, "x86_64"))
    assert config["worker"] == {
        "oci": {"platforms": ["linux/amd64"]},
        "containerd": {"platforms": ["linux/amd64"]},
    }
    assert config["registry"] == {"docker.io": {"mirrors": ["m"]}}
    assert with_worker("", "aarch64").startswith('[worker.oci]\nplatforms = ["linux/arm64"]')


@pytest.mark.parametrize(
    ("text", "machine"),
    [("[worker.oci]\nmax-parallelism = 2\n", "x86_64"), ("", "armv7l"), ("", "riscv64")],
)
def test_workers_of_the_user_and_other_machines_stay_as_they_are(text: str, machine: str) -> None:
    assert with_worker(text, machine) == text
