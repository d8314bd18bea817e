"""Workflows, actions and their neighbours: what actionlint and zizmor do not hold them to."""

from __future__ import annotations

import re
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

import pytest
import yaml

from plp_builder import settings, variables
from publisher import settings as publishing

ROOT = Path(__file__).parents[2]
GITHUB = ROOT / ".github"
WORKFLOWS = sorted((GITHUB / "workflows").glob("*.yml"))
ACTIONS = sorted((GITHUB / "actions").glob("*/action.yml"))
FILES = [*WORKFLOWS, *ACTIONS]

PINNED = re.compile(r"[\w.-]+/[\w./-]+@[0-9a-f]{40} # v\d+\.\d+\.\d+")
CALL = re.compile(r"^\s*(?:- )?uses: (.*)$", re.MULTILINE)


def load(path: Path) -> Any:
    return yaml.safe_load(path.read_text(encoding="utf-8"))


def name_of(path: Path) -> str:
    return str(path.relative_to(GITHUB))


def jobs(path: Path) -> Mapping[str, Any]:
    found: Mapping[str, Any] = load(path)["jobs"]
    return found


def steps(path: Path) -> Iterator[Mapping[str, Any]]:
    described = load(path)
    if "runs" in described:
        yield from described["runs"]["steps"]
        return
    for job in described["jobs"].values():
        yield from job.get("steps", ())


def test_all_workflows_are_here() -> None:
    assert [path.stem for path in WORKFLOWS] == ["ci", "codeql", "release", "scorecard"]
    assert [path.parent.name for path in ACTIONS] == ["build", "publish", "set-up"]


@pytest.mark.parametrize("path", FILES, ids=name_of)
def test_actions_of_others_are_pinned_by_commit(path: Path) -> None:
    calls = CALL.findall(path.read_text(encoding="utf-8"))
    assert [
        call for call in calls if not call.startswith("./") and not PINNED.fullmatch(call)
    ] == []


def test_one_action_has_one_version() -> None:
    calls = {call for path in FILES for call in CALL.findall(path.read_text(encoding="utf-8"))}
    pinned: dict[str, set[str]] = {}
    for call in calls:
        repository, _, version = call.partition("@")
        if version:
            pinned.setdefault("/".join(repository.split("/")[:2]), set()).add(version)
    assert {name: len(versions) for name, versions in pinned.items()} == dict.fromkeys(pinned, 1)


@pytest.mark.parametrize("path", WORKFLOWS, ids=name_of)
def test_rights_are_given_to_jobs_one_by_one(path: Path) -> None:
    assert load(path)["permissions"] == {}
    for name, job in jobs(path).items():
        assert job["permissions"], name
        for right, given in job["permissions"].items():
            assert given == "read" or path.stem != "ci", (name, right)


@pytest.mark.parametrize("path", WORKFLOWS, ids=name_of)
def test_no_job_runs_for_ever_or_on_what_moves(path: Path) -> None:
    assert "concurrency" in load(path)
    for name, job in jobs(path).items():
        if "uses" in job:  # a workflow of its own
            continue
        assert 1 <= job["timeout-minutes"] <= 60, name
        assert "latest" not in job["runs-on"], name


@pytest.mark.parametrize("path", WORKFLOWS, ids=name_of)
def test_strangers_get_no_rights(path: Path) -> None:
    # YAML 1.1 reads the key `on` as true.
    triggers = load(path)[True]
    assert not {"pull_request_target", "workflow_run", "issue_comment"} & set(triggers)


@pytest.mark.parametrize("path", FILES, ids=name_of)
def test_credentials_do_not_stay_in_the_clone(path: Path) -> None:
    for step in steps(path):
        if step.get("uses", "").startswith("actions/checkout@"):
            assert step["with"]["persist-credentials"] is False


@pytest.mark.parametrize("path", FILES, ids=name_of)
def test_no_expression_becomes_part_of_a_script(path: Path) -> None:
    assert [step["run"] for step in steps(path) if "${{" in step.get("run", "")] == []


def test_a_release_is_built_from_nothing_and_signed_by_digest() -> None:
    path = GITHUB / "workflows/release.yml"
    text = path.read_text(encoding="utf-8")
    assert load(path)[True] == {"push": {"tags": ["v*"]}}
    assert "actions/cache" not in text
    release = jobs(path)
    matrix = release["build"]["strategy"]["matrix"]
    assert matrix["target"] == ["builder", "publisher"]
    assert {each["platform"]: each["runner"] for each in matrix["include"]} == {
        "linux/amd64": "ubuntu-24.04",
        "linux/arm64": "ubuntu-24.04-arm",
    }
    (build,) = (step for step in release["build"]["steps"] if step.get("id") == "build")
    assert build["with"]["sbom"] is True
    assert build["with"]["provenance"] == "mode=max"
    assert "push-by-digest=true" in build["with"]["outputs"]
    assert "tags" not in build["with"]
    (publish,) = (step for step in release["publish"]["steps"] if step.get("id") == "publish")
    signed = publish["run"].index("cosign sign --yes")
    moved = publish["run"].index('"${tags[@]:1}"')
    assert signed < moved
    assert set(release["build"]["needs"]) == {"ci", "plan"}


