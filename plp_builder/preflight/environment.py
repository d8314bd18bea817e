"""Can this environment run an unprivileged BuildKit, and as which user?

`read_facts` looks at small files below /proc, /sys and /etc; everything else is a pure function
of those facts. What a rootless daemon needs: BuildKit's docs/rootless.md, RootlessKit's
README, newuidmap(1), user_namespaces(7).
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from plp_builder.errors import CONTAINER_HINT, RootlessNotPermitted, ToolNotFound
from plp_builder.preflight import machine
from plp_builder.preflight.facts import (
    CAP_SYS_ADMIN,
    Facts,
    IdMapper,
    Range,
    ranges_of,
    read_facts,
)
from plp_builder.preflight.finding import Finding
from plp_builder.users import IdMap

if TYPE_CHECKING:
    from collections.abc import Iterable

    from plp_builder.users import User

__all__ = ["check_environment", "daemon_user", "findings", "id_map", "not_permitted", "read_facts"]

GIVING_AWAY = {0: "CHOWN", 1: "DAC_OVERRIDE", 5: "KILL", 6: "SETGID", 7: "SETUID"}
"""What root needs to give the daemon to a user and to end it again, by linux/capability.h."""

NEEDED_IDS = 65536
PREFERRED_UID = 1000


def daemon_user(facts: Facts) -> User | None:
    """Who runs buildkitd. None: root does, because there is nobody to give it to.

    Started as root, that is a user with subordinate ids, uid 1000 if possible, else the one
    with the lowest uid, provided the tools can map these ids. Started as anybody else, it
    is that user, known to /etc/passwd or not.
    """
    if facts.uid != 0:
        return _current(facts) or facts.stranger()
    if any(finding.ok is False for finding in _shared_rootless(facts)):
        return None
    able = [user for user in _candidates(facts) if not _blocked(facts, user)]
    return able[0] if able else None


def id_map(facts: Facts, user: User | None) -> IdMap | None:
    """The subordinate ids of ``user``, if unshare(1) can map them: one piece of each kind.

    AppArmor may know rootlesskit as one who may make user namespaces, and nobody else.
    """
    if user is None or facts.apparmor_restricts_userns:
        return None
    kinds = [ranges_of(user, kind) for kind in (facts.subuid, facts.subgid)]
    if any(len(kind) != 1 for kind in kinds):
        return None
    (uids,), (gids,) = kinds
    return IdMap((uids.start, uids.size), (gids.start, gids.size))


def _candidates(facts: Facts) -> list[User]:
    """Whom root could give the daemon to, best first."""
    able = [user for user in facts.users if user.uid != 0 and _has_ranges(facts, user)]
    return sorted(able, key=lambda user: (user.uid != PREFERRED_UID, user.uid))


def _blocked(facts: Facts, user: User) -> str:
    """What keeps a user from running the tools, "" if nothing does."""
    return next((part.path for part in facts.tool_ways if not part.open_to(user)), "")


def check_environment(facts: Facts) -> None:
    """Raise for what surely fails: `ToolNotFound`, then `RootlessNotPermitted`.

    What only may fail is left to the daemon's start, which tells more about it than a guess.
    """
    missing = [finding for finding in _tools(facts) if finding.ok is False]
    if missing:
        names = ", ".join(finding.name for finding in missing)
        raise ToolNotFound(
            f"not found on PATH: {names}",
            why=[finding.text for finding in missing] + [f"PATH={facts.path}"],
        )
    failed = [finding for finding in _rootless(facts) if finding.ok is False]
    if failed:
        hints = " ".join(dict.fromkeys(finding.hint for finding in failed if finding.hint))
        raise not_permitted([finding.text for finding in failed], hint=hints)


def not_permitted(why: Iterable[str], *, hint: str = CONTAINER_HINT) -> RootlessNotPermitted:
    """The failure for an environment that refuses a rootless daemon, with the flags to add."""
    return RootlessNotPermitted(
        "BuildKit cannot run rootless here: operation not permitted", why=why, hint=hint
    )


def findings(facts: Facts) -> tuple[Finding, ...]:
    """All checks, for the doctor's table."""
    return (
        *_tools(facts),
        who(facts),
        *_rootless(facts),
        *machine.findings(facts),
    )


