"""Why a daemon ended, told from the last lines of its log."""

from __future__ import annotations

from typing import TYPE_CHECKING

from plp_builder.errors import DaemonDied, DaemonFailure, RootlessNotPermitted

if TYPE_CHECKING:
    from plp_builder.buildkit.room import Room

WHILE_NEEDED = "while it was needed"
"""How the death of a daemon that had been ready is told from an earlier one."""

_CAUSES = (
    "level=error", "level=fatal", "level=panic", "error:", "panic:", "buildkitd:", "failed",
    "fatal:", "fault address", "[signal",
)  # fmt: skip
_SIDE_NOTES = (
    "error: command [", "error: child exited", "level=info", "level=debug", "level=warning",
)  # fmt: skip
"""What rootlesskit says of any program in it that has failed, and what worried nobody."""

_NOT_PERMITTED = ("operation not permitted", "newuidmap", "newgidmap", "subuid")


def explain(
    log: list[str], code: int | None, room: Room, *, ready: bool
) -> DaemonFailure | RootlessNotPermitted:
    """Why a daemon ended, from the last lines of its log."""
    told = [line for line in log if line and not any(word in line for word in _SIDE_NOTES)] or log
    relevant = [line for line in told if any(cause in line for cause in _CAUSES)] or told
    why = relevant[-8:] or ["it left no message"]
    how = "was ended by a signal" if code is not None and code < 0 else f"ended with code {code}"
    text = "\n".join(relevant).lower()
    kind = "rootless" if room.user else "plain"
    if not ready and (_is_refused(text) or _lacks_namespaces(log, room)):
        return RootlessNotPermitted(
            f"{kind} BuildKit cannot start here: operation not permitted",
            why=why,
        )
    if "address already in use" in text or "could not lock" in text:
        hint = "Another daemon uses the same directory; wait for it to end."
    elif "unknown flag" in text or "flag provided but not defined" in text:
        hint = "Correct PLP_BUILDKITD_FLAGS; `buildkitd --help` lists the flags."
    elif "failed to load config" in text:
        hint = "Correct the file that PLP_BUILDKITD_CONFIG names."
    elif "no space left on device" in text:
        hint = "Make room where TMPDIR points (else /tmp): the daemon's state is there."
    elif "read-only file system" in text:
        hint = "Give it a writable /tmp; in a container started with --read-only add --tmpfs /tmp."
    elif "failed to create new os thread" in text or "resource temporarily unavailable" in text:
        hint = "Raise the limit of processes: in Docker --pids-limit, on a machine ulimit -u."
    elif code is not None and code in (-9, 137):
        hint = "It was killed, most likely for want of memory: raise the container's limit."
    else:
        hint = "Run again with PLP_DEBUG=true for the daemon's whole log."
    when = WHILE_NEEDED if ready else "before it was ready"
    return DaemonDied(f"buildkitd {how} {when}", why=why, hint=hint)


def _lacks_namespaces(log: list[str], room: Room) -> bool:
    """Whether unshare(1) could not do its part, for which rootlesskit may know another way."""
    return room.ids is not None and any(line.startswith("unshare: ") for line in log)


def _is_refused(text: str) -> bool:
    """Whether the environment forbids what rootlesskit or unshare has to do."""
    refused = any(word in text for word in _NOT_PERMITTED)
    return refused or any(
        "permission denied" in line for line in text.splitlines() if line.startswith("[rootlesskit")
    )
