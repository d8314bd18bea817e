"""Environment in, settings out: what is accepted, what is refused, and what the errors say."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from plp_builder import reading, settings
from plp_builder.errors import SettingInvalid, SettingNotImplemented
from plp_builder.settings import ALIASES, VARIABLES, load
from plp_builder.syntax import names
from plp_builder.syntax.conflicts import conflicts
from plp_builder.values import AddHost, BuildContext, KeyValue, Mirror, Secret, Ssh, Ulimit
from tests.corpus.hostile_values import HOSTILE, VERBATIM_PAIRS, Hostile, together

TEXT = st.text(st.characters(exclude_categories=[]), max_size=60)


def problems(environ: Mapping[str, str]) -> tuple[str, ...]:
    """The lines of the failure that ``environ`` ends with."""
    with pytest.raises(SettingInvalid) as caught:
        load(environ)
    return caught.value.why


def refusal(environ: Mapping[str, str]) -> tuple[str, ...] | None:
    """The lines of the failure, or None when ``environ`` is accepted."""
    try:
        load(environ)
    except SettingInvalid as failure:
        return failure.why
    return None


def test_the_defaults_are_those_of_the_contract() -> None:
    found = load({})
    assert (found.source_path, found.build_path) == (Path("/source"), Path("/build"))
    assert found.cache_path == Path("/tmp/cache")
    assert (found.context, found.dockerfile) == (Path(), Path("Dockerfile"))
    assert (found.frontend, found.outputs) == ("dockerfile.v0", ("archive",))
    assert (found.archive_name, found.archive_format) == ("container-image.tar", "auto")
    assert (found.compression, found.cache_strategy, found.cache_mode) == ("gzip", "auto", "max")
    assert (found.cache_max_size, found.start_timeout) == (10_000_000_000, 60.0)
    assert (found.cache_lock_timeout, found.verify, found.cache_mounts) == (600.0, "new", ())
    assert (found.progress, found.log_format, found.log_level) == ("auto", "console", "info")
    empty = set(VARIABLES.values()) - {
        "source_path", "build_path", "cache_path", "context", "dockerfile", "frontend", "outputs",
        "archive_name", "archive_format", "compression", "cache_strategy", "cache_mode",
        "cache_max_size", "cache_lock_timeout", "verify", "start_timeout", "progress",
        "log_format", "log_level",
    }  # fmt: skip
    assert not any(getattr(found, field) for field in empty)


def test_an_empty_variable_is_not_set() -> None:
    assert load(dict.fromkeys([*VARIABLES, "BUILDKITD_FLAGS"], "")) == load({})


def test_settings_are_frozen() -> None:
    with pytest.raises(AttributeError):
        load({}).target = "other"  # type: ignore[misc]


MOSTLY_PLAIN = st.one_of(
    st.sampled_from(["", ".", "/x", "a b", "1", "auto", "https://u:p@h/x.git"])
    | st.sampled_from(["A=1", "A=1\nA=2", "A", "linux/amd64", "linux/amd64,linux/arm64", "base"])
    | st.sampled_from(["docker.io=127.0.0.1:5000", "r.example:5000", "http://r.example", "a,a"]),
    st.text(),
)


@given(environ=st.dictionaries(st.sampled_from([*VARIABLES, *ALIASES.values()]), MOSTLY_PLAIN))
def test_what_is_plain_is_read_as_the_library_would(environ: dict[str, str]) -> None:
    by_library = reading.load_usable(settings.TABLE, environ, conflicts)
    if names.is_plain(environ):
        assert by_library.failure is None
    found = settings.load_usable(environ)
    assert found[:2] == by_library[:2]
    assert (found.failure is None) == (by_library.failure is None)


@pytest.mark.parametrize("name", sorted(names.TAKEN_OR_REFUSED))
def test_what_is_simple_is_read_as_the_library_would(name: str) -> None:
    texts = [entry.value for entry in HOSTILE if entry.value.isascii()]
    for text in (*texts, "A=1\nB=2", "linux/amd64", "docker.io=127.0.0.1:5000", "r.example:5000"):
        environ = {name: text, "A": "of the environment"}
        by_library = reading.load_usable(settings.TABLE, environ, conflicts)
        found = settings.load_usable(environ)
        assert found[:2] == by_library[:2]
        assert repr(found.failure) == repr(by_library.failure)


@pytest.mark.parametrize(
    "entry", HOSTILE, ids=[f"{n}-{entry.variable}" for n, entry in enumerate(HOSTILE)]
)
def test_hostile_values_are_verbatim_or_refused_by_name(entry: Hostile) -> None:
    environ = {**entry.environ, entry.variable: entry.value}
    if entry.arrives == "refused":
        assert any(entry.variable in line for line in problems(environ))
        return
    found = load(environ)
    field = VARIABLES[entry.variable]
    value = getattr(found, field)
    if entry in VERBATIM_PAIRS:
        assert value == (KeyValue(*entry.pair),)
    elif isinstance(value, tuple):
        assert value == (entry.value,)
    else:
        assert str(value) == entry.value
    fields = VARIABLES.values()
    changed = [name for name in fields if getattr(found, name) != settings.default(name)]
    assert changed == [field]


@pytest.mark.parametrize("variable", ["PLP_LABELS", "PLP_ANNOTATIONS", "PLP_BUILD_ARGS"])
def test_hostile_lines_do_not_disturb_each_other(variable: str) -> None:
    environ, expected = together(variable)
    pairs = getattr(load(environ), VARIABLES[variable])
    assert {pair.key: pair.value for pair in pairs} == expected


def test_the_corpus_covers_every_variable() -> None:
    assert {entry.variable for entry in HOSTILE} >= {*VARIABLES, *settings.NOT_IMPLEMENTED}
    assert len(HOSTILE) >= 200


@pytest.mark.parametrize("variable", VARIABLES)
@given(text=TEXT)
def test_whatever_text_is_a_value_or_refused_by_name(variable: str, text: str) -> None:
    lines = refusal({variable: text})
    assert lines is None or lines
    assert all(line.startswith(variable) and line.isprintable() for line in lines or ())


def test_all_problems_are_named_at_once() -> None:
    lines = problems(
        {
            "GIT_SHA": "\udcff",
            "PLP_NETWORK": "bridge",
            "PLP_LABELS": "a\n=b",
            "PLP_TIMEOUT": "soon",
            "PLP_SBOM": "on",
            "PLP_OUTPUTS": "rootfs",
            "PLP_COMPRESSION_LEVEL": "9",
            "PLP_COMPRESSION": "uncompressed",
        }
    )
    assert [line.split()[0].rstrip(":") for line in lines] == [
        "GIT_SHA",
        "PLP_LABELS",
        "PLP_LABELS",
        "PLP_NETWORK",
        "PLP_TIMEOUT",
        "PLP_COMPRESSION_LEVEL",
        "PLP_SBOM",
        "PLP_OUTPUTS",
    ]


def test_what_can_be_used_beside_what_cannot() -> None:
    environ = {"PLP_PULL": "maybe", "GIT_SHA": "\udcff", "PLP_SBOM": "on", "PLP_TARGET": "x"}
    found = settings.load_usable(environ)
    assert found.settings == load({"PLP_TARGET": "x"})
    assert found.bad == {"pull", "git_sha"}
    assert found.failure is not None
    assert found.failure.why == problems(environ)
    assert settings.load_usable({}) == (load({}), frozenset(), None)


def test_a_problem_says_what_was_given_and_what_is_accepted() -> None:
    assert problems({"PLP_CACHE_MODE": "all\x1b[m"}) == (
        'PLP_CACHE_MODE: "all\\x1b[m" is not accepted; use min or max',
    )


@pytest.mark.parametrize(
    ("name", "value"), [("PLP_PROVENANCE", "max"), ("PLP_OUTPUTS", "archive,registry")]
)
def test_what_a_later_version_brings_says_so(name: str, value: str) -> None:
    with pytest.raises(SettingNotImplemented) as caught:
        load({name: value})
    assert len(caught.value.why) == 1
    assert caught.value.why[0].startswith(name)
    assert "not implemented in this version" in caught.value.why[0]


@pytest.mark.parametrize(
    ("name", "value", "said"),
    [
        ("PLP_OUTPUTS", "docker", '"docker" is not accepted; use archive or none'),
        ("PLP_OUTPUTS", "registry,docker", '"docker" is not accepted; use archive or none'),
        ("PLP_CACHE_STRATEGY", "on", '"on" is not accepted; use auto, state, portable or off'),
        ("PLP_VERIFY", "no", '"no" is not accepted; use new or full'),
        ("PLP_CACHE_LOCK_TIMEOUT", "21d", '"21d" is out of range; use 0 up to 20d'),
        ("PLP_CACHE_MOUNTS", "pip, ALL", '"all" stands alone'),
        ("PLP_CACHE_MOUNTS", "pip\rnpm", "control character \\r"),
        ("PLP_PLATFORMS", "arm64", '"arm64" names no system; use linux/arm64'),
        ("PLP_PLATFORMS", "aarch64", '"aarch64" names no system; use linux/arm64'),
        ("PLP_PLATFORMS", "ARM/v6", '"ARM/v6" names no system; use linux/arm/v6'),
        ("PLP_BUILD_ARGS", "a b", "line 1: white space is no part of a name"),
        ("PLP_BUILD_ARGS", "a=1\n b =2", "line 2: white space is no part of a name"),
        ("PLP_SECRETS", "npm", "use id=npm,env=NPM_TOKEN or id=npm,src=/run/npm-token"),
    ],
)
def test_a_refusal_offers_what_this_version_accepts(name: str, value: str, said: str) -> None:
    (line,) = problems({name: value})
    assert line.startswith(f"{name}: ")
    assert said in line
    assert not any(later in line.partition(";")[2] for later in ("registry", "rootfs"))


@pytest.mark.parametrize("name", settings.NOT_IMPLEMENTED)
def test_what_asks_for_nothing_is_accepted(name: str) -> None:
    for harmless in ("", *settings.NOT_IMPLEMENTED[name]):
        assert load({name: harmless}) == load({})


def test_a_bare_build_argument_takes_its_value_from_the_environment() -> None:
    environ = {"PLP_BUILD_ARGS": "TOKEN\nUNSET\nx=1", "TOKEN": "two\nlines"}
    assert load(environ).build_args == (KeyValue("TOKEN", "two\nlines"), KeyValue("x", "1"))
    assert settings.warnings(environ) == (
        "PLP_BUILD_ARGS names UNSET, which is not set: the build argument is left out",
    )


def test_warnings_are_no_place_for_errors() -> None:
    """Whoever asks for warnings about a text that load() refuses gets none."""
    assert settings.warnings({"PLP_BUILD_ARGS": "A\r\nB"}) == ()
    assert settings.warnings({"PLP_BUILD_ARGS": "\x1b[31mA"}) == ()


@pytest.mark.parametrize(
    ("line", "said"),
    [
        ("id=a,env=", "env= is empty"),
        ("id=,src=/x", "id= is empty"),
        ("id=a,id=b,src=/x", "id= is given twice"),
        ("src=/x", "id= is missing"),
        ("id=a,src=/x,env=X", "use env= or src="),
        ("id=a,src=/x\nid=a,src=/y", 'the id "a" is given twice'),
    ],
)
def test_a_bad_secret_says_what_is_wrong(line: str, said: str) -> None:
    (problem,) = problems({"PLP_SECRETS": line})
    assert said in problem


def test_no_value_of_a_build_argument_or_secret_is_shown() -> None:
    environ = {
        "PLP_BUILD_ARGS": "A\nB\nC=hunter2",
        "A": "hunter2" + "x" * 140_000,
        "B": "hunter2\udcff",
        "PLP_SECRETS": "hunter2\nid=a,env=hunter2=\nid=b,env=S,value=hunter2\nid=c,type=hunter2",
        "S": "hunter2",
        "GIT_REPOSITORY_URL": "https://me:hunter2@example.org/\n",
        "PLP_REGISTRY_MIRRORS": "https://me:hunter2@example.org",
    }
    lines = "\n".join(problems(environ))
    assert lines.count("PLP_SECRETS") == 4
    assert "hunter2=" not in lines.replace('"hunter2="', "")
    assert "hunter2" not in lines.replace('the variable "hunter2="', "")


def test_no_value_of_a_build_argument_or_secret_is_represented() -> None:
    environ = {
        "PLP_BUILD_ARGS": "TOKEN",
        "TOKEN": "hunter2",
        "PLP_SECRETS": "id=a,env=TOKEN",
        "GIT_REPOSITORY_URL": "https://me:hunter2@example.org/x",
        "PLP_BUILD_CONTEXTS": "more=https://me:hunter2@example.org/x.git",
    }
    assert "hunter2" not in repr(load(environ)) + str(load(environ))


@pytest.mark.parametrize("strategy", ["auto", "state", "portable", "off"])
def test_cache_strategies(strategy: str) -> None:
    assert load({"PLP_CACHE_STRATEGY": strategy}).cache_strategy == strategy


@pytest.mark.parametrize(
    ("text", "ids"),
    [
        ("pip", ("pip",)),
        ("/root/.cache/pip, npm\n  a=b c\n\nnpm,", ("/root/.cache/pip", "npm", "a=b c")),
        ("all", ("all",)),
        (" All\n", ("all",)),
        (",", ()),
    ],
)
def test_cache_mounts(text: str, ids: tuple[str, ...]) -> None:
    assert load({"PLP_CACHE_MOUNTS": text}).cache_mounts == ids


@pytest.mark.parametrize(("text", "seconds"), [("0", 0.0), ("0s", 0.0), ("1h30m", 5400.0)])
def test_the_wait_for_the_state(text: str, seconds: float) -> None:
    assert load({"PLP_CACHE_LOCK_TIMEOUT": text}).cache_lock_timeout == seconds


def test_secrets() -> None:
    environ = {
        "PLP_SOURCE_PATH": "/src",
        "TOKEN": "x",
        "id-is-variable": "y",
        "PLP_SECRETS": "id=a,env=TOKEN\nid=b,src=/f\nid=c,source=rel/f\nid=d,type=env,src=TOKEN\n"
        'id=id-is-variable\nid=file\n"id=e,f","src=/a,b ""c"""\nid=g,type=env,env=TOKEN\n'
        "ID=h,type=file,src=/h\nid=TOKEN,type=env\nid=i,type=file",
    }
    assert load(environ).secrets == (
        Secret("a", "TOKEN", None),
        Secret("b", None, Path("/f")),
        Secret("c", None, Path("/src/rel/f")),
        Secret("d", "TOKEN", None),
        Secret("id-is-variable", "id-is-variable", None),
        Secret("file", None, Path("/src/file")),
        Secret("e,f", None, Path('/a,b "c"')),
        Secret("g", "TOKEN", None),
        Secret("h", None, Path("/h")),
        Secret("TOKEN", "TOKEN", None),
        Secret("i", None, Path("/src/i")),
    )
    assert settings.secret_values(load(environ), environ) == ("x", "y")


