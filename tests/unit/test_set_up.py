"""The set-up: what is built when, and who may run the rootless tests."""

from __future__ import annotations

import pwd
from pathlib import Path

import pytest

from scripts.set_up import packages, toolchain
from scripts.set_up.packages import Package, missing
from scripts.set_up.step import ROOT, SetupError, cache_home, content_key, lock, step
from scripts.set_up.test_user import has_ranges, ranges
from scripts.set_up.toolchain import MODULES, Module, lowest_go, place

BUILDKIT = "github.com/moby/buildkit"


def module(directory: Path, text: str, main: str = BUILDKIT) -> Module:
    (directory / "go.mod").write_text(text)
    return Module("example", directory, directory / "bin", main)


def test_a_module_tells_its_version_and_programs(tmp_path: Path) -> None:
    made = module(
        tmp_path,
        "module example\n\ngo 1.26.3\n\n"
        "tool (\n\tgithub.com/moby/buildkit/cmd/buildctl\n\texample.org/x/v3/cmd/kit\n)\n\n"
        "require (\n\tgithub.com/moby/buildkit-other v9.9.9\n"
        "\tgithub.com/moby/buildkit v0.32.2 // indirect\n)\n",
    )
    assert made.version() == "v0.32.2"
    assert made.packages() == ("github.com/moby/buildkit/cmd/buildctl", "example.org/x/v3/cmd/kit")
    assert made.go_line() == (1, 26, 3)
    assert "buildkit/version.Version=v0.32.2" in made.linker_flags()


def test_a_module_may_have_a_single_tool_line(tmp_path: Path) -> None:
    made = module(tmp_path, "tool example.org/a/cmd/one\n\nrequire example.org/a v1.0.0\n", "x")
    assert made.packages() == ("example.org/a/cmd/one",)
    assert "version" not in made.linker_flags()


def test_a_module_without_its_main_dependency_is_refused(tmp_path: Path) -> None:
    with pytest.raises(SetupError, match="does not require github"):
        module(tmp_path, "module example\n").version()


def test_the_modules_of_this_repository_can_be_built() -> None:
    programs = [Path(package).name for each in MODULES for package in each.packages()]
    assert programs == [
        *["buildctl", "buildkitd", "rootlesskit"] * 2,
        *["registry", "crane", "regctl"],
        "actionlint",
    ]
    assert len({each.version() for each in MODULES}) == 4
    assert lowest_go() >= (1, 26)


def programs_of(modules: tuple[Module, ...]) -> list[str]:
    return [str(each.destination / Path(p).name) for each in modules for p in each.packages()]


def test_a_build_needs_no_tools_of_the_tests() -> None:
    """They take minutes to build, and docker.io brings an engine."""
    builds = [str(ROOT / f"bin/{name}") for name in ("buildctl", "buildkitd")]
    assert programs_of(toolchain.needed(tests=False)) == [
        *builds,
        str(ROOT / "bin/rootlesskit"),
    ]
    assert toolchain.needed(tests=True) == MODULES
    names = {package.name for package in packages.needed(tests=False)}
    assert names == {
        *("git", "ca-certificates", "runc", "uidmap", "slirp4netns", "isal", "skopeo"),
        "python3-venv",
    }
    assert packages.needed(tests=True) == packages.PACKAGES


def test_a_step_is_one_line(capsys: pytest.CaptureFixture[str]) -> None:
    with step("Tools") as current:
        assert capsys.readouterr().out.strip() == "Tools"
        current.outcome = "there"
    assert capsys.readouterr().out.startswith("there  (")


def test_a_long_step_says_what_to_expect_before_it_works(
    capsys: pytest.CaptureFixture[str],
) -> None:
    with step("Tools") as current:
        current.begin("building them, about 3 minutes")
        said = capsys.readouterr().out
        assert said.split(maxsplit=1) == ["Tools", "building them, about 3 minutes …\n"]
        current.outcome = "built"
    assert capsys.readouterr().out.split()[0] == "built"


def test_a_step_that_failed_says_so(capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(SetupError), step("Tools"):
        raise SetupError("no tools")
    assert "failed  (" in capsys.readouterr().out


def test_a_key_changes_with_every_part(tmp_path: Path) -> None:
    file = tmp_path / "file"
    file.write_text("one")
    first = content_key(file, "flags")
    assert first == content_key(b"one", "flags")
    assert first != content_key(file, "other")
    file.write_text("two")
    assert first != content_key(file, "flags")


def test_parts_of_a_key_do_not_run_together() -> None:
    assert content_key("ab", "c") != content_key("a", "bc")


@pytest.mark.parametrize("base", ["", "relative"])
def test_only_an_absolute_cache_home_counts(base: str, monkeypatch: pytest.MonkeyPatch) -> None:
    """The XDG base directory specification: relative paths are to be ignored."""
    monkeypatch.setenv("HOME", "/home/somebody")
    assert str(cache_home({"XDG_CACHE_HOME": base})).startswith("/home/somebody/.cache/plp-")
    assert str(cache_home({"XDG_CACHE_HOME": "/c"})).startswith("/c/plp-")


def test_a_program_is_placed_and_replaced(tmp_path: Path) -> None:
    source, target = tmp_path / "cache/tool", tmp_path / "bin/compat/tool"
    source.parent.mkdir()
    source.write_text("old")
    source.chmod(0o755)
    place(source, target)
    assert (target.read_text(), target.stat().st_mode & 0o777) == ("old", 0o755)
    newer = tmp_path / "cache/newer"
    newer.write_text("newer")
    place(newer, target)
    assert target.read_text() == "newer"
    assert source.read_text() == "old"
    assert [path.name for path in target.parent.iterdir()] == ["tool"]


def test_a_lock_makes_its_directory(tmp_path: Path) -> None:
    with lock(tmp_path / "deep/lock"):
        assert (tmp_path / "deep/lock").exists()


def test_missing_packages_are_those_not_present() -> None:
    there = Package("there", lambda: True, "purpose")
    absent = Package("absent", lambda: False, "purpose")
    assert missing((there, absent)) == (absent,)


def account(name: str, uid: int) -> pwd.struct_passwd:
    return pwd.struct_passwd((name, "x", uid, uid, "", f"/home/{name}", "/bin/sh"))


def test_subordinate_ranges_are_added_up(tmp_path: Path) -> None:
    (tmp_path / "subuid").write_text("ann:100000:65536\nann:300000:10\n# note\nbad:1\nbo:1:9\n")
    assert ranges(tmp_path / "subuid") == {"ann": 65546, "bo": 9}
    assert ranges(tmp_path / "none") == {}


@pytest.mark.parametrize(
    ("subuid", "subgid", "enough"),
    [
        ("ann:100000:65536\n", "ann:100000:65536\n", True),
        ("1005:100000:65536\n", "ann:100000:65536\n", True),
        ("ann:100000:65536\n", "", False),
        ("ann:100000:65535\n", "ann:100000:65536\n", False),
        ("bo:100000:65536\n", "bo:100000:65536\n", False),
    ],
)
def test_a_user_needs_both_ranges(tmp_path: Path, subuid: str, subgid: str, enough: bool) -> None:
    (tmp_path / "subuid").write_text(subuid)
    (tmp_path / "subgid").write_text(subgid)
    assert has_ranges(account("ann", 1005), tmp_path) is enough
