"""The text of ``--help``, made from the settings model."""

from __future__ import annotations

from plp_builder import __version__, manual
from publisher.settings import TABLE

_HEAD = """\
plp-container-image-publisher {version}

An image archive goes to a registry, under the tags of its commit.

Usage: plp-publisher             publish what the variables below describe
       plp-publisher --version   print the versions of publisher and skopeo
       plp-publisher --help      print this text

`python -m publisher` is the same program.

PLP_IMAGE_REPOSITORY is required, and one of PLP_COMMIT_SHA, PLP_BRANCH, PLP_TAG and
PLP_PULL_REQUEST_NUMBER. An empty variable is not set. Booleans take true/false, 1/0, yes/no,
on/off; durations take units (90, 60s, 1h30m).

Tags: a branch gets BRANCH and BRANCH-SHA7, the default branch also latest; a pull request pr-N and
pr-N-SHA7 and no others; the tag v1.2.3 gets 1.2.3, 1.2 and 1, another one its name; a commit alone
SHA7 and SHA.
"""
_CODES = """\
Exit codes: 0 success, 1 failure, 2 the registry or the credentials do not allow it, 3 the archive
is not valid, 4 a required variable is not set, 143 after SIGTERM, 130 after SIGINT."""


def text() -> str:
    """Rules, all variables in groups with default and meaning, exit codes; at most 100 columns."""
    lines = [*_HEAD.format(version=__version__).splitlines(), *manual.table(TABLE)]
    return "\n".join([*lines, "", _CODES])
