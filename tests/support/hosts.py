"""What the examples for CI hosts make their hosts do, taken out of the very files.

Only what they use is known: a list of commands by POSIX shell, GitLab's expansion of variables,
Jenkins' ``sh`` blocks.
"""

from __future__ import annotations

import re
import textwrap
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import yaml

FOLDER = Path(__file__).parents[2] / "examples/hosts"
_SH = re.compile(r"\bsh '''(.*?)'''", re.DOTALL)
_CONSTANT = re.compile(r"^ +([A-Z_]+) = '([^']*)'$", re.MULTILINE)
_VARIABLE = re.compile(r"\$(?:\{(\w+)\}|(\w+))")


def read(name: str) -> str:
    """The text of an example."""
    return (FOLDER / name).read_text(encoding="utf-8")


def load(name: str) -> Any:
    """An example in YAML."""
    return yaml.safe_load(read(name))


def script(commands: Sequence[str]) -> str:
    """What a host makes of a list of commands: each in turn, the first failure ends it."""
    return "\n".join(["set -e", *commands, ""])


def gitlab(job: str, given: Mapping[str, str]) -> tuple[dict[str, str], str]:
    """Environment and script of a job of gitlab-ci.yml, with what GitLab sets."""
    described = load("gitlab-ci.yml")[job]

    def value(found: re.Match[str]) -> str:
        return given.get(found[1] or found[2], "")

    own = {key: _VARIABLE.sub(value, str(text)) for key, text in described["variables"].items()}
    return {**given, **own}, script(described["script"])


def pipeline(name: str, step: str, secrets: Mapping[str, str]) -> tuple[dict[str, str], str]:
    """Environment and script of a step of woodpecker.yml or drone.yml."""
    (described,) = (each for each in load(name)["steps"] if each["name"] == step)
    env = {
        key: secrets[text["from_secret"]] if isinstance(text, dict) else str(text)
        for key, text in described.get("environment", {}).items()
    }
    return env, script(described["commands"])


def jenkins() -> tuple[dict[str, str], list[str]]:
    """The constants of the Jenkinsfile's environment, and its scripts in order."""
    text = read("Jenkinsfile")
    blocks = [textwrap.dedent(block) for block in _SH.findall(text)]
    # In Groovy's ''' a backslash at the end of a line joins it with the next.
    scripts = [block.replace("\\\n", "") for block in blocks]
    return dict(_CONSTANT.findall(text)), scripts
