"""docs/hosts.md shows the files of examples/hosts, and these use what there is."""

from __future__ import annotations

import re
from pathlib import Path

import pytest
import yaml

from plp_builder import __version__
from plp_builder.settings import VARIABLES
from publisher.settings import VARIABLES as PUBLISHERS
from tests.support.expressions import filled
from tests.support.hosts import FOLDER, gitlab, jenkins, load, pipeline, read

ROOT = Path(__file__).parents[2]
PAGE = (ROOT / "docs/hosts.md").read_text(encoding="utf-8")
BLOCK = re.compile(r"^`examples/hosts/([\w.-]+)`:\n\n```\w+\n(.*?)^```$", re.MULTILINE | re.DOTALL)
SHOWN = dict(BLOCK.findall(PAGE))
NAMES = sorted(path.name for path in FOLDER.iterdir())
ALIASES = {"PLP_MERGE_REQUEST_NUMBER"}


def test_the_page_shows_every_file() -> None:
    assert sorted(SHOWN) == NAMES
    assert {
        *("github-actions.yml", "gitlab-ci.yml", "Jenkinsfile", "woodpecker.yml", "drone.yml"),
        "docker.sh",
    } <= set(NAMES)


@pytest.mark.parametrize("name", NAMES)
def test_the_page_shows_it_as_it_is(name: str) -> None:
    assert SHOWN[name] == read(name)


@pytest.mark.parametrize("name", [name for name in NAMES if name.endswith(".yml")])
def test_it_is_yaml(name: str) -> None:
    assert isinstance(load(name), dict)


@pytest.mark.parametrize("name", NAMES)
def test_it_uses_variables_that_are_known(name: str) -> None:
    named = set(re.findall(r"\bPLP_[A-Z_]+\b", read(name)))
    assert named <= {*VARIABLES, *PUBLISHERS, *ALIASES}
    assert named or name == "github-actions.yml"


@pytest.mark.parametrize("name", NAMES)
def test_it_runs_the_images_of_this_version(name: str) -> None:
    text = read(name)
    versions = set(re.findall(r"plp-container-image-(?:builder|publisher):([\w.]+)", text))
    versions |= set(re.findall(r"/\.github/actions/\w+@v([\w.]+)", text))
    assert versions <= {__version__}
    assert versions or name == "docker.sh"
    assert {"builder", "publisher"} <= set(
        re.findall(r"container-image-(builder|publisher)", text)
    ) or "/actions/publish" in text


def test_the_inputs_of_the_workflow_are_there() -> None:
    steps = load("github-actions.yml")["jobs"]["image"]["steps"]
    ours = {
        step["uses"].partition("/actions/")[2].partition("@")[0]: step["with"]
        for step in steps
        if "plp-container-image" in step["uses"]
    }
    assert set(ours) == {"build", "publish"}
    for name, given in ours.items():
        action = ROOT / f".github/actions/{name}/action.yml"
        known = yaml.safe_load(action.read_text(encoding="utf-8"))["inputs"]
        assert set(given) <= set(known)


def test_what_is_taken_out_of_the_examples() -> None:
    env, script = gitlab("build", {"CI_PROJECT_DIR": "/builds/a", "CI_COMMIT_SHA": "abc"})
    assert env["PLP_BUILD_PATH"] == "/builds/a/out"
    assert env["GIT_SHA"] == "abc"
    assert env["GIT_REPOSITORY_URL"] == ""
    assert script == "set -e\nmkdir -p out\nplp-builder\n"
    env, _ = pipeline("drone.yml", "publish", {"registry_password": "secret"})
    assert env["PLP_REGISTRY_PASSWORD"] == "secret"
    constants, scripts = jenkins()
    assert set(constants) == {"BUILDER", "PUBLISHER", "PLP_IMAGE_REPOSITORY"}
    assert [each.strip().endswith('R"') for each in scripts] == [True, True]
    assert filled("${{ github.actor }}", {"github": {"actor": "a"}}) == "a"
