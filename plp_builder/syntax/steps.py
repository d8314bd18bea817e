"""What build steps run with and for: platforms, network, hosts, limits, the daemon's flags.

Sources: frontend/dockerui/attr.go of BuildKit, github.com/docker/go-units (ulimit.go) and
github.com/containerd/platforms (database.go).
"""

from __future__ import annotations

from plp_builder.values import (
    MAX_INT64,
    AddHost,
    Refused,
    Ulimit,
    join_or,
    parse_choice,
    parse_integer,
    parse_items,
    shown,
)

_SYSTEMS = frozenset(
    (
        "aix",
        "android",
        "darwin",
        "dragonfly",
        "freebsd",
        "hurd",
        "illumos",
        "ios",
        "js",
        "linux",
        "netbsd",
        "openbsd",
        "plan9",
        "solaris",
        "wasip1",
        "windows",
        "zos",
    )
)
_ARCHITECTURES = frozenset(
    (
        "386",
        "amd64",
        "arm",
        "arm64",
        "armbe",
        "arm64be",
        "loong64",
        "mips",
        "mips64",
        "mips64le",
        "mipsle",
        "ppc",
        "ppc64",
        "ppc64le",
        "riscv",
        "riscv64",
        "s390",
        "s390x",
        "sparc",
        "sparc64",
        "wasm",
    )
)
_ALIASES = {"x86_64": "amd64", "x86-64": "amd64", "i386": "386", "aarch64": "arm64"}
_VARIANTS = {
    "amd64": ("v2", "v3", "v4"),
    "arm": ("v5", "v6", "v7", "v8"),
    "arm64": ("v9",),
}
_DEFAULT_VARIANT = {"amd64": "v1", "arm": "v7", "arm64": "v8"}


def parse_platforms(text: str) -> tuple[str, ...]:
    """``os/arch[/variant]`` by comma or line, in BuildKit's normal form; each counts once."""
    return tuple(dict.fromkeys(_platform(entry) for entry in parse_items(text)))


def _platform(entry: str) -> str:
    system, *rest = entry.lower().split("/")
    if _ALIASES.get(system, system) in _ARCHITECTURES and (not rest or rest[0] not in _SYSTEMS):
        meant = "/".join(("linux", _ALIASES.get(system, system), *rest))
        raise Refused(f"{shown(entry)} names no system; use {shown(meant)[1:-1]}")
    if len(rest) not in {1, 2}:
        raise Refused(f"{shown(entry)} is no platform; use os/arch or os/arch/variant")
    architecture = _ALIASES.get(rest[0], rest[0])
    if system not in _SYSTEMS:
        raise Refused(f"{shown(entry)} names an unknown system; use linux/amd64, linux/arm64, …")
    if architecture not in _ARCHITECTURES:
        raise Refused(f"{shown(entry)} names an unknown architecture; use amd64, arm64, arm, …")
    variant = rest[1] if len(rest) == 2 else ""
    if variant and not variant.startswith("v"):
        variant = "v" + variant
    if variant == _DEFAULT_VARIANT.get(architecture):
        variant = ""
    if variant and variant not in _VARIANTS.get(architecture, ()):
        raise Refused(f"{shown(entry)} names an unknown variant of {architecture}")
    return "/".join(filter(None, (system, architecture, variant)))


def parse_network(text: str) -> str:
    """``none``, ``host`` or ``sandbox``; ``default`` is the empty text."""
    network = parse_choice(text, ("default", "none", "host", "sandbox"))
    return "" if network == "default" else network


def parse_add_hosts(text: str) -> tuple[AddHost, ...]:
    """``host:address`` or ``host=address`` by comma or line, as ``docker build --add-host``."""
    return tuple(dict.fromkeys(_add_host(entry) for entry in parse_items(text)))


def _add_host(entry: str) -> AddHost:
    cut = next((at for at, character in enumerate(entry) if character in "=:"), -1)
    host, address = entry[: max(cut, 0)], entry[cut + 1 :]
    if address == "host-gateway":
        raise Refused(
            f"{shown(entry)}: host-gateway is an address of a Docker engine, and none takes part; "
            "give the address itself"
        )
    letters = host.replace("-", "").replace("_", "").replace(".", "")
    if not (letters.isascii() and letters.isalnum()) or len(host) > 253:
        raise Refused(f"{shown(entry)} is not accepted; use host:address")
    return AddHost(host.lower(), _address(entry, address))


def _address(entry: str, address: str) -> str:
    from ipaddress import ip_address

    bare = address[1:-1] if address[:1] == "[" and address[-1:] == "]" else address
    try:
        if "%" in bare:
            raise ValueError("BuildKit takes no zones")
        ip_address(bare)
    except ValueError:
        raise Refused(f"{shown(entry)} ends with no IP address") from None
    return bare


_LIMITS = (
    "core", "cpu", "data", "fsize", "locks", "memlock", "msgqueue", "nice", "nofile", "nproc",
    "rss", "rtprio", "rttime", "sigpending", "stack",
)  # fmt: skip


def parse_ulimits(text: str) -> tuple[Ulimit, ...]:
    """``name=soft[:hard]`` by comma or line, as ``docker build --ulimit``; -1 is unlimited.

    Of two entries with one name the last counts.
    """
    return tuple({limit.name: limit for limit in map(_ulimit, parse_items(text))}.values())


def _ulimit(entry: str) -> Ulimit:
    name, equals, limits = entry.partition("=")
    if not equals or name not in _LIMITS:
        raise Refused(f"{shown(entry)} is no limit; use name=soft[:hard] with {join_or(_LIMITS)}")
    first, colon, second = limits.partition(":")
    soft = parse_integer(first, -1, MAX_INT64)
    hard = parse_integer(second, -1, MAX_INT64) if colon else soft
    if hard != -1 and (soft == -1 or soft > hard):
        raise Refused(f"{shown(entry)}: the soft limit is above the hard limit")
    return Ulimit(name, soft, hard)


_OWN_FLAGS = {
    "--addr": "the builder chooses the socket",
    "--root": "the builder chooses the state directory",
    "--config": "use PLP_BUILDKITD_CONFIG",
    "--rootless": "the builder knows whether it runs rootless",
    "--group": "the socket is private to the builder",
    "--tlscert": "the daemon listens on a private socket only",
    "--tlskey": "the daemon listens on a private socket only",
    "--tlscacert": "the daemon listens on a private socket only",
    "--help": "the daemon would not start",
    "--version": "the daemon would not start",
    "-h": "the daemon would not start",
    "-v": "the daemon would not start",
}


def parse_buildkitd_flags(text: str) -> tuple[str, ...]:
    """Flags of buildkitd, split as a POSIX shell does; those that the builder sets are refused."""
    import shlex

    try:
        flags = tuple(shlex.split(text))
    except ValueError as error:
        raise Refused(f"cannot be split into flags: {error}") from None
    problems = []
    for flag in flags:
        name = flag.partition("=")[0]
        # Go's flag package takes -name for --name.
        long_name = "-" + name if name[:1] == "-" and name[1:2] != "-" and len(name) > 2 else name
        if reason := _OWN_FLAGS.get(long_name):
            problems.append(f"{shown(name)} cannot be given: {reason}")
    if problems:
        raise Refused(*problems)
    return flags