def test_ci_runs_every_kind_of_test() -> None:
    ci = jobs(GITHUB / "workflows/ci.yml")
    assert set(ci) == {"lint", "unit", "integration", "e2e", "actions"}
    kept = {name for name, job in ci.items() if "upload-artifact" in str(job)}
    assert kept == {"unit", "integration", "e2e"}


def inputs(name: str) -> Mapping[str, Any]:
    found: Mapping[str, Any] = load(GITHUB / f"actions/{name}/action.yml")["inputs"]
    return found


def environment(name: str) -> Mapping[str, str]:
    """What the step that calls the image gets, without what the script itself reads."""
    last = load(GITHUB / f"actions/{name}/action.yml")["runs"]["steps"][-1]
    return {key: text for key, text in last["env"].items() if not key.startswith("ACTION_")}


def listed(name: str) -> list[str]:
    """The variables that the script hands to the container."""
    script = (GITHUB / f"actions/{name}/{name}.sh").read_text(encoding="utf-8")
    found = re.search(r"^VARIABLES=\((.*?)\)", script, re.MULTILINE | re.DOTALL)
    assert found is not None
    return found[1].split()


def input_of(variable: str) -> str:
    return variable.removeprefix("PLP_").lower().replace("_", "-")


PATHS = {"PLP_SOURCE_PATH", "PLP_BUILD_PATH", "PLP_CACHE_PATH"}
FILES_OF_PUBLISHER = {
    *("PLP_ARTIFACT_PATH", "DOCKER_CONFIG", "REGISTRY_AUTH_FILE", "PLP_REGISTRY_CA_PATH"),
    *("GITHUB_OUTPUT", "GITHUB_STEP_SUMMARY"),
}
TOLD_BY_OUTPUTS = {
    *("PLP_RESULT_FILE", "PLP_RESULT_IMAGE_DIGEST_FILE", "PLP_RESULT_IMAGE_URL_FILE")
}


@pytest.mark.parametrize(
    ("name", "known", "mounted"),
    [
        ("build", settings.VARIABLES, PATHS),
        ("publish", publishing.VARIABLES, FILES_OF_PUBLISHER | TOLD_BY_OUTPUTS),
    ],
)
def test_an_action_has_an_input_for_every_variable(
    name: str, known: Mapping[str, str], mounted: set[str]
) -> None:
    """Paths are mounted, and have inputs that the script reads."""
    expected = [variable for variable in known if variable not in mounted]
    assert listed(name) == expected
    assert environment(name) == {
        variable: f"${{{{ inputs.{input_of(variable)} }}}}" for variable in expected
    }
    for variable in mounted - TOLD_BY_OUTPUTS:
        assert variable.startswith("GITHUB_") or input_of(variable) in inputs(name)


@pytest.mark.parametrize(
    ("name", "table"),
    [
        ("build", settings.TABLE),
        ("publish", publishing.TABLE),
    ],
)
def test_an_input_is_described_as_its_variable(name: str, table: variables.Table[Any]) -> None:
    for variable in listed(name):
        said = inputs(name)[input_of(variable)]["description"]
        assert said == table.described(table.by_name[variable]).meaning


@pytest.mark.parametrize("name", ["build", "publish"])
def test_every_input_is_used(name: str) -> None:
    text = (GITHUB / f"actions/{name}/action.yml").read_text(encoding="utf-8")
    assert [each for each in inputs(name) if f"inputs.{each} " not in text] == []


def test_dependabot_knows_every_place_that_pins_something() -> None:
    updates = load(GITHUB / "dependabot.yml")["updates"]
    places = {
        (each["package-ecosystem"], place)
        for each in updates
        for place in each.get("directories", [each.get("directory")])
    }
    modules = {
        ("gomod", f"/{path.parent.relative_to(ROOT)}")
        for path in (ROOT / "toolchain").rglob("go.mod")
    }
    assert modules <= places
    assert {each[0] for each in places} == {"docker", "github-actions", "gomod", "pip"}
    assert ("pip", "/requirements") in places
    assert all(each["cooldown"]["default-days"] >= 7 for each in updates)


@pytest.mark.parametrize("form", ["bug", "feature"])
def test_forms_ask_for_what_is_needed(form: str) -> None:
    described = load(GITHUB / f"ISSUE_TEMPLATE/{form}.yml")
    assert {"name", "description", "body"} <= set(described)
    fields = [each for each in described["body"] if each["type"] != "markdown"]
    assert len({each["id"] for each in fields}) == len(fields)
    assert all(each["attributes"]["label"] for each in fields)
    assert any(each.get("validations", {}).get("required") for each in fields)
