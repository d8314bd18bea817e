"""Beginnings of bbolt databases, which BuildKit keeps its records in."""

from __future__ import annotations

import struct


def meta(pages: int, transaction: int, *, page_size: int = 4096, wrong: int = 0) -> bytes:
    """A page of bbolt that tells how many pages there are."""
    fields = struct.pack("<IIIIQQQQQ", 0xED0CDAED, 2, page_size, 0, 3, 0, 4, pages, transaction)
    checksum = 0xCBF29CE484222325
    for byte in fields:
        checksum = (checksum ^ byte) * 0x100000001B3 % 2**64
    page = bytes(16) + fields + struct.pack("<Q", checksum ^ wrong)
    return page.ljust(page_size, b"\0")