def _tools(facts: Facts) -> tuple[Finding, ...]:
    needed = ["buildkitd", "buildctl", "setpriv"]
    if daemon_user(facts) is not None:
        needed.append("rootlesskit")
    found = [_tool(name, facts.tools.get(name), ToolNotFound.default_hint) for name in needed]
    runc = facts.tools.get("buildkit-runc") or facts.tools.get("runc")
    found.append(_tool("runc", runc, "Install runc, or put buildkit-runc on PATH."))
    return tuple(found)


def _tool(name: str, path: str | None, hint: str) -> Finding:
    if path:
        return Finding(name, True, path)
    return Finding(name, False, f"{name} was not found on PATH", hint)


def who(facts: Facts) -> Finding:
    """Who runs the daemon, and why it is root where it is."""
    user = daemon_user(facts)
    if user is not None:
        return Finding("daemon user", True, f"{user.name or 'uid'} ({user.uid})")
    causes = [finding for finding in _shared_rootless(facts) if finding.ok is False]
    causes = causes or [_nobody(facts)]
    reasons = "; ".join(finding.text for finding in causes)
    hints = " ".join(dict.fromkeys(finding.hint for finding in causes))
    return Finding("daemon user", None, f"root runs the daemon itself: {reasons}", hints)


def _nobody(facts: Facts) -> Finding:
    for user in _candidates(facts):
        return Finding(
            "",
            False,
            f"{user.name}, who could, cannot reach the tools: {_blocked(facts, user)} is closed",
            "Put the tools where every user may run them.",
        )
    return Finding(
        "",
        False,
        "no other user has subordinate ids in /etc/subuid and /etc/subgid",
        "Make a user with 65536 subordinate ids: useradd --create-home builder.",
    )


def _rootless(facts: Facts) -> tuple[Finding, ...]:
    """What the daemon's user needs; for root without such a user, what root needs."""
    user = daemon_user(facts)
    if user is None:
        return (_root_daemon(facts),)
    return (*_shared_rootless(facts), *_own(facts, user))


def _root_daemon(facts: Facts) -> Finding:
    if facts.has_capability(CAP_SYS_ADMIN):
        return Finding("privileges", True, "root with CAP_SYS_ADMIN")
    causes = [finding for finding in _shared_rootless(facts) if finding.ok is False]
    text = "; ".join(["root has no CAP_SYS_ADMIN", *(finding.text for finding in causes)])
    hints = " ".join(dict.fromkeys(finding.hint for finding in causes))
    return Finding("privileges", False, text, f"{hints} {CONTAINER_HINT}".strip())


def _shared_rootless(facts: Facts) -> tuple[Finding, ...]:
    """What does not depend on which user it is."""
    return (
        _giving_away(facts),
        _id_mapper(facts, "newuidmap", facts.newuidmap),
        _id_mapper(facts, "newgidmap", facts.newgidmap),
        _no_new_privileges(facts),
        _user_namespaces(facts),
    )


def _giving_away(facts: Facts) -> Finding:
    """What lets root give the daemon away; everybody else keeps it."""
    name = "capabilities"
    lacking = [word for bit, word in GIVING_AWAY.items() if not facts.has_capability(bit)]
    if facts.uid != 0 or not lacking:
        return Finding(name, True, "sufficient")
    words = ", ".join(f"CAP_{word}" for word in lacking)
    flags = " ".join(f"--cap-add {word}" for word in lacking)
    text = f"root has no {words}, and cannot give the daemon to another user"
    return Finding(name, False, text, f"Docker: add {flags}.")


def _id_mapper(facts: Facts, name: str, mapper: IdMapper | None) -> Finding:
    if mapper is None:
        return Finding(name, False, f"{name} was not found on PATH", "Install the package uidmap.")
    if not mapper.setuid_root and not mapper.capability:
        return Finding(
            name,
            False,
            f"{mapper.path} may not set ids: it has neither the setuid bit nor a file capability",
            f"As root: chmod u+s {mapper.path} "
            f"(or setcap cap_set{name[3]}id=ep {mapper.path} on a container image).",
        )
    bit = 7 if name == "newuidmap" else 6
    if mapper.capability and not facts.has_bounding(bit):
        return Finding(
            name,
            False,
            f"{mapper.path} may not set ids: the container has no CAP_{GIVING_AWAY[bit]}",
            f"Docker: add --cap-add {GIVING_AWAY[bit]}.",
        )
    if mapper.nosuid:
        return Finding(
            name,
            False,
            f"{mapper.path} may not set ids: its file system is mounted nosuid",
            "Mount it without nosuid.",
        )
    if not mapper.capability and not facts.has_bounding(CAP_SYS_ADMIN):
        return Finding(
            name,
            None,
            f"{mapper.path} is setuid root, which is not enough without CAP_SYS_ADMIN "
            "in the container",
            f"In the image: chmod u-s and setcap cap_set{name[3]}id=ep {mapper.path}.",
        )
    how = "file capability" if mapper.capability else "setuid root"
    return Finding(name, True, f"{mapper.path} ({how})")


