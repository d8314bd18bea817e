"""What the documents say about variables and failures is what the program knows."""

from __future__ import annotations

import re
from pathlib import Path

import pytest

from plp_builder import errors
from plp_builder.settings import NOT_IMPLEMENTED, VARIABLES, Settings, described

ROOT = Path(__file__).parents[2]
README = (ROOT / "README.md").read_text(encoding="utf-8")
CONFIGURATION = (ROOT / "docs" / "configuration.md").read_text(encoding="utf-8")
TROUBLESHOOTING = (ROOT / "docs" / "troubleshooting.md").read_text(encoding="utf-8")
PAGES = [ROOT / "README.md", *sorted((ROOT / "docs").glob("*.md"))]

ROW = re.compile(r"^\| `([A-Z_]+)` \| (`[^`]*`|empty) \|", re.MULTILINE)
SECTION = re.compile(r"^### `([A-Z_]+)`\nDefault: (`[^`]*`|empty)\.", re.MULTILINE)
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
