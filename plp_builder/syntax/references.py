"""Names of images, stages and hosts."""

from __future__ import annotations

import re

from plp_builder.values import Mirror, Refused, parse_items, shown

_LABEL = r"[A-Za-z0-9](?:[A-Za-z0-9_-]{0,61}[A-Za-z0-9])?"
_HOST = re.compile(rf"(?:{_LABEL}(?:\.{_LABEL})*|\[[0-9A-Fa-f:.]+\])(?::(?P<port>[0-9]{{1,5}}))?")
_REPOSITORY = re.compile(r"(?:/[A-Za-z0-9._-]+)*")
_STAGE = re.compile(r"[A-Za-z][A-Za-z0-9_.-]*")


def parse_reference(text: str) -> str:
    """An image reference as given, checked against the distribution grammar."""
    from plp_builder.oci import reference

    try:
        reference.parse(text)
    except ValueError as error:
        raise Refused(f"{shown(text)} is no image reference: {error}") from None
    return text


def parse_images(text: str) -> tuple[str, ...]:
    """The names of the image: references with a tag or without, by comma or line."""
    images = dict.fromkeys(parse_items(text))
    for image in images:
        parse_reference(image)
        if "@" in image:
            raise Refused(f"{shown(image)} holds a digest, which is known only after the build")
    return tuple(images)


def parse_frontend(text: str) -> str:
    """``dockerfile.v0``, the frontend inside buildkitd, or the reference of a frontend image."""
    frontend = text.strip()
    if frontend == "gateway.v0":
        raise Refused(f"{shown(text)} needs an image; give its reference: docker/dockerfile:1")
    return frontend if frontend == "dockerfile.v0" else parse_reference(frontend)


def parse_target(text: str) -> str:
    """The name of a stage (instructions/parse.go: a letter, then letters, digits, ``-_.``)."""
    target = text.strip()
    if not _STAGE.fullmatch(target):
        raise Refused(
            f"{shown(text)} is no name of a stage; use a letter, then letters, digits, -, _ or ."
        )
    return target


def parse_registry(text: str) -> str:
    """``host`` or ``host:port``."""
    match = _HOST.fullmatch(text)
    if match is None or int(match["port"] or 1) not in range(1, 65536):
        raise Refused(f"{shown(text)} is no registry; use host or host:port, without a scheme")
    return text


def parse_registries(text: str) -> tuple[str, ...]:
    """Registries by comma or line."""
    return tuple(dict.fromkeys(parse_registry(entry) for entry in parse_items(text)))


def parse_mirrors(text: str) -> tuple[Mirror, ...]:
    """``registry=mirror`` by comma or line; a bare ``mirror`` is one of docker.io."""
    return tuple(dict.fromkeys(_mirror(entry) for entry in parse_items(text)))


def _mirror(entry: str) -> Mirror:
    registry, equals, mirror = entry.partition("=")
    if not equals:
        registry, mirror = "docker.io", entry
    parse_registry(registry)
    host = mirror.partition("/")[0]
    try:
        parse_registry(host)
        usable = _REPOSITORY.fullmatch(mirror[len(host) :]) is not None
    except Refused:
        usable = False
    if not usable:
        raise Refused(f"{shown(mirror)} is no mirror; use host[:port][/path], without a scheme")
    return Mirror(registry, mirror)