def _no_new_privileges(facts: Facts) -> Finding:
    if not facts.no_new_privileges:
        return Finding("no-new-privileges", True, "off")
    return Finding(
        "no-new-privileges",
        False,
        "no-new-privileges is on, so newuidmap cannot set ids",
        "Docker: remove --security-opt no-new-privileges. "
        "Kubernetes: allowPrivilegeEscalation: true.",
    )


def _user_namespaces(facts: Facts) -> Finding:
    name = "user namespaces"
    if facts.max_user_namespaces == 0:
        return Finding(
            name,
            False,
            "user namespaces are switched off (user.max_user_namespaces is 0)",
            "On the host, as root: sysctl -w user.max_user_namespaces=28633.",
        )
    if facts.unprivileged_userns_clone == 0 and not facts.has_capability(CAP_SYS_ADMIN):
        return Finding(
            name,
            False,
            "user namespaces are for root only (kernel.unprivileged_userns_clone is 0)",
            "On the host, as root: sysctl -w kernel.unprivileged_userns_clone=1.",
        )
    if facts.apparmor_restricts_userns:
        return Finding(
            name,
            None,
            "AppArmor may restrict them (kernel.apparmor_restrict_unprivileged_userns is 1)",
            "If rootlesskit fails, on the host, as root: "
            "sysctl -w kernel.apparmor_restrict_unprivileged_userns=0 (Ubuntu 24.04 and later).",
        )
    if facts.seccomp_filter and not facts.has_bounding(CAP_SYS_ADMIN):
        text = "a seccomp filter is on, which may refuse them (Docker's default profile does)"
        return Finding(name, None, text, CONTAINER_HINT)
    return Finding(name, True, "allowed")


def _own(facts: Facts, user: User) -> tuple[Finding, ...]:
    """What this user needs of its own."""
    if _current(facts) is None and facts.uid != 0:
        return (
            Finding(
                "passwd entry",
                None if facts.other_user_databases else False,
                f"uid {user.uid} has no entry in /etc/passwd, and newuidmap asks for its name",
                "Run as root or with --user 1000 (Kubernetes: runAsUser: 1000), "
                "or give the uid an entry and subordinate ids.",
            ),
        )
    return (
        Finding("passwd entry", True, f"{user.name} ({user.uid})"),
        _range_finding("/etc/subuid", facts.subuid, user),
        _range_finding("/etc/subgid", facts.subgid, user),
        _home(facts),
    )


def _range_finding(file: str, ranges: tuple[Range, ...], user: User) -> Finding:
    name = file.removeprefix("/etc/")
    count = _count(ranges, user)
    if count >= NEEDED_IDS:
        return Finding(name, True, f"{count} ids for {user.name}")
    have = f"gives {user.name} {count} ids" if count else f"has no ids for {user.name}"
    return Finding(
        name,
        False,
        f"{file} {have}; {NEEDED_IDS} are needed",
        f"As root: usermod --add-sub{name[3:]}s 100000-165535 {user.name}.",
    )


def _home(facts: Facts) -> Finding:
    if facts.home_readable:
        return Finding("home", True, facts.home)
    return Finding(
        "home",
        None,
        f"HOME {facts.home or '(not set)'} cannot be read: no registry credentials are found there",
        "Set HOME to a directory of the user, or DOCKER_CONFIG to that of the credentials.",
    )


def _current(facts: Facts) -> User | None:
    return next((user for user in facts.users if user.uid == facts.uid), None)


def _has_ranges(facts: Facts, user: User) -> bool:
    return min(_count(facts.subuid, user), _count(facts.subgid, user)) >= NEEDED_IDS


def _count(ranges: tuple[Range, ...], user: User) -> int:
    return sum(one.size for one in ranges_of(user, ranges))
