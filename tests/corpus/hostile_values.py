"""Hostile values for every variable: each arrives verbatim or is refused by name.

Pure data, used twice: unit tests hold the settings to it, and integration tests build images and
read back what arrived. ``together`` puts all verbatim lines of a variable into one value, so that
one build checks all labels, annotations and build arguments at once.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Literal, NamedTuple


class Hostile(NamedTuple):
    """``variable`` set to ``value``, besides ``environ``; ``arrives`` is what must come of it.

    For "verbatim", ``pairs`` are the keys and values that must be found in the image, for
    variables of ``KEY=value`` lines; for others the settings tests know what to compare.
    """

    variable: str
    value: str
    arrives: Literal["verbatim", "refused"]
    environ: Mapping[str, str] = {}

    @property
    def pair(self) -> tuple[str, str]:
        """Key and value of a ``KEY=value`` line; of a bare key, what its variable holds."""
        key, equals, value = self.value.partition("=")
        return key, value if equals else self.environ[key]


TEXTS = (
    "a,b,c",
    "a=b=c",
    "==",
    '"',
    '""',
    '"quoted"',
    'say ""twice""',
    'a,"b,c"',
    "it's",
    "'single'",
    "`id`",
    "$(id)",
    "$HOME ${HOME:-x} $$",
    "%s%n%d",
    "a b  c",
    " leading and trailing ",
    "tab\tinside",
    "carriage\rreturn",
    "\ttab first",
    "back\\slash\\n",
    "ends with \\",
    "; rm -rf / #",
    "# no comment",
    "--output=type=local,dest=/",
    "type=local,dest=/tmp",
    "annotation.other=1",
    ",name=evil",
    '",name=evil,"',
    "{{.Name}} {% x %}",
    "äöü ß €",
    "日本語",
    "🙂 👩‍👩‍👧",
    "\u202eright to left",
    "\u00a0no-break\u2028line separator",
    "\ufeffbyte order mark",
    "e\u0301 decomposed",
    "<script>&amp;",
    '{"json": [1, "x"]}',
    "\x1b[31mred\x07\x08",
    "\x7f\x01",
    "x" * 4000,
)
"""What a value of a label, an annotation or a build argument may hold, all on one line."""

KEYS = (
    "com.example.key",
    "a",
    "with-dash_and.dot/slash:colon@at",
    "[linux/amd64]",
    "index.x",
    "-index.x",
    'quote"inside',
    "comma,inside",
    "annotation-index.x",
    "schlüssel",
    "no-break\u00a0space",
    "x" * 200,
)
"""Keys that labels and annotations carry as they are."""

VERBATIM_PAIRS = (
    *(Hostile("PLP_LABELS", f"text.{n}={t}", "verbatim") for n, t in enumerate(TEXTS)),
    *(Hostile("PLP_LABELS", f"{key}=label", "verbatim") for key in (*KEYS, "UPPER Case key")),
    *(Hostile("PLP_ANNOTATIONS", f"text.{n}={t}", "verbatim") for n, t in enumerate(TEXTS)),
    *(Hostile("PLP_ANNOTATIONS", f"{key}=annotation", "verbatim") for key in KEYS),
    *(Hostile("PLP_BUILD_ARGS", f"TEXT_{n}={t}", "verbatim") for n, t in enumerate(TEXTS)),
    *(
        Hostile("PLP_BUILD_ARGS", f"BARE_{n}", "verbatim", {f"BARE_{n}": value})
        for n, value in enumerate(
            ("two\nlines", "\nfirst and last\n", "crlf\r\n", "", " ", "a=b,c", "x" * 60_000)
        )
    ),
)

_OTHER_VERBATIM = (
    ("PLP_SOURCE_PATH", "/a b/c,d/\"e\"/f=g/'h'/\n/$(i)"),
    ("PLP_SOURCE_PATH", "/quelle/ä/日本"),
    ("PLP_BUILD_PATH", '/b,dest=/tmp/"x"'),
    ("PLP_CACHE_PATH", "/c,mode=min;x y"),
    ("PLP_CONTEXT", "-rf"),
    ("PLP_CONTEXT", "a=b,c d"),
    ("PLP_DOCKERFILE", "Dockerfile,x=y"),
    ("PLP_DOCKERFILE", "--help"),
    ("PLP_DOCKERFILE", "ä 🙂"),
    ("GIT_REPOSITORY_URL", "git@example.org:a/b,c.git"),
    ("GIT_REPOSITORY_URL", 'https://example.org/"a",b?x=y&z'),
    ("GIT_SHA", 'not,a "sha"=x'),
    ("PLP_TARGET", "Stage-1_a.b"),
    ("PLP_ARCHIVE_NAME", "-rf, dest=\"x\" '$(y)'.tar"),
    ("PLP_ARCHIVE_NAME", "..."),
    ("PLP_ARCHIVE_NAME", "ä🙂.tar"),
    ("PLP_IMAGE", "localhost:5000/a__b/c-d.e:Tag_1.x"),
    ("PLP_BUILDKITD_CONFIG", '/etc/a b,"c".toml'),
    ("PLP_CACHE_MOUNTS", "/root/.cache/pip"),
    ("PLP_CACHE_MOUNTS", "a b=\"c\" 'd' $(e) ../f --g ä🙂"),
)

_REFUSED = (
    ("PLP_SOURCE_PATH", "/caf\udce9"),
    ("PLP_CONTEXT", "\udcff"),
    ("PLP_DOCKERFILE", "Docker\udc80file"),
    ("GIT_REPOSITORY_URL", "https://example.org/\nannotation.x=y"),
    ("GIT_SHA", "abc\x00def"),
    ("GIT_SHA", "abc\r"),
    ("GIT_REPOSITORY_URL", "x" * 5000),
    ("PLP_TARGET", "0"),
    ("PLP_TARGET", "a,b"),
    ("PLP_TARGET", "a b"),
    ("PLP_TARGET", "--x"),
    ("PLP_TARGET", "ä"),
    ("PLP_PLATFORMS", "amd64"),
    ("PLP_PLATFORMS", "linux/amd64/v1/x"),
    ("PLP_PLATFORMS", "linux/adm64"),
    ("PLP_PLATFORMS", "amd64/linux"),
    ("PLP_PLATFORMS", "linux/amd64;linux/arm64"),
    ("PLP_PLATFORMS", "linux/arm/v99"),
    ("PLP_PLATFORMS", 'linux/"amd64"'),
    ("PLP_BUILD_ARGS", "=value"),
    ("PLP_BUILD_ARGS", "A =b"),
    ("PLP_BUILD_ARGS", "A\x01=b"),
    ("PLP_BUILD_ARGS", "A=b\r\nC=d"),
    ("PLP_BUILD_ARGS", "A=\udcff"),
    ("PLP_BUILD_ARGS", "A=" + "x" * 131_072),
    ("PLP_BUILD_ARGS", "SOURCE_DATE_EPOCH=1"),
    ("PLP_LABELS", "no equals sign"),
    ("PLP_LABELS", "=value"),
    ("PLP_LABELS", "a\x1b=b"),
    ("PLP_LABELS", "a=b\r"),
    ("PLP_LABELS", "a=\udc80"),
    ("PLP_ANNOTATIONS", "Upper=x"),
    ("PLP_ANNOTATIONS", "with space=x"),
    ("PLP_ANNOTATIONS", "ÄÖ=x"),
    ("PLP_ANNOTATIONS", "ǅ=x"),
    ("PLP_ANNOTATIONS", "novalue"),
    ("PLP_ANNOTATIONS", "a\u0085b=x"),
    ("PLP_ANNOTATIONS", "\n".join(f"a{n}={'x' * 5000}" for n in range(30))),
    ("PLP_SECRETS", "id=a,env=NOT_SET"),
    ("PLP_SECRETS", "id=a,env="),
    ("PLP_SECRETS", "id=,src=/x"),
    ("PLP_SECRETS", "id=a,id=b,src=/x"),
    ("PLP_SECRETS", "env=SET"),
    ("PLP_SECRETS", "id=a,env=SET,src=/x"),
    ("PLP_SECRETS", "id=a,env=SET\nid=a,env=SET"),
    ("PLP_SECRETS", "id=a,value=hunter2"),
    ("PLP_SECRETS", "hunter2"),
    ("PLP_SECRETS", 'id="a"'),
    ("PLP_SECRETS", '"id=a'),
    ("PLP_SECRETS", '"id=a"b'),
    ("PLP_SECRETS", "type=file,id=a,env=SET"),
    ("PLP_SECRETS", "type=other,id=a,src=/x"),
    ("PLP_SECRETS", "id=a,src=/x\x1b"),
    ("PLP_SSH", "default"),
    ("PLP_SSH", "=/x"),
    ("PLP_SSH", "a=/x\na=/y"),
    ("PLP_SSH", "a=/x,,/y"),
    ("PLP_SSH", "a=/x,raw=true"),
    ("PLP_SSH", "a b\x07=/x"),
    ("PLP_BUILD_CONTEXTS", "base"),
    ("PLP_BUILD_CONTEXTS", "=/x"),
    ("PLP_BUILD_CONTEXTS", "Base=/x"),
    ("PLP_BUILD_CONTEXTS", "base="),
    ("PLP_BUILD_CONTEXTS", "a=/x\na:latest=/y"),
    ("PLP_BUILD_CONTEXTS", "base=docker-image://UPPER/x:y:z"),
    ("PLP_BUILD_CONTEXTS", "base=ftp://example.org/x"),
    ("PLP_BUILD_CONTEXTS", "base=oci-layout://"),
    ("PLP_NO_CACHE", "2"),
    ("PLP_PULL", "always"),
    ("PLP_OFFLINE", "ja"),
    ("PLP_NETWORK", "bridge"),
    ("PLP_NETWORK", "container:x"),
    ("PLP_ADD_HOSTS", "a:host-gateway"),
    ("PLP_ADD_HOSTS", "a:1.2.3"),
    ("PLP_ADD_HOSTS", "a:01.2.3.4"),
    ("PLP_ADD_HOSTS", "a:fe80::1%eth0"),
    ("PLP_ADD_HOSTS", ":1.2.3.4"),
    ("PLP_ADD_HOSTS", 'a"b:1.2.3.4'),
    ("PLP_SHM_SIZE", "-1"),
    ("PLP_SHM_SIZE", "0"),
    ("PLP_SHM_SIZE", "64 apples"),
    ("PLP_SHM_SIZE", "9" * 30),
    ("PLP_SHM_SIZE", "٣"),
    ("PLP_ULIMITS", "nofile"),
    ("PLP_ULIMITS", "nofile=2:1"),
    ("PLP_ULIMITS", "nofile=-1:1"),
    ("PLP_ULIMITS", "files=1"),
    ("PLP_ULIMITS", "nofile=1:2:3"),
    ("PLP_FRONTEND", "gateway.v0"),
    ("PLP_FRONTEND", "docker/Dockerfile:1"),
    ("PLP_FRONTEND", "a b"),
    ("PLP_OUTPUTS", "archive,none"),
    ("PLP_OUTPUTS", "registry"),
    ("PLP_OUTPUTS", "type=local,dest=/"),
    ("PLP_ARCHIVE_NAME", ".."),
    ("PLP_ARCHIVE_NAME", "../x.tar"),
    ("PLP_ARCHIVE_NAME", "/etc/passwd"),
    ("PLP_ARCHIVE_NAME", "a\nb"),
    ("PLP_ARCHIVE_NAME", "x" * 250),
    ("PLP_ARCHIVE_FORMAT", "tar"),
    ("PLP_IMAGE", "a/Upper:x"),
    ("PLP_IMAGE", "a:b:c"),
    ("PLP_IMAGE", "https://example.org/a"),
    ("PLP_IMAGE", 'a",name=evil'),
    ("PLP_IMAGE", "a@sha256:" + "0" * 64),
    ("PLP_COMPRESSION", "gzip,force-compression=true"),
    ("PLP_COMPRESSION_LEVEL", "10"),
    ("PLP_COMPRESSION_LEVEL", "-1"),
    ("PLP_COMPRESSION_LEVEL", "1e1"),
    ("SOURCE_DATE_EPOCH", "-1"),
    ("SOURCE_DATE_EPOCH", "1.5"),
    ("SOURCE_DATE_EPOCH", "253402300800"),
    ("SOURCE_DATE_EPOCH", "now"),
    ("PLP_CACHE_STRATEGY", "stateful"),
    ("PLP_CACHE_STRATEGY", "on"),
    ("PLP_CACHE_LOCK_TIMEOUT", "-1"),
    ("PLP_CACHE_LOCK_TIMEOUT", "forever"),
    ("PLP_CACHE_LOCK_TIMEOUT", "21d"),
    ("PLP_CACHE_MOUNTS", "all,pip"),
    ("PLP_CACHE_MOUNTS", "pip\x1b[m"),
    ("PLP_CACHE_MOUNTS", "\udcff"),
    ("PLP_CACHE_MOUNTS", "x" * 5000),
    ("PLP_VERIFY", "off"),
    ("PLP_VERIFY", "none"),
    ("PLP_CACHE_MODE", "maximum"),
    ("PLP_CACHE_MAX_SIZE", "0"),
    ("PLP_CACHE_MAX_SIZE", "10 GB GB"),
    ("PLP_CACHE_MAX_SIZE", "ten"),
    ("PLP_BUILDKITD_FLAGS", "--addr tcp://0.0.0.0:1"),
    ("PLP_BUILDKITD_FLAGS", "-root=/x"),
    ("PLP_BUILDKITD_FLAGS", "--config=/x --rootless"),
    ("PLP_BUILDKITD_FLAGS", "--version"),
    ("PLP_BUILDKITD_FLAGS", "'not closed"),
    ("BUILDKITD_FLAGS", "--root /x"),
    ("PLP_REGISTRY_MIRRORS", "http://mirror"),
    ("PLP_REGISTRY_MIRRORS", 'docker.io=a"]\n[x'),
    ("PLP_REGISTRY_MIRRORS", "docker.io=a:99999"),
    ("PLP_REGISTRY_MIRRORS", "user:secret@mirror"),
    ("PLP_INSECURE_REGISTRIES", "https://a"),
    ("PLP_INSECURE_REGISTRIES", 'a"'),
    ("PLP_INSECURE_REGISTRIES", "-a"),
    ("PLP_TIMEOUT", "0"),
    ("PLP_TIMEOUT", "-5s"),
    ("PLP_TIMEOUT", "1h 30"),
    ("PLP_TIMEOUT", "inf"),
    ("PLP_TIMEOUT", "nan"),
    ("PLP_TIMEOUT", "99999d"),
    ("PLP_START_TIMEOUT", "soon"),
    ("PLP_PROGRESS", "tty"),
    ("PLP_LOG_FORMAT", "xml"),
    ("PLP_LOG_LEVEL", "trace"),
    ("PLP_DEBUG", "maybe"),
    ("PLP_PROVENANCE", "max"),
    ("PLP_SBOM", "on"),
    ("PLP_CACHE_FROM", "type=registry,ref=x"),
    ("PLP_CACHE_TO", "type=registry,ref=x"),
    ("PLP_CACHE_INLINE", "true"),
    ("PLP_BUILDKIT_ADDRESS", "tcp://x:1"),
    ("PLP_BUILDKIT_TLS_PATH", "/x"),
    ("PLP_RESULT_FILE", "/x"),
    ("PLP_REPORT_FILE", "/x"),
)

HOSTILE = (
    *VERBATIM_PAIRS,
    *(Hostile(name, value, "verbatim") for name, value in _OTHER_VERBATIM),
    *(Hostile(name, value, "refused", {"SET": "x"}) for name, value in _REFUSED),
)


def together(variable: str) -> tuple[dict[str, str], dict[str, str]]:
    """All verbatim pairs of ``variable`` at once: the environment to set, and what must arrive."""
    entries = [entry for entry in VERBATIM_PAIRS if entry.variable == variable]
    environ = {variable: "\n".join(entry.value for entry in entries)}
    for entry in entries:
        environ.update(entry.environ)
    return environ, dict(entry.pair for entry in entries)