@pytest.mark.parametrize(
    ("value", "said"), [(None, "not set"), ("", "empty"), ("x" * 512_001, "longer than 500 KiB")]
)
def test_a_secret_from_an_unusable_variable(value: str | None, said: str) -> None:
    environ = {"PLP_SECRETS": "id=a,env=TOKEN"} | ({} if value is None else {"TOKEN": value})
    (line,) = problems(environ)
    assert line.startswith('PLP_SECRETS: line 1: the variable "TOKEN" is ')
    assert said in line


def test_ssh() -> None:
    environ = {"PLP_SSH": "default\nkeys=/a,rel/b\nempty=", "SSH_AUTH_SOCK": "/agent.sock"}
    assert load(environ).ssh == (
        Ssh("default", (Path("/agent.sock"),)),
        Ssh("keys", (Path("/a"), Path("/source/rel/b"))),
        Ssh("empty", (Path("/agent.sock"),)),
    )


def test_an_agent_socket_that_the_syntax_cannot_carry() -> None:
    assert "comma" in problems({"PLP_SSH": "default", "SSH_AUTH_SOCK": "/a,b"})[0]


def test_build_contexts_get_the_name_that_the_frontend_looks_up() -> None:
    text = (
        "base=/x=y,z\ndocker.io/library/alpine:latest=docker-image://busybox\n"
        "alpine:3=oci-layout:///x:tag\nrepo=https://example.org/x.git#main\nempty="
        "docker-image://scratch\nrel=../other\nhost:5000/a=git@example.org:x"
    )
    assert load({"PLP_BUILD_CONTEXTS": text}).build_contexts == (
        BuildContext("base", "/x=y,z"),
        BuildContext("alpine", "docker-image://busybox"),
        BuildContext("alpine:3", "oci-layout:///x:tag"),
        BuildContext("repo", "https://example.org/x.git#main"),
        BuildContext("empty", "docker-image://scratch"),
        BuildContext("rel", "../other"),
        BuildContext("host:5000/a", "git@example.org:x"),
    )


