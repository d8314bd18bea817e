"""buildkitd.toml for the daemon that the builder starts.

Format: https://github.com/moby/buildkit/blob/master/docs/buildkitd.toml.md
"""

from __future__ import annotations

from types import MappingProxyType
from typing import TYPE_CHECKING

from plp_builder.errors import SettingInvalid

if TYPE_CHECKING:
    from collections.abc import Iterator, Mapping, Sequence
    from pathlib import Path

    from plp_builder.values import Mirror

_WORKERS = ("oci", "containerd")
NO_CACHE_MOUNT = "type!=exec.cachemount"
"""Filter for all that a daemon keeps, except the contents of cache mounts."""

_PLATFORMS = {"x86_64": "linux/amd64", "aarch64": "linux/arm64"}
"""Of machines whose name tells all of the platform."""
_LOOPBACK = ("127.", "localhost", "[::1]")


def quoted(text: str) -> str:
    """A TOML basic string (https://toml.io/en/v1.0.0#string)."""
    out = []
    for character in text:
        if character in '"\\':
            out.append("\\" + character)
        elif character < " " or character == "\x7f":
            out.append(f"\\u{ord(character):04x}")
        else:
            out.append(character)
    return '"' + "".join(out) + '"'


def on_loopback(host: str) -> bool:
    """Whether a registry host is this machine itself, which BuildKit speaks plain HTTP to."""
    return host.startswith(_LOOPBACK)


def read(path: Path) -> str:
    """The text of PLP_BUILDKITD_CONFIG. Raises SettingInvalid."""
    try:
        return path.read_text("utf-8")
    except (OSError, UnicodeDecodeError) as error:
        reason = error.strerror if isinstance(error, OSError) else "it is not UTF-8"
        raise SettingInvalid(
            "PLP_BUILDKITD_CONFIG cannot be read", why=[f"{path}: {reason}"]
        ) from None


def render(
    base: str, mirrors: Sequence[Mirror], insecure: Sequence[str], path: Path | None = None
) -> str:
    """The daemon's configuration: what the user's file says, then a table for each registry.

    ``base`` is the text of PLP_BUILDKITD_CONFIG, the file ``path``, or empty. Raises
    SettingInvalid when it is not TOML, or configures a registry that the other two variables
    configure as well.
    """
    tables: dict[str, list[str]] = {}
    for mirror in mirrors:
        tables.setdefault(mirror.registry, [])
        host = mirror.mirror.partition("/")[0]
        if on_loopback(host) and host not in insecure:
            tables.setdefault(host, []).append("http = true")
    for registry, lines in tables.items():
        hosts = [mirror.mirror for mirror in mirrors if mirror.registry == registry]
        if hosts:
            lines.insert(0, f"mirrors = [{', '.join(map(quoted, hosts))}]")
    for host in insecure:
        # The two together mean, as Docker's insecure-registries: TLS that is not verified, or
        # else plain HTTP (BuildKit's util/resolver/resolver.go, fillInsecureOpts).
        tables.setdefault(host, []).extend(["http = true", "insecure = true"])
    if base:
        _refuse_conflicts(base, tables, path)
    text = [base.rstrip("\n"), ""] if base else []
    for registry, lines in tables.items():
        text += [f"[registry.{quoted(registry)}]", *dict.fromkeys(lines), ""]
    return "\n".join(text)


def with_worker(
    text: str,
    machine: str,
    *,
    bound: int | None = None,
    worker: Mapping[str, str] = MappingProxyType({}),
) -> str:
    """``text`` with the worker's tables, unless it has its own.

    They name the machine's own platform (``machine`` is uname's). Otherwise the daemon starts a
    program of each platform in turn to see which ones run here. What emulates another platform's
    steps is looked for when a step needs it (BuildKit's solver/llbsolver/ops/exec_binfmt.go), so
    nothing depends on the list but its first entry.

    With a ``bound`` in bytes the daemon keeps no more than that in its state, cache mounts for as
    long as anything else can go, and no records of earlier builds, which hold what steps printed.
    ``worker`` has further settings by name: true, false or text.
    """
    if bound is not None and "history" not in text:
        text = "\n".join([*([text] if text else []), "[history]\nmaxEntries = 0\nmaxAge = 1\n"])
    if "worker" in text:
        return text
    lines = [f"{name} = {_value(value)}" for name, value in worker.items()]
    lines += _collecting(bound) if bound is not None else []
    return "\n".join([*([text] if text else []), *_workers(machine, lines)])


def _value(text: str) -> str:
    return text if text in {"true", "false"} else quoted(text)


def _workers(machine: str, of_oci: Sequence[str]) -> Iterator[str]:
    platform = _PLATFORMS.get(machine)
    for worker in _WORKERS:
        lines = [f'platforms = ["{platform}"]'] if platform else []
        lines += of_oci if worker == "oci" else []
        if lines:
            yield "\n".join([f"[worker.{worker}]", *lines, ""])


def _collecting(bound: int) -> list[str]:
    policy = "[[worker.oci.gcpolicy]]"
    most = f'maxUsedSpace = "{bound}"\nall = true'
    return ["gc = true", policy, f'filters = ["{NO_CACHE_MOUNT}"]', most, policy, most]


def _refuse_conflicts(base: str, tables: dict[str, list[str]], path: Path | None) -> None:
    import tomllib

    try:
        given = tomllib.loads(base).get("registry", {})
    except tomllib.TOMLDecodeError as error:
        raise SettingInvalid(
            "PLP_BUILDKITD_CONFIG is not valid TOML",
            why=[f"{path}: {error}"],
            hint="See docs/configuration.md for an example of buildkitd.toml.",
        ) from None
    both = sorted(set(given) & set(tables)) if isinstance(given, dict) else []
    if both:
        raise SettingInvalid(
            f"the registry {both[0]} is configured twice",
            why=[
                f"PLP_BUILDKITD_CONFIG ({path}) has a table for it, and so would "
                "PLP_REGISTRY_MIRRORS or PLP_INSECURE_REGISTRIES"
            ],
            hint="Configure it in one of the two.",
        )
