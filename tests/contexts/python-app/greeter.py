"""Greets everybody that an INI text names."""

from __future__ import annotations

from iniconfig import IniConfig  # type: ignore[import-not-found,unused-ignore]

GUESTS = "[guests]\nada = Ada\ngrace = Grace\n"

if __name__ == "__main__":
    for _, name in IniConfig("guests.ini", data=GUESTS)["guests"].items():
        print(f"Hello {name}")
