"""A user without rights, for whom the rootless tests run."""

from __future__ import annotations

import os
import pwd
from pathlib import Path

from scripts.set_up.step import run, step, warn

NAME = "plp-test"
_IDS = 65536


def ranges(path: Path) -> dict[str, int]:
    """User name (or number) → how many subordinate ids a file like /etc/subuid gives it."""
    try:
        lines = path.read_text().splitlines()
    except OSError:
        return {}
    counts: dict[str, int] = {}
    for line in lines:
        fields = line.split(":")
        if len(fields) == 3 and fields[2].isdigit():
            counts[fields[0]] = counts.get(fields[0], 0) + int(fields[2])
    return counts


def has_ranges(user: pwd.struct_passwd, etc: Path = Path("/etc")) -> bool:
    """Whether the user has enough subordinate user and group ids for a container."""
    return all(
        max(ranges(etc / file).get(name, 0) for name in (user.pw_name, str(user.pw_uid))) >= _IDS
        for file in ("subuid", "subgid")
    )


def find() -> pwd.struct_passwd | None:
    """The caller if it is not root; else plp-test, or another user with subordinate ids."""
    if os.geteuid() != 0:
        user = pwd.getpwuid(os.geteuid())
        return user if has_ranges(user) else None
    users = sorted(pwd.getpwall(), key=lambda user: user.pw_name != NAME)
    return next((user for user in users if user.pw_uid != 0 and has_ranges(user)), None)


def install() -> None:
    """Create plp-test where no user fits and the caller may create one."""
    with step("Unprivileged user") as current:
        user = find()
        if user is None and os.geteuid() == 0:
            # Debian's useradd also gives the subordinate ranges (SUB_UID_COUNT, login.defs).
            run(["useradd", "--create-home", "--shell", "/bin/sh", NAME])
            user = find()
        current.outcome = user.pw_name if user else "none"
    if user is None:
        warn(
            "No user with 65536 subordinate ids: rootless tests cannot run. "
            "Add yourself: sudo usermod --add-subuids 100000-165535 "
            "--add-subgids 100000-165535 $USER"
        )
