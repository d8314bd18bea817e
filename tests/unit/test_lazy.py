"""Modules that are executed at their first use."""

from __future__ import annotations

import importlib
import sys
from collections.abc import Iterator
from pathlib import Path
from types import ModuleType
from typing import TYPE_CHECKING

import pytest

from plp_builder import lazy
from plp_builder.lazy import lazily

SOURCE = "executed = True\nfrom later_package import part\nvalue = part.value\n"


@pytest.fixture
def modules(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Path]:
    """A directory of modules that are on sys.path and not imported yet."""
    monkeypatch.syspath_prepend(str(tmp_path))
    (tmp_path / "later_package").mkdir()
    (tmp_path / "later_package/__init__.py").write_text(SOURCE)
    (tmp_path / "later_package/part.py").write_text("value = 7\n")
    (tmp_path / "later_broken.py").write_text("raise OSError('broken')\n")
    before = set(sys.modules)
    yield tmp_path
    for name in set(sys.modules) - before:
        del sys.modules[name]


def executed(module: ModuleType) -> bool:
    return "executed" in vars(module)


def test_an_import_statement_does_not_execute_the_module(modules: Path) -> None:
    lazily("later_package")
    module = importlib.import_module("later_package")
    assert not executed(module)
    assert module.value == 7
    assert executed(module)
    assert type(module) is ModuleType
    assert module.__file__ == str(modules / "later_package/__init__.py")


def test_a_submodule_executes_its_package_first(modules: Path) -> None:
    lazily("later_package")
    part = importlib.import_module("later_package.part")
    assert part.value == 7
    assert executed(sys.modules["later_package"])


@pytest.mark.usefixtures("modules")
def test_what_is_known_of_a_module_does_not_execute_it(monkeypatch: pytest.MonkeyPatch) -> None:
    """As with typing.TYPE_CHECKING, of which nearly every module begins by importing it."""
    assert lazy._KNOWN["typing"] == {"TYPE_CHECKING": TYPE_CHECKING}
    monkeypatch.setitem(lazy._KNOWN, "later_broken", {"known": 7})
    lazily("later_broken")
    assert __import__("later_broken", fromlist=["known"]).known == 7
    with pytest.raises(OSError, match="broken"):
        _ = __import__("later_broken", fromlist=["unknown"]).unknown


def test_a_module_that_fails_is_imported_anew_the_next_time(modules: Path) -> None:
    lazily("later_broken")
    module = importlib.import_module("later_broken")
    with pytest.raises(OSError, match="broken"):
        _ = module.anything
    assert "later_broken" not in sys.modules


def test_what_is_imported_or_missing_is_left_alone(modules: Path) -> None:
    module = importlib.import_module("later_package")
    lazily("later_package", "later_and_missing")
    assert sys.modules["later_package"] is module
    assert "later_and_missing" not in sys.modules


def test_an_attribute_that_does_not_exist(modules: Path) -> None:
    lazily("later_package")
    with pytest.raises(AttributeError, match="nothing"):
        _ = importlib.import_module("later_package").nothing
