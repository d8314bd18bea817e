"""What the documents say about variables and failures is what the program knows."""

from __future__ import annotations

import json
import re
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import pytest

from plp_builder import errors
from plp_builder.settings import NOT_IMPLEMENTED, TABLE, VARIABLES, load
from plp_builder.variables import Table
from publisher import settings as publishing
from publisher.names import NAMES as PUBLISHER_NAMES
from publisher.results import Failed, Outcome, TagOutcome, result_file

ROOT = Path(__file__).parents[2]
README = (ROOT / "README.md").read_text(encoding="utf-8")
CONFIGURATION = (ROOT / "docs" / "configuration.md").read_text(encoding="utf-8")
PUBLISHING = (ROOT / "docs" / "publishing.md").read_text(encoding="utf-8")
TROUBLESHOOTING = (ROOT / "docs" / "troubleshooting.md").read_text(encoding="utf-8")
ARCHITECTURE = (ROOT / "docs" / "architecture.md").read_text(encoding="utf-8")
PAGES = [ROOT / "README.md", *sorted((ROOT / "docs").glob("*.md"))]
ALL_PAGES = sorted({*PAGES, *ROOT.glob("*.md")})

ROW = re.compile(r"^\| `([A-Z_]+)` \| (`[^`]*`|empty) \|", re.MULTILINE)
SECTION = re.compile(r"^### `([A-Z_]+)`\nDefault: (`[^`]*`|empty)\.", re.MULTILINE)
NAMED_BY_EXAMPLES = {"NPM_TOKEN": "secret", "CI_COMMIT_TITLE": "title", "SSH_AUTH_SOCK": "/agent"}
LINK = re.compile(r"\]\(([^)#]+)(#[^)]*)?\)")
EMPTY = (None, "", ())


def default(table: Table[Any], field: str) -> str:
    """How the documents write the default of a setting."""
    value = table.defaults[field]
    if value in EMPTY:
        return "empty"
    special = {True: "true", False: "false"} if isinstance(value, bool) else {}
    return f"`{table.described(field).default or special.get(value, value)}`"


def defaults(table: Table[Any]) -> Mapping[str, str]:
    """Every variable of a program with its default."""
    return {variable: default(table, field) for variable, field in table.by_name.items()}


DEFAULTS = defaults(TABLE)
PUBLISHERS = {*publishing.VARIABLES, *PUBLISHER_NAMES.aliases.values()}
"""The variables of the publisher under all their names."""


@pytest.mark.parametrize(
    ("page", "form", "table"),
    [
        (README, ROW, TABLE),
        (CONFIGURATION, SECTION, TABLE),
        (PUBLISHING, ROW, publishing.TABLE),
    ],
    ids=["README", "configuration", "publishing"],
)
def test_every_variable_is_documented_with_its_default(
    page: str, form: re.Pattern[str], table: Table[Any]
) -> None:
    documented = form.findall(page)
    assert dict(documented) == defaults(table)
    assert len(documented) == len(defaults(table))


@pytest.mark.parametrize("page", [README, CONFIGURATION], ids=["README", "configuration"])
def test_what_is_not_implemented_is_named(page: str) -> None:
    named = set(re.findall(r"`((?:PLP_|GIT_|BUILDKITD_|SOURCE_)[A-Z_]+)[`=]", page))
    others = PUBLISHERS - set(NOT_IMPLEMENTED)
    assert named - set(DEFAULTS) - others - {"BUILDKITD_FLAGS"} == set(NOT_IMPLEMENTED)


@pytest.mark.parametrize("path", PAGES, ids=lambda path: path.name)
def test_no_page_speaks_of_an_unknown_variable(path: Path) -> None:
    named = set(re.findall(r"\bPLP_[A-Z_]*[A-Z]\b", path.read_text(encoding="utf-8")))
    assert named <= {*DEFAULTS, *NOT_IMPLEMENTED, *PUBLISHERS}


def families(failure: type[errors.Failure]) -> set[type[errors.Failure]]:
    below = failure.__subclasses__()
    return {failure}.union(*(families(each) for each in below))


def test_every_failure_has_its_line() -> None:
    """Classes that only group others are never raised; of the cache there are only warnings."""
    groups = {errors.PathFailure, errors.DaemonFailure, errors.Stopped}
    warnings = families(errors.CacheDamaged) | families(errors.CacheNotUsable)
    raised = families(errors.Failure) - groups - warnings
    table = TROUBLESHOOTING.partition("## Names of failures")[2].partition("\n## ")[0]
    rows = [line.split("|")[1] for line in table.splitlines() if line.startswith("| `")]
    named = {name for row in rows for name in re.findall(r"`([a-z-]+)`", row)}
    assert named == {failure.name for failure in raised}
    assert all(f"`{failure.name}`" in TROUBLESHOOTING for failure in warnings)


@pytest.mark.parametrize("path", PAGES, ids=lambda path: path.name)
def test_links_lead_somewhere(path: Path) -> None:
    targets = [target for target, _ in LINK.findall(path.read_text(encoding="utf-8"))]
    local = [target for target in targets if "://" not in target]
    assert [target for target in local if not (path.parent / target).exists()] == []


