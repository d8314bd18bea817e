"""Environment → frozen ``Settings``: all variables of the publisher, in the contract's order.

Nothing here reads ``os.environ``: whoever calls passes a mapping in. ``load`` names every problem
of an environment at once.
"""

from __future__ import annotations

from collections.abc import Mapping
from functools import partial
from pathlib import Path
from typing import Annotated, Any, Final, NamedTuple

from plp_builder import naming, reading
from plp_builder.errors import VariableMissing
from plp_builder.values import parse_boolean, parse_duration, parse_integer, shown
from plp_builder.variables import Table, Usable, in_group, one_of
from publisher import hiding, syntax
from publisher.names import DEFAULT_ARCHIVE, MEANT, NAMES, OF_BUILDER

MAX_RETRIES = 100
_IMAGE, _TAGS, _REGISTRY = in_group("Image"), in_group("Tags"), in_group("Registry")
_RUN, _RESULTS = in_group("Run"), in_group("Results")


class Settings(NamedTuple):
    """Everything that the environment asks for, parsed, complete and frozen.

    Unset is the default shown, or None, "" or (). ``image_repository`` is complete
    (``docker.io/library/alpine``), commit and names of branch and tag are without ``refs/…``.
    """

    # fmt: off
    artifact_path: Annotated[
        Path, _IMAGE("archive to push: a file, or a directory with one archive", syntax.parse_path),
    ] = Path(DEFAULT_ARCHIVE)
    image_repository: Annotated[
        str, _IMAGE("registry/name, without a tag; required", syntax.parse_repository)] = ""

    commit_sha: Annotated[
        str, _TAGS("commit: 7 to 64 hexadecimal digits", syntax.parse_commit)] = ""
    branch: Annotated[
        str, _TAGS("branch, also as refs/heads/NAME", syntax.parse_branch)] = ""
    tag: Annotated[
        str, _TAGS("git tag, also as refs/tags/NAME", syntax.parse_tag)] = ""
    pull_request_number: Annotated[
        int | None, _TAGS("number; false is not set", syntax.parse_number)] = None
    is_default_branch: Annotated[
        bool, _TAGS("the branch also gets latest", parse_boolean)] = False
    extra_tags: Annotated[
        tuple[str, ...],
        _TAGS("further tags by comma or line", syntax.parse_extra_tags)] = ()

    registry_username: Annotated[
        str, _REGISTRY("user name", syntax.parse_username)] = ""
    registry_password: Annotated[
        str, _REGISTRY("password", syntax.parse_password, secret=True)] = ""
    registry_token: Annotated[
        str, _REGISTRY("token, instead of a password", syntax.parse_password, secret=True)] = ""
    docker_config: Annotated[
        Path | None, _REGISTRY("directory of a Docker config.json", syntax.parse_path)] = None
    registry_auth_file: Annotated[
        Path | None, _REGISTRY("credentials as skopeo and podman keep them",
                               syntax.parse_path)] = None
    registry_insecure: Annotated[
        bool, _REGISTRY("plain HTTP, or TLS that is not verified", parse_boolean)] = False
    registry_ca_path: Annotated[
        Path | None, _REGISTRY("certificate(s) of a CA: PEM, a file or a directory",
                               syntax.parse_path)] = None

    push_retries: Annotated[
        int, _RUN("further attempts where one failed",
                  partial(parse_integer, low=0, high=MAX_RETRIES))] = 5
    timeout: Annotated[
        float | None, _RUN("of the whole run: 30m, 1h30m, 90", parse_duration)] = None
    stall_timeout: Annotated[
        float, _RUN("of a transfer in which nothing moves", parse_duration, default="5m")] = 300.0
    dry_run: Annotated[
        bool, _RUN("verify the archive, print the tags, push nothing", parse_boolean)] = False
    log_format: Annotated[
        str, _RUN("console or json", one_of("console", "json"))] = "console"
    log_level: Annotated[
        str, _RUN("debug, info, warning or error",
                  one_of("debug", "info", "warning", "error"))] = "info"
    debug: Annotated[
        bool, _RUN("tell more", parse_boolean)] = False

    result_file: Annotated[
        Path | None, _RESULTS("gets the result as JSON", syntax.parse_path)] = None
    result_image_digest_file: Annotated[
        Path | None, _RESULTS("gets the digest", syntax.parse_path)] = None
    result_image_url_file: Annotated[
        Path | None, _RESULTS("gets registry/name:tag", syntax.parse_path)] = None
    github_output: Annotated[
        Path | None, _RESULTS("set by GitHub: gets digest, image, tags", syntax.parse_path)] = None
    github_step_summary: Annotated[
        Path | None, _RESULTS("set by GitHub: gets a summary", syntax.parse_path)] = None
    # fmt: on

    def __repr__(self) -> str:
        """No secret, and no password."""
        fields = ", ".join(f"{name}={value!r}" for name, value in TABLE.shown(self))
        return f"Settings({fields})"