@pytest.mark.parametrize(
    ("text", "platforms"),
    [
        ("linux/amd64", ("linux/amd64",)),
        ("linux/amd64, linux/arm64\nlinux/arm/v6", ("linux/amd64", "linux/arm64", "linux/arm/v6")),
        ("Linux/x86_64,linux/amd64/v1", ("linux/amd64",)),
        ("linux/aarch64,linux/arm64/8", ("linux/arm64",)),
        ("linux/arm,linux/arm/v7", ("linux/arm",)),
        (",", ()),
    ],
)
def test_platforms(text: str, platforms: tuple[str, ...]) -> None:
    assert load({"PLP_PLATFORMS": text}).platforms == platforms


def test_hosts() -> None:
    text = "a:1.2.3.4,B.c=5.6.7.8\nd:::1,e=[2001:db8::1]"
    assert load({"PLP_ADD_HOSTS": text}).add_hosts == (
        AddHost("a", "1.2.3.4"),
        AddHost("b.c", "5.6.7.8"),
        AddHost("d", "::1"),
        AddHost("e", "2001:db8::1"),
    )


def test_limits() -> None:
    text = "nofile=1\nnofile=1024:2048,core=0,memlock=-1,cpu=5:-1"
    assert load({"PLP_ULIMITS": text}).ulimits == (
        Ulimit("nofile", 1024, 2048),
        Ulimit("core", 0, 0),
        Ulimit("memlock", -1, -1),
        Ulimit("cpu", 5, -1),
    )


