"""What comes out: the archive's name, the outputs, the compression, the reproducible time."""

from __future__ import annotations

from plp_builder.values import (
    NotImplementedYet,
    Refused,
    control_character,
    parse_choice,
    parse_integer,
    parse_items,
    shown,
)

# Room for the temporary name that stands beside the archive until it is complete.
MAX_ARCHIVE_NAME = 255 - 32
MAX_PLAIN_TEXT = 4096
LAST_EPOCH = 253_402_300_799  # 9999-12-31T23:59:59Z, the last second that RFC 3339 can write

_LATER_OUTPUTS = ("registry", "rootfs")

LEVELS = {"gzip": (0, 9), "estargz": (0, 9), "zstd": (0, 22)}


def parse_outputs(text: str) -> tuple[str, ...]:
    """``archive``, or ``none`` alone: build, and keep nothing but the cache."""
    entries = tuple(dict.fromkeys(entry.lower() for entry in parse_items(text)))
    later = [shown(entry) for entry in entries if entry in _LATER_OUTPUTS]
    outputs = tuple(
        parse_choice(entry, ("archive", "none")) for entry in entries if entry not in _LATER_OUTPUTS
    )
    if later:
        raise NotImplementedYet(f"{' and '.join(later)} is not implemented in this version")
    if "none" in outputs and len(outputs) > 1:
        raise Refused('"none" stands alone; use archive or none')
    return outputs or ("archive",)


def parse_archive_name(text: str) -> str:
    """A plain file name for the build directory."""
    if "/" in text or text in {".", ".."} or control_character(text):
        raise Refused(f"{shown(text)} is no plain file name; use a name without / and without ..")
    if len(text.encode("utf-8", "surrogateescape")) > MAX_ARCHIVE_NAME:
        raise Refused(f"{shown(text)} is longer than {MAX_ARCHIVE_NAME} bytes")
    return text


def parse_epoch(text: str) -> int:
    """Seconds since 1970-01-01T00:00:00Z, up to the end of the year 9999."""
    return parse_integer(text, 0, LAST_EPOCH)


def parse_plain_text(text: str) -> str:
    """One line of text for an annotation, at most 4096 bytes.

    No error shows it, since an address may hold a password.
    """
    if escaped := control_character(text):
        raise Refused(f"holds the control character {escaped}; use one line of text")
    if len(text.encode()) > MAX_PLAIN_TEXT:
        raise Refused(f"is longer than {MAX_PLAIN_TEXT} bytes")
    return text
