"""What a release says, and the tags that its images get."""

from __future__ import annotations

import pytest

from scripts.release import ReleaseError, main, notes, tags

CHANGELOG = """\
# Changelog

## [Unreleased]

- Not yet.

## [1.2.0] - 2026-11-01

### Added

- Something.

## [1.2.0-rc.1] - 2026-10-01

- Nearly something.

[1.2.0]: https://example.com/1.2.0
"""


def test_the_notes_are_the_section_of_the_version() -> None:
    assert notes("v1.2.0", CHANGELOG, program="1.2.0") == "### Added\n\n- Something.\n"
    images = ["ghcr.io/o/a@sha256:1\n", "ghcr.io/o/b@sha256:2\n"]
    text = notes("v1.2.0-rc.1", CHANGELOG, images, program="1.2.0-rc.1")
    assert text == (
        "- Nearly something.\n\n### Images\n\n- `ghcr.io/o/a@sha256:1`\n- `ghcr.io/o/b@sha256:2`\n"
    )


@pytest.mark.parametrize(
    ("tag", "program", "says"),
    [
        ("v1.2.0", "1.3.0", "not the version"),
        ("1.2.0", "1.2.0", "no version tag"),
        ("v1.2", "1.2", "no version tag"),
        ("v1.2.0\n", "1.2.0", "no version tag"),
        ("v1.3.0", "1.3.0", "has no line"),
    ],
)
def test_what_does_not_belong_together_is_no_release(tag: str, program: str, says: str) -> None:
    with pytest.raises(ReleaseError, match=says):
        notes(tag, CHANGELOG, program=program)


def test_an_empty_section_is_no_release() -> None:
    with pytest.raises(ReleaseError, match="says nothing"):
        notes(
            "v1.0.0", "## [1.0.0] - 2026-01-01\n\n## [0.9.0] - 2025-01-01\n- x\n", program="1.0.0"
        )


def test_the_tags_of_a_version() -> None:
    assert tags("v1.2.3", "1.2.3") == ("1.2.3", "1.2", "1", "latest")
    assert tags("v1.2.3-rc.1", "1.2.3-rc.1") == ("1.2.3-rc.1",)


def test_the_command_ends_with_1_where_nothing_fits(capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["notes", "v0.0.0-not-this"]) == 1
    assert main(["tags"]) == 1
    assert "usage:" in capsys.readouterr().err