def test_registries() -> None:
    found = load(
        {
            "PLP_REGISTRY_MIRRORS": "mirror:5000/path,ghcr.io=[::1]:5000\nmirror:5000/path",
            "PLP_INSECURE_REGISTRIES": "localhost:5000, 10.0.0.1",
        }
    )
    assert found.registry_mirrors == (
        Mirror("docker.io", "mirror:5000/path"),
        Mirror("ghcr.io", "[::1]:5000"),
    )
    assert found.insecure_registries == ("localhost:5000", "10.0.0.1")


def test_the_flags_of_buildkitd_have_two_names() -> None:
    flags = "--oci-worker-no-process-sandbox --x='a b'"
    expected = ("--oci-worker-no-process-sandbox", "--x=a b")
    assert load({"PLP_BUILDKITD_FLAGS": flags}).buildkitd_flags == expected
    assert load({"BUILDKITD_FLAGS": flags}).buildkitd_flags == expected
    both = {"BUILDKITD_FLAGS": flags, "PLP_BUILDKITD_FLAGS": flags}
    assert load(both).buildkitd_flags == expected
    assert "differ" in problems(both | {"BUILDKITD_FLAGS": "--debug"})[0]
    assert len(problems({"BUILDKITD_FLAGS": "--root=x", "PLP_BUILDKITD_FLAGS": "--addr=x"})) == 2


