"""Settings become the argument list of buildctl: every value in the form that arrives."""

from __future__ import annotations

import csv
from datetime import UTC, datetime
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from plp_builder import settings, solve
from plp_builder.preflight.inputs import NamedContext
from plp_builder.preflight.paths import Paths
from plp_builder.values import KeyValue

NOW = datetime(2024, 5, 6, 7, 8, 9, tzinfo=UTC)
DIGEST = "sha256:" + "0" * 64


def paths(syntax: str = "") -> Paths:
    return Paths(
        source=Path("/s"),
        context=Path("/s/c"),
        dockerfile_dir=Path("/s/d"),
        dockerfile_name="Dockerfile",
        build=Path("/b"),
        cache=None,
        syntax=syntax,
    )


class Words:
    """The argument list, by flag."""

    def __init__(self, environ: dict[str, str], syntax: str = "", **more: object) -> None:
        loaded = settings.load(environ)
        self.request = solve.request(loaded, paths(syntax), now=NOW, **more)  # type: ignore[arg-type]
        self.list = solve.arguments(self.request)

    def values(self, flag: str) -> list[str]:
        return [self.list[at + 1] for at, word in enumerate(self.list) if word == flag]

    def options(self) -> dict[str, str]:
        pairs = [value.partition("=") for value in self.values("--opt")]
        return {key: value for key, _, value in pairs}

    def output(self) -> dict[str, str]:
        (value,) = self.values("--output")
        return fields(value)


def fields(record: str) -> dict[str, str]:
    (row,) = csv.reader([record], strict=True)
    pairs = [field.partition("=") for field in row]
    return {key: value for key, _, value in pairs}


def test_nothing_but_defaults() -> None:
    assert Words({}).list == (
        "build", "--progress", "rawjson", "--frontend", "dockerfile.v0",
        "--local", "context=/s/c", "--local", "dockerfile=/s/d",
        "--opt", "filename=Dockerfile",
        "--output",
        (
            "type=docker,oci-mediatypes=true,compression=gzip,"
            "annotation.org.opencontainers.image.created=2024-05-06T07:08:09Z"
        ),
    )  # fmt: skip


def test_the_archive_has_no_destination_that_could_be_truncated() -> None:
    assert "dest" not in Words({"PLP_IMAGE": "a/b:1"}).output()


@pytest.mark.parametrize(
    ("environ", "kind"),
    [
        ({}, "docker"),
        ({"PLP_PLATFORMS": "linux/arm64"}, "docker"),
        ({"PLP_PLATFORMS": "linux/amd64,linux/arm64"}, "oci"),
        ({"PLP_BUILD_ARGS": "BUILDKIT_MULTI_PLATFORM=1"}, "oci"),
        ({"PLP_BUILD_ARGS": "BUILDKIT_MULTI_PLATFORM=0"}, "docker"),
        ({"PLP_ARCHIVE_FORMAT": "oci"}, "oci"),
        ({"PLP_ARCHIVE_FORMAT": "docker"}, "docker"),
    ],
)
def test_exporter(environ: dict[str, str], kind: str) -> None:
    assert Words(environ).output()["type"] == kind


def test_no_output_is_asked_for() -> None:
    assert Words({"PLP_OUTPUTS": "none"}).values("--output") == []


def test_only_the_first_name_goes_to_the_exporter() -> None:
    assert Words({"PLP_IMAGE": "one/a:1,two/b:2"}).output()["name"].endswith("one/a:1")


def test_compression() -> None:
    output = Words({"PLP_COMPRESSION": "zstd", "PLP_COMPRESSION_LEVEL": "19"}).output()
    assert output["compression"] == "zstd"
    assert output["force-compression"] == "true"
    assert output["compression-level"] == "19"


def test_gzip_leaves_the_layers_of_base_images_alone() -> None:
    assert "force-compression" not in Words({"PLP_COMPRESSION_LEVEL": "9"}).output()


def test_reproducible() -> None:
    words = Words({"SOURCE_DATE_EPOCH": "1700000000"})
    assert words.options()["build-arg:SOURCE_DATE_EPOCH"] == "1700000000"
    assert words.output()["rewrite-timestamp"] == "true"