def examples() -> dict[str, str]:
    """The block below each variable that has one, in the form that the variable takes."""
    sections = re.findall(r"^### `(\w+)`\n([^#]*)", CONFIGURATION, re.MULTILINE)
    found = ((variable, re.search(r"```\n([^`]*)```", text)) for variable, text in sections)
    return {variable: block[1] for variable, block in found if block}


def test_every_example_is_accepted() -> None:
    """Each line is an entry of its own: quoting that swallows a neighbour is seen, too."""
    settings = load({**NAMED_BY_EXAMPLES, **examples()})
    entries = {variable: len(block.splitlines()) for variable, block in examples().items()}
    assert set(entries) == {
        "PLP_BUILD_ARGS", "PLP_LABELS", "PLP_SECRETS", "PLP_SSH", "PLP_BUILD_CONTEXTS"
    }  # fmt: skip
    for variable, number in entries.items():
        assert len(getattr(settings, VARIABLES[variable])) == number, variable


def test_the_examples_of_quoting_mean_what_they_seem_to() -> None:
    settings = load({**NAMED_BY_EXAMPLES, **examples()})
    assert settings.secrets[-1] == ("odd", None, Path("/run/secrets/a, b"))
    assert settings.build_args[1].value == 'commas, "quotes" and = signs need no quoting'
    assert settings.labels[1] == ("com.example.note", 'a, "b" = c')
    assert settings.ssh[-1] == ("github", (Path("/keys/first"), Path("/keys/second")))


@pytest.mark.parametrize("program", ["plp_builder", "publisher"])
def test_the_architecture_names_every_module(program: str) -> None:
    tree = re.split(r"^(?! )", ARCHITECTURE.partition(f"\n{program}/\n")[2], flags=re.MULTILINE)[0]
    named = re.findall(r"^  (\w+(?:\.py|/)) ", tree, re.MULTILINE)
    package = ROOT / program
    modules = {path.name for path in package.glob("*.py")} - {"__init__.py"}
    rooms = {f"{path.parent.name}/" for path in package.glob("*/__init__.py")}
    assert sorted(named) == sorted(modules | rooms)


def test_the_tree_for_contributors_is_there() -> None:
    tree = (ROOT / "CONTRIBUTING.md").read_text(encoding="utf-8").partition("## Tree")[2]
    named = re.findall(r"^    (\w+)/", tree, re.MULTILINE)
    assert "tests" in named
    assert [name for name in named if not (ROOT / name).is_dir()] == []


@pytest.mark.parametrize("path", ALL_PAGES, ids=lambda path: path.name)
def test_lines_of_prose_fit_a_window(path: Path) -> None:
    """Tables and blocks of code cannot be broken."""
    prose = "".join(path.read_text(encoding="utf-8").split("```")[::2])
    assert [line for line in prose.splitlines() if len(line) > 102 and line[0] != "|"] == []


def anchors(path: Path) -> set[str]:
    """What can follow the # in a link to a page."""
    titles = re.findall(r"^#+ (.*)$", path.read_text(encoding="utf-8"), re.MULTILINE)
    return {re.sub(r"[^\w -]", "", title.lower()).replace(" ", "-") for title in titles}


@pytest.mark.parametrize("path", PAGES, ids=lambda path: path.name)
def test_links_to_titles_lead_somewhere(path: Path) -> None:
    links = re.findall(r"\]\(([^)#:]*)#([^)]+)\)", path.read_text(encoding="utf-8"))
    lost = [link for link in links if link[1] not in anchors(path.parent / (link[0] or path.name))]
    assert lost == []


EXAMPLES = re.findall(r"```(?:sh|yaml)\n(.*?)```", PUBLISHING, re.DOTALL)


@pytest.mark.parametrize("example", EXAMPLES, ids=["first", "shell", "github", "gitlab", "tekton"])
def test_the_examples_of_publishing_give_what_is_required(example: str) -> None:
    """Values of CI systems stand for something: each gets a text that its variable accepts."""
    named = set(re.findall(r"\b((?:PLP_[A-Z_]+|DOCKER_CONFIG)\b)(?=[:=,])", example))
    assert named <= PUBLISHERS
    accepted = {
        "PLP_IMAGE_REPOSITORY": "registry.example.com/team/app",
        "PLP_COMMIT_SHA": "0123456",
        "PLP_PULL_REQUEST_NUMBER": "",
        "PLP_MERGE_REQUEST_NUMBER": "",
        "PLP_IS_DEFAULT_BRANCH": "true",
        "PLP_REGISTRY_INSECURE": "true",
    }
    publishing.load({name: accepted.get(name, f"/x/{name}") for name in named})


def test_the_members_of_the_result_are_documented() -> None:
    tag = TagOutcome("main", "pushed")
    outcome = Outcome(
        "r/a", "sha256:0", "", (tag,), Path("a.tar"), 1, (), 1, 1.0, 0, dry_run=False, notes=()
    )
    failed = Failed(errors.ArchiveInvalid("no archive"), outcome)
    table = PUBLISHING.partition("## Results for programs")[2].partition("\n## ")[0]
    rows = [line.split("|")[1] for line in table.splitlines() if line.startswith("| `")]
    named = {name for row in rows for name in re.findall(r"`(\w+)`", row)}
    assert named == set(json.loads(result_file.text(failed, str)))