@pytest.mark.parametrize(
    ("environ", "said"),
    [
        ({"PLP_COMPRESSION_LEVEL": "22"}, "gzip has the levels 0 to 9"),
        ({"PLP_COMPRESSION": "uncompressed", "PLP_COMPRESSION_LEVEL": "1"}, "has no levels"),
        ({"PLP_ARCHIVE_FORMAT": "docker", "PLP_PLATFORMS": "linux/amd64,linux/arm64"}, "use oci"),
        ({"PLP_ARCHIVE_FORMAT": "docker", "PLP_BUILD_ARGS": "BUILDKIT_MULTI_PLATFORM=1"}, "oci"),
        ({"PLP_OFFLINE": "1", "PLP_NETWORK": "host"}, "contradicts PLP_OFFLINE"),
        ({"SOURCE_DATE_EPOCH": "2", "PLP_BUILD_ARGS": "SOURCE_DATE_EPOCH=1"}, "set the variable"),
        ({"PLP_CACHE_MOUNTS": "all", "PLP_CACHE_STRATEGY": "off"}, "=off keeps none; unset one"),
        ({"PLP_CACHE_MOUNTS": "a", "PLP_CACHE_STRATEGY": "state"}, "=state keeps none; unset one"),
        (
            {"PLP_BUILD_ARGS": "\n".join(f"A{n}" for n in range(20))}
            | {f"A{n}": "x" * 100_000 for n in range(20)},
            "longer than 1.5 MiB together",
        ),
    ],
)
def test_conflicts(environ: dict[str, str], said: str) -> None:
    (line,) = problems(environ)
    assert said in line