def test_options_of_a_build() -> None:
    environ = {
        "PLP_TARGET": "app",
        "PLP_PLATFORMS": "linux/amd64,linux/arm64",
        "PLP_BUILD_ARGS": "A=1=2\nB=",
        "PLP_LABELS": "l=x y",
        "PLP_PULL": "true",
        "PLP_NETWORK": "host",
        "PLP_ADD_HOSTS": "a:1.2.3.4\nb:::1",
        "PLP_SHM_SIZE": "64m",
        "PLP_ULIMITS": "nofile=1024:2048,nproc=5",
    }
    assert Words(environ).options() == {
        "filename": "Dockerfile",
        "target": "app",
        "platform": "linux/amd64,linux/arm64",
        "build-arg:A": "1=2",
        "build-arg:B": "",
        "label:l": "x y",
        "image-resolve-mode": "pull",
        "force-network-mode": "host",
        "add-hosts": "a=1.2.3.4,b=::1",
        "shm-size": str(64 * 2**20),
        "ulimit": "nofile=1024:2048,nproc=5:5",
    }


def test_the_host_network_needs_an_entitlement() -> None:
    assert Words({"PLP_NETWORK": "host"}).values("--allow") == ["network.host"]
    assert Words({"PLP_NETWORK": "none"}).values("--allow") == []


def test_offline_steps_have_no_network() -> None:
    assert Words({"PLP_OFFLINE": "1"}).options()["force-network-mode"] == "none"


@pytest.mark.parametrize(
    ("offline", "syntax", "overridden"),
    [
        ("1", "docker/dockerfile:1", True),
        ("1", "docker.io/docker/dockerfile:1.7@" + DIGEST, True),
        ("1", "docker/dockerfile-upstream:master", True),
        ("1", "example.com/own/frontend", False),
        ("1", "example.com/docker/dockerfile:1", False),
        ("1", "", False),
        ("", "docker/dockerfile:1", False),
    ],
)
def test_syntax_line(offline: str, syntax: str, *, overridden: bool) -> None:
    """Offline, BuildKit's own frontend takes the official one's place, and no other's."""
    assert ("cmdline" in Words({"PLP_OFFLINE": offline}, syntax).options()) is overridden


def test_frontend_image() -> None:
    words = Words({"PLP_FRONTEND": "docker/dockerfile:1.9"}, "docker/dockerfile:1")
    assert words.values("--frontend") == ["gateway.v0"]
    options = words.options()
    assert options["source"] == options["cmdline"] == "docker/dockerfile:1.9"


def test_no_cache_imports_nothing_but_exports() -> None:
    imports = (solve.LocalCache(Path("/c"), DIGEST),)
    export = solve.CacheExport(Path("/e"), "t", "max")
    words = Words({"PLP_NO_CACHE": "1"}, cache_imports=imports, cache_export=export)
    assert "--no-cache" in words.list
    assert words.values("--import-cache") == []
    assert len(words.values("--export-cache")) == 1


def test_local_caches() -> None:
    imports = (solve.LocalCache(Path('/a,b"c'), DIGEST), solve.LocalCache(Path("/d"), DIGEST))
    export = solve.CacheExport(Path("/e,f"), "tag", "min")
    words = Words({"PLP_COMPRESSION": "zstd"}, cache_imports=imports, cache_export=export)
    assert [fields(value) for value in words.values("--import-cache")] == [
        {"type": "local", "src": '/a,b"c', "digest": DIGEST},
        {"type": "local", "src": "/d", "digest": DIGEST},
    ]
    assert fields(words.values("--export-cache")[0]) == {
        "type": "local",
        "dest": "/e,f",
        "tag": "tag",
        "mode": "min",
        "ignore-error": "true",
        "compression": "zstd",
        "force-compression": "true",
    }


def test_a_cache_from_a_registry() -> None:
    reference = f"127.0.0.1:5000/name@{DIGEST}"
    words = Words({}, cache_imports=(solve.RegistryCache(reference),))
    assert [fields(value) for value in words.values("--import-cache")] == [
        {"type": "registry", "ref": reference}
    ]


def test_named_contexts() -> None:
    contexts = (
        NamedContext("alpine", source="docker-image://alpine:3"),
        NamedContext("context", path=Path("/x,y=z")),
        NamedContext("base", path=Path("/layout"), digest=DIGEST),
    )
    words = Words({}, contexts=contexts)
    options = words.options()
    assert options["context:alpine"] == "docker-image://alpine:3"
    scheme, _, name = options["context:context"].partition(":")
    assert scheme == "local"
    # A context named "context" must not replace the build's own.
    assert name not in {"context", "dockerfile"}
    assert f"{name}=/x,y=z" in words.values("--local")
    assert "context=/s/c" in words.values("--local")
    (layout,) = words.values("--oci-layout")
    name, _, path = layout.partition("=")
    assert (path, options["context:base"]) == ("/layout", f"oci-layout://{name}@{DIGEST}")


