"""Programs that keep credentials: ``docker-credential-NAME get``.

The protocol is the one of github.com/docker/docker-credential-helpers (v0.9): the registry goes
to standard input, JSON with ServerURL, Username and Secret comes back; the user ``<token>`` says
that the secret is an identity token; a failure is explained on standard *output*.
"""

from __future__ import annotations

import json
import os
import re
from collections.abc import Callable, Mapping

from plp_builder import process
from plp_builder.errors import CredentialsNotUsable, ToolNotFound
from plp_builder.process import Completed, Stop, Watch
from plp_builder.terminal import decode
from plp_builder.values import shown
from publisher.docker_config import Entry, flaw
from publisher.memory_file import MemoryFile

RunHelper = Callable[[str, str], Completed]
"""Runs a helper, given its program and what to say to it."""

TIMEOUT = 30.0
MAX_ANSWER = 256 << 10

_NAME = re.compile(r"[A-Za-z0-9_.-]{1,64}")
_UNSHOWN = "what it has printed may hold a secret and is not shown"
_NONE = "credentials not found in native keychain"
_TOKEN = "<token>"  # noqa: S105 - a word of the protocol


def ask(name: str, server: str, run: RunHelper) -> Entry | None:
    """What the helper ``name`` has for ``server``; None if it has nothing.

    Raises CredentialsNotUsable, with how to see what the helper says of its trouble.
    """
    if not _NAME.fullmatch(name):
        raise CredentialsNotUsable(
            f"{shown(name)} cannot be a credential helper",
            hint="A helper is named by letters, digits, '_', '.' and '-'; no path, no arguments.",
        )
    program = f"docker-credential-{name}"
    done = run(program, server)
    if done.code != 0:
        if _NONE in decode(done.stdout):
            return None
        raise CredentialsNotUsable(
            f"{program} has failed ({_ending(done.code)})", why=[_UNSHOWN], hint=_by_hand(program)
        )
    return _answer(program, done)


def runner(environ: Mapping[str, str], stop: Stop, timeout: float = TIMEOUT) -> RunHelper:
    """Runs helpers with our environment, except for what is ours alone (``PLP_…``).

    Clouds tell a helper by many variables who it is, so none of theirs is held back. What it
    returns raises CredentialsNotUsable if there is no such program or it takes too long, and
    what ``stop`` raises.
    """
    env = {name: value for name, value in environ.items() if not name.startswith("PLP_")}

    def run(program: str, server: str) -> Completed:
        if process.find(program, env.get("PATH", os.defpath)) is None:
            raise CredentialsNotUsable(
                f"{program} was not found on PATH",
                why=[f"PATH={env.get('PATH', '')}"],
                hint="Install the helper, or give the credentials by PLP_REGISTRY_USERNAME and "
                "PLP_REGISTRY_PASSWORD.",
            )
        with MemoryFile("server", server.encode()) as question, Watch(stop) as watch:
            try:
                child = process.start(
                    [program, "get"],
                    env=env,
                    stdin=question.fd,
                    stdout=process.PIPE,
                    stderr=process.DEVNULL,
                )
            except (ToolNotFound, OSError) as error:
                raise CredentialsNotUsable(f"{program} cannot be run: {error}") from None
            return _wait(child, watch, timeout)

    return run


def _wait(child: process.Child, watch: Watch, timeout: float) -> Completed:
    answer = bytearray()
    ended = []

    def take(chunk: bytes) -> None:
        answer.extend(chunk[: MAX_ANSWER + 1 - len(answer)])
        if not chunk:
            ended.append(child)

    watch.reads(child.stdout, take)
    watch.exits(child, lambda: None)
    try:
        if not watch.until(lambda: child.poll() is not None, seconds=timeout):
            raise CredentialsNotUsable(
                f"{child.name} did not answer within {timeout:g} s", hint=_by_hand(child.name)
            )
        # The pipe may stay open in something that the helper has started.
        watch.until(lambda: bool(ended), seconds=1.0)
    finally:
        code = watch.end(child, grace=0, group=True)
        child.close()
    return Completed((child.name, "get"), -1 if code is None else code, bytes(answer), b"")


def _answer(program: str, done: Completed) -> Entry | None:
    what = f"{program} has given no usable answer"
    if len(done.stdout) > MAX_ANSWER:
        raise CredentialsNotUsable(what, why=["it is too long"])
    try:
        answer = json.loads(done.stdout.decode())
    except (ValueError, RecursionError):
        why = ["it is no JSON", _UNSHOWN]
        raise CredentialsNotUsable(what, why=why, hint=_by_hand(program)) from None
    username = answer.get("Username") if isinstance(answer, dict) else None
    secret = answer.get("Secret") if isinstance(answer, dict) else None
    if not isinstance(username, str) or not isinstance(secret, str):
        raise CredentialsNotUsable(what, why=["it is no object with Username and Secret"])
    if not secret:
        return None
    if problem := flaw("" if username == _TOKEN else username, secret):
        raise CredentialsNotUsable(what, why=[problem])
    if username == _TOKEN:
        return Entry("", "", secret)
    if not username:
        raise CredentialsNotUsable(what, why=["the secret has no user name"])
    return Entry(username, secret)


def _by_hand(program: str) -> str:
    return f"Run it by hand to see what it says: printf %s REGISTRY | {program} get"


def _ending(code: int) -> str:
    return f"exit code {code}" if code >= 0 else f"signal {-code}"