@pytest.mark.parametrize(
    "environ",
    [
        {"PLP_COMPRESSION": "zstd", "PLP_COMPRESSION_LEVEL": "22"},
        {"PLP_ARCHIVE_FORMAT": "oci", "PLP_PLATFORMS": "linux/amd64,linux/arm64"},
        {"PLP_OFFLINE": "1", "PLP_NETWORK": "none"},
        {"SOURCE_DATE_EPOCH": "1", "PLP_BUILD_ARGS": "SOURCE_DATE_EPOCH"},
        {"PLP_CACHE_MOUNTS": "all", "PLP_CACHE_STRATEGY": "portable"},
        {"PLP_CACHE_MOUNTS": ",", "PLP_CACHE_STRATEGY": "off"},
    ],
)
def test_no_conflicts(environ: dict[str, str]) -> None:
    load(environ)


def test_a_bad_field_is_not_also_a_conflict() -> None:
    """The level fits zstd; that the type is misspelt must not be told as a wrong level of gzip."""
    environ = {"PLP_COMPRESSION": "zstdd", "PLP_COMPRESSION_LEVEL": "20"}
    assert [line.split(":")[0] for line in problems(environ)] == ["PLP_COMPRESSION"]


def test_unknown_variables_are_named_with_the_nearest_known_one() -> None:
    environ = {
        "PLP_TAGS": "x",
        "PLP_CASHE_PATH": "x",
        "PLP_X": "",
        "PLP_PROVENENCE": "",
        "PLP_TAG": "v1",
        "X": "",
    }
    assert settings.unknown_variables(environ) == (
        "PLP_CASHE_PATH is unknown; did you mean PLP_CACHE_PATH?",
        "PLP_PROVENENCE is unknown; did you mean PLP_PROVENANCE?",
        "PLP_TAGS is unknown; did you mean PLP_IMAGE?",
        "PLP_X is unknown",
    )
    assert settings.unknown_variables(dict.fromkeys(VARIABLES, "")) == ()


def test_a_problem_in_every_variable_at_once() -> None:
    environ: dict[str, str] = {}
    for entry in HOSTILE:
        if entry.arrives == "refused" and entry.variable not in environ:
            environ |= {**entry.environ, entry.variable: entry.value}
    del environ["SET"], environ["BUILDKITD_FLAGS"]
    # Which levels there are is not known while PLP_COMPRESSION itself is refused.
    del environ["PLP_COMPRESSION_LEVEL"]
    named = {line.replace(":", " ").split()[0] for line in problems(environ)}
    assert named == set(environ)