SECRETS = {
    "PLP_SECRETS": 'id=one,env=TOKEN\n"id=two,2","src=/run/a,""b"""\nid=three,env=OTEL_X',
    "TOKEN": "value-of-one",
    "OTEL_X": "value-of-three",
}


def test_secrets_are_named_and_never_shown() -> None:
    words = Words(SECRETS)
    one, two, three = (fields(value) for value in words.values("--secret"))
    assert two == {"id": "two,2", "src": '/run/a,"b"'}
    environment = solve.environment(words.request, SECRETS)
    assert environment[one["env"]] == "value-of-one"
    assert environment[three["env"]] == "value-of-three"
    assert "value-of" not in " ".join(words.list)
    assert "value-of" not in repr(words.request)


def test_a_secret_cannot_steer_buildctl() -> None:
    """A secret in a variable that buildctl reads: it would become a build argument."""
    environ = {"PLP_SECRETS": "id=x,env=SOURCE_DATE_EPOCH", "SOURCE_DATE_EPOCH": "1"}
    environment = solve.environment(Words(environ).request, environ)
    assert "SOURCE_DATE_EPOCH" not in environment
    assert "1" in environment.values()


def test_environment_of_buildctl() -> None:
    kept = {
        "PATH": "/bin", "HOME": "/h", "DOCKER_CONFIG": "/d", "https_proxy": "p", "NO_PROXY": "n",
        "SSH_AUTH_SOCK": "/a", "AWS_PROFILE": "x",
    }  # fmt: skip
    dropped = {
        "SOURCE_DATE_EPOCH": "1", "BUILDKIT_HOST": "x", "OTEL_SERVICE_NAME": "x", "CI_TOKEN": "x",
        "TRACEPARENT": "x", "PLP_SOURCE_PATH": "/s", "ACTIONS_RUNTIME_TOKEN": "x", "DEBUG": "1",
    }  # fmt: skip
    assert solve.environment(Words({}).request, {**kept, **dropped}) == kept


def test_ssh() -> None:
    environ = {"PLP_SSH": "default\nkeys=/a,/b", "SSH_AUTH_SOCK": "/run/agent"}
    assert Words(environ).values("--ssh") == ["default=/run/agent", "keys=/a,/b"]


@pytest.mark.parametrize(
    ("environ", "named"),
    [
        ({"PLP_SSH": "-x=/a"}, "PLP_SSH"),
        ({"PLP_SSH": "x=b", "PLP_SOURCE_PATH": "/with,comma"}, "PLP_SSH"),
    ],
)
def test_refusals_name_the_variable(environ: dict[str, str], named: str) -> None:
    (problem,) = solve.refusals(settings.load(environ))
    assert problem.startswith(named)


def test_nothing_to_refuse() -> None:
    assert solve.refusals(settings.load({"PLP_SSH": "a=/b"})) == ()


VALUES = st.text(st.characters(codec="utf-8", exclude_characters="\n\r\0"), max_size=60)
KEYS = st.text("abcxyz019._-/", min_size=1, max_size=12)


@given(st.dictionaries(KEYS, VALUES, max_size=5))
def test_output_attributes_survive_csv(pairs: dict[str, str]) -> None:
    """No value can end its field, so none can add or change another attribute."""
    request = solve.SolveRequest(
        frontend="dockerfile.v0",
        options=(),
        locals=(),
        output=tuple(KeyValue(f"annotation.{key}", value) for key, value in pairs.items()),
    )
    words = solve.arguments(request)
    expected = {f"annotation.{key}": value for key, value in pairs.items()}
    found = fields(words[words.index("--output") + 1]) if pairs else {}
    assert found == expected


@given(st.dictionaries(KEYS, VALUES, max_size=5), st.dictionaries(KEYS, VALUES, max_size=5))
def test_arguments_and_labels_are_words_of_their_own(
    arguments: dict[str, str], labels: dict[str, str]
) -> None:
    """Whatever a value looks like, it stands behind its flag, whole and in order."""
    options = tuple(
        [KeyValue(f"build-arg:{key}", value) for key, value in arguments.items()]
        + [KeyValue(f"label:{key}", value) for key, value in labels.items()]
    )
    request = solve.SolveRequest(frontend="dockerfile.v0", options=options, locals=())
    rest = list(solve.arguments(request)[5:])
    assert rest[::2] == ["--opt"] * len(options)
    assert rest[1::2] == [f"{option.key}={option.value}" for option in options]
