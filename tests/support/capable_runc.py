"""A runtime for Docker on machines whose root lacks some capabilities.

`docker run --privileged` asks for every capability that exists; runc then fails where the
machine itself does not have them all. This takes those that are lacking out of the request
and hands over to runc. It is installed by tests/support/engine.py, only where it is needed.
"""

from __future__ import annotations

import json
import os
import sys
from pathlib import Path

# linux/capability.h, in the order of their numbers.
_NAMES: tuple[str, ...] = tuple(
    """
    CHOWN DAC_OVERRIDE DAC_READ_SEARCH FOWNER FSETID KILL SETGID SETUID SETPCAP LINUX_IMMUTABLE
    NET_BIND_SERVICE NET_BROADCAST NET_ADMIN NET_RAW IPC_LOCK IPC_OWNER SYS_MODULE SYS_RAWIO
    SYS_CHROOT SYS_PTRACE SYS_PACCT SYS_ADMIN SYS_BOOT SYS_NICE SYS_RESOURCE SYS_TIME
    SYS_TTY_CONFIG MKNOD LEASE AUDIT_WRITE AUDIT_CONTROL SETFCAP MAC_OVERRIDE MAC_ADMIN SYSLOG
    WAKE_ALARM BLOCK_SUSPEND AUDIT_READ PERFMON BPF CHECKPOINT_RESTORE
    """.split()  # noqa: SIM905 - a list of forty quoted names reads worse
)


def held() -> frozenset[str]:
    """The capabilities of this process's bounding set, as the runtime specification names them."""
    status = Path("/proc/self/status").read_text()
    mask = int(status.partition("CapBnd:")[2].split()[0], 16)
    return frozenset(f"CAP_{name}" for bit, name in enumerate(_NAMES) if mask >> bit & 1)


def limit(file: Path, pick: str | None) -> None:
    """Rewrite a config.json (``pick`` "process") or a process file (``pick`` None)."""
    content = json.loads(file.read_text())
    process = content[pick] if pick else content
    for kind, names in (process.get("capabilities") or {}).items():
        process["capabilities"][kind] = [name for name in names if name in held()]
    file.write_text(json.dumps(content))


def _value(arguments: list[str], *options: str) -> str | None:
    for index, argument in enumerate(arguments):
        name, equals, value = argument.partition("=")
        if name in options:
            return value if equals else arguments[index + 1]
    return None


def main() -> None:
    """Mend the request of `create`, `run` and `exec`, then become runc."""
    arguments = sys.argv[1:]
    if "create" in arguments or "run" in arguments:
        bundle = _value(arguments, "--bundle", "-b") or "."
        limit(Path(bundle) / "config.json", "process")
    elif "exec" in arguments and (process := _value(arguments, "--process", "-p")):
        limit(Path(process), None)
    os.execvp("runc", ["runc", *arguments])  # noqa: S606


if __name__ == "__main__":
    main()
