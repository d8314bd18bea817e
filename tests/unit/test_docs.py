"""What the documents say about variables and failures is what the program knows."""

from __future__ import annotations

import re
from pathlib import Path

import pytest

from plp_builder import errors
from plp_builder.settings import NOT_IMPLEMENTED, VARIABLES, Settings, described, load

ROOT = Path(__file__).parents[2]
README = (ROOT / "README.md").read_text(encoding="utf-8")
CONFIGURATION = (ROOT / "docs" / "configuration.md").read_text(encoding="utf-8")
TROUBLESHOOTING = (ROOT / "docs" / "troubleshooting.md").read_text(encoding="utf-8")
ARCHITECTURE = (ROOT / "docs" / "architecture.md").read_text(encoding="utf-8")
PAGES = [ROOT / "README.md", *sorted((ROOT / "docs").glob("*.md"))]
ALL_PAGES = sorted({*PAGES, *ROOT.glob("*.md")})

ROW = re.compile(r"^\| `([A-Z_]+)` \| (`[^`]*`|empty) \|", re.MULTILINE)
SECTION = re.compile(r"^### `([A-Z_]+)`\nDefault: (`[^`]*`|empty)\.", re.MULTILINE)
NAMED_BY_EXAMPLES = {"NPM_TOKEN": "secret", "CI_COMMIT_TITLE": "title", "SSH_AUTH_SOCK": "/agent"}
LINK = re.compile(r"\]\(([^)#]+)(#[^)]*)?\)")
EMPTY = (None, "", ())


def default(field: str) -> str:
    """How the documents write the default of a setting."""
    info = Settings.model_fields[field]
    if info.default in EMPTY:
        return "empty"
    special = {True: "true", False: "false"} if isinstance(info.default, bool) else {}
    return f"`{described(field).default or special.get(info.default, info.default)}`"


DEFAULTS = {variable: default(field) for variable, field in VARIABLES.items()}


@pytest.mark.parametrize(
    ("page", "form"), [(README, ROW), (CONFIGURATION, SECTION)], ids=["README", "configuration"]
)
def test_every_variable_is_documented_with_its_default(page: str, form: re.Pattern[str]) -> None:
    documented = form.findall(page)
    assert dict(documented) == DEFAULTS
    assert len(documented) == len(DEFAULTS)


@pytest.mark.parametrize("page", [README, CONFIGURATION], ids=["README", "configuration"])
def test_what_is_not_implemented_is_named(page: str) -> None:
    named = set(re.findall(r"`((?:PLP_|GIT_|BUILDKITD_|SOURCE_)[A-Z_]+)[`=]", page))
    assert named - set(DEFAULTS) - {"BUILDKITD_FLAGS"} == set(NOT_IMPLEMENTED)


@pytest.mark.parametrize("path", PAGES, ids=lambda path: path.name)
def test_no_page_speaks_of_an_unknown_variable(path: Path) -> None:
    named = set(re.findall(r"\bPLP_[A-Z_]*[A-Z]\b", path.read_text(encoding="utf-8")))
    assert named <= {*DEFAULTS, *NOT_IMPLEMENTED}


def families(failure: type[errors.Failure]) -> set[type[errors.Failure]]:
    below = failure.__subclasses__()
    return {failure}.union(*(families(each) for each in below))


def test_every_failure_has_its_line() -> None:
    """Classes that only group others are never raised; of the cache there are only warnings."""
    groups = {errors.PathFailure, errors.DaemonFailure, errors.Stopped}
    warnings = {errors.CacheDamaged, errors.CacheNotUsable}
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


def test_the_architecture_names_every_module() -> None:
    tree = ARCHITECTURE.partition("plp_builder/\n")[2].partition("publisher/")[0]
    named = re.findall(r"^  (\w+(?:\.py|/)) ", tree, re.MULTILINE)
    package = ROOT / "plp_builder"
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


def test_links_within_the_readme_lead_somewhere() -> None:
    titles = re.findall(r"^#+ (.*)$", README, re.MULTILINE)
    anchors = {re.sub(r"[^\w -]", "", title.lower()).replace(" ", "-") for title in titles}
    assert set(re.findall(r"\]\(#([^)]+)\)", README)) <= anchors
