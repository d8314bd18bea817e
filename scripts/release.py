"""What a release says and which tags its images get: from CHANGELOG.md and the version.

``notes TAG [FILE…]`` prints the section of the tag's version, and the images named in the files;
``tags TAG`` prints the images' tags in one line. Needs nothing but Python.
"""

from __future__ import annotations

import re
import sys
from collections.abc import Iterable, Sequence
from pathlib import Path

from plp_builder import __version__

_ROOT = Path(__file__).parents[1]
_TAG = re.compile(r"v(?P<version>(?P<minor>(?P<major>\d+)\.\d+)\.\d+(?P<pre>-[0-9A-Za-z.-]+)?)")


class ReleaseError(Exception):
    """Tag, version and changelog do not belong together."""


def version_of(tag: str, program: str) -> re.Match[str]:
    """The parts of a tag that names the program's version. Raises ReleaseError."""
    found = _TAG.fullmatch(tag)
    if found is None:
        raise ReleaseError(f"{tag} is no version tag, such as v1.2.3 or v1.2.3-rc.1")
    if found["version"] != program:
        raise ReleaseError(f"{tag} is not the version of plp_builder/__init__.py, {program}")
    return found


def tags(tag: str, program: str = __version__) -> tuple[str, ...]:
    """The images' tags, the one that never moves first; a pre-release has no other."""
    found = version_of(tag, program)
    full = found["version"]
    if found["pre"]:
        return (full,)
    return (full, found["minor"], found["major"], "latest")


def notes(tag: str, changelog: str, images: Iterable[str] = (), program: str = __version__) -> str:
    """The changelog's section of the version, then the images. Raises ReleaseError."""
    version = version_of(tag, program)["version"]
    head = re.compile(rf"^## \[{re.escape(version)}\] - \d{{4}}-\d{{2}}-\d{{2}}$", re.MULTILINE)
    found = head.search(changelog)
    if found is None:
        raise ReleaseError(f"CHANGELOG.md has no line ## [{version}] - YEAR-MONTH-DAY")
    text = re.split(
        r"^(?:## |\[[^]]+\]: )", changelog[found.end() :], maxsplit=1, flags=re.MULTILINE
    )
    section = text[0].strip()
    if not section:
        raise ReleaseError(f"CHANGELOG.md says nothing of {version}")
    names = [name.strip() for name in images]
    listed = ["### Images", "", *(f"- `{name}`" for name in names)] if names else []
    return "\n".join([section, "", *listed]).rstrip() + "\n"


def main(arguments: Sequence[str]) -> int:
    """Print what is asked for; returns the exit code."""
    try:
        match arguments:
            case ["tags", tag]:
                print(*tags(tag))
            case ["notes", tag, *files]:
                images = [Path(file).read_text(encoding="utf-8") for file in files]
                changelog = (_ROOT / "CHANGELOG.md").read_text(encoding="utf-8")
                print(notes(tag, changelog, images), end="")
            case _:
                raise ReleaseError("usage: python3 -m scripts.release notes|tags TAG [FILE…]")
    except ReleaseError as error:
        print(error, file=sys.stderr)
        return 1
    return 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