TABLE: Final = Table(Settings, NAMES)
VARIABLES: Final[Mapping[str, str]] = TABLE.by_name
"""The field behind each variable, in the order of the contract."""

READ: Final = ("artifact_path", "docker_config", "registry_auth_file", "registry_ca_path")
"""The fields that name what is read: nothing may be written there."""
WRITTEN: Final = (
    *("result_file", "result_image_digest_file", "result_image_url_file"),
    *("github_output", "github_step_summary"),
)
"""The fields that name files of results."""

_MISSING_HINT: Final = "Set what is named above; `--help` describes every variable."
_NUMBERS: Final = ("PLP_PULL_REQUEST_NUMBER", "PLP_MERGE_REQUEST_NUMBER")
_SOURCES: Final = ("commit_sha", "branch", "tag", "pull_request_number")


def load(environ: Mapping[str, str]) -> Settings:
    """The settings that ``environ`` asks for.

    Raises VariableMissing, whose ``why`` names everything that is missing and what cannot be used
    besides, or SettingInvalid with a line for every problem when nothing is missing. Both name
    variables that nobody knows.
    """
    read = load_usable(environ)
    if read.failure:
        raise read.failure
    return read.settings


def load_usable(environ: Mapping[str, str]) -> Usable[Settings]:
    """The settings as far as they can be used, and what `load` would raise. Raises nothing.

    A result file gets to know of bad settings, too, if it is not one of them. There is none where
    one of `READ` is bad: what must not be written to is not known then.
    """
    # Buildkite's false must not hide, nor contradict, a number under the other name.
    none = {name for name in _NUMBERS if environ.get(name, "").strip().lower() == "false"}
    given = {name: text for name, text in environ.items() if name not in none}
    read = reading.load_usable(TABLE, given, _conflicts)
    if read.bad.intersection(READ):
        read = read._replace(settings=_without_results(read.settings))
    missing = _missing(read.settings, read.bad, environ)
    if not missing and not read.failure:
        return read
    # A misspelt name often is what is missing.
    why = (*missing, *(read.failure.why if read.failure else ()), *unknown_variables(environ))
    if not missing and read.failure:
        failure = type(read.failure)(read.failure.what, why=why, hint=read.failure.hint)
        return read._replace(failure=failure)
    what = "a required variable is not set"
    if len(missing) > 1:
        what = f"{len(missing)} required variables are not set"
    return read._replace(failure=VariableMissing(what, why=why, hint=_MISSING_HINT))


def _without_results(settings: Settings) -> Settings:
    nowhere: dict[str, Any] = dict.fromkeys(WRITTEN)
    return settings._replace(**nowhere)


def _missing(settings: Settings, bad: frozenset[str], environ: Mapping[str, str]) -> list[str]:
    """A sentence for everything that must be set and is not."""

    def is_set(*fields: str) -> bool:
        return any(field in bad or getattr(settings, field) for field in fields)

    sentences = []
    if not is_set("image_repository"):
        sentences.append("PLP_IMAGE_REPOSITORY is not set: where to push, as registry/name")
    if not is_set(*_SOURCES):
        sentences.append(
            "none of PLP_COMMIT_SHA, PLP_BRANCH, PLP_TAG and PLP_PULL_REQUEST_NUMBER is set: "
            "the tags come from them"
            + (" (GIT_SHA is for the builder alone)" if environ.get("GIT_SHA") else "")
        )
    if is_set("registry_password") and not is_set("registry_username"):
        sentences.append("PLP_REGISTRY_USERNAME is not set, but PLP_REGISTRY_PASSWORD is")
    if is_set("registry_username") and not is_set("registry_password", "registry_token"):
        sentences.append(
            "neither PLP_REGISTRY_PASSWORD nor PLP_REGISTRY_TOKEN is set, "
            "but PLP_REGISTRY_USERNAME is"
        )
    return sentences


def _conflicts(settings: Settings, _bad: frozenset[str]) -> list[str]:
    """A sentence for each pair of variables that cannot be what they are together."""
    sentences = []
    if settings.registry_password and settings.registry_token:
        sentences.append(
            "PLP_REGISTRY_PASSWORD and PLP_REGISTRY_TOKEN are both set; set one of them"
        )
    if settings.branch.startswith("refs/") and settings.pull_request_number is None:
        sentences.append(
            f"PLP_BRANCH: {shown(settings.branch)} is no branch; set it for branches alone, "
            "tags to PLP_TAG and pull requests to PLP_PULL_REQUEST_NUMBER"
        )
    return sentences


def unknown_variables(environ: Mapping[str, str]) -> tuple[str, ...]:
    """A sentence for each PLP_ variable that no program of this project knows."""
    known = {*VARIABLES, *NAMES.aliases.values()}
    return naming.unknown(environ, known, OF_BUILDER, MEANT)


def secret_values(settings: Settings) -> tuple[str, ...]:
    """What no log may show."""
    username, password = settings.registry_username, settings.registry_password
    return (*hiding.secrets(username, password), *hiding.secrets(username, settings.registry_token))
