"""Registries that guard themselves as those of companies do, and clients that look into them.

Two programs, Debian's docker-registry (2.8) and distribution v3, each open over plain HTTP,
behind htpasswd, behind TLS by an authority of its own, and behind a token service.
"""

from __future__ import annotations

import base64
import json
import re
import subprocess
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, NamedTuple

from tests.support import certificates, machine, token_service
from tests.support.registry import free_port, process
from tests.support.token_service import TokenService

USERNAME = "publisher"
PASSWORD = "not-a-secret/+=:%"
_HTPASSWD = "publisher:$2a$04$/W6mduM0oJyqXKD5aA7NFu/tQhyF6ENtmLExOiQAvU42OetMJcOHK\n"
"""USERNAME and PASSWORD by bcrypt at its lowest cost."""

PROGRAMS = ("docker-registry", "registry")
GUARDS = ("open", "htpasswd", "tls", "token")

_CONFIG = """\
version: 0.1
log: {{level: error, accesslog: {{disabled: false}}}}
storage:
  filesystem: {{rootdirectory: "{storage}"}}
  delete: {{enabled: true}}
http: {http}
{auth}
"""
_ACCESS = re.compile(r'"((?:GET|HEAD|PUT|POST|PATCH|DELETE) [^"]*)" (\d+)')


class Kind(NamedTuple):
    """Which program, and how it is guarded; ``tls`` asks for a password as well."""

    program: str
    guard: str


KINDS = tuple(Kind(program, guard) for program in PROGRAMS for guard in GUARDS)


@dataclass(slots=True)
class GuardedRegistry:
    """A registry that runs, seen as a user sees it and as its administrator does."""

    address: str
    kind: Kind
    log: Path
    authority: Path | None = None
    tokens: TokenService | None = None
    seen: int = field(default=0)

    @property
    def credentials(self) -> tuple[str, str] | None:
        """User and password, or None where none are needed."""
        return None if self.kind.guard == "open" else (USERNAME, PASSWORD)

    @property
    def env(self) -> dict[str, str]:
        """The publisher's variables to reach it."""
        env = {}
        if self.authority is not None:
            env["PLP_REGISTRY_CA_PATH"] = str(self.authority)
        else:
            env["PLP_REGISTRY_INSECURE"] = "true"
        if self.credentials:
            env["PLP_REGISTRY_USERNAME"], env["PLP_REGISTRY_PASSWORD"] = self.credentials
        return env

    def requests(self) -> list[str]:
        """``METHOD path HTTP/1.1 status`` of every request since the last call of this."""
        text = self.log.read_text(errors="replace")
        found = [f"{match[1]} {match[2]}" for match in _ACCESS.finditer(text)]
        new = found[self.seen :]
        self.seen = len(found)
        return new

    def clients(self, home: Path) -> Clients:
        """Other programs to read it with, whose configuration goes to ``home``."""
        return Clients(self.address, home, self.credentials, self.authority)


@dataclass(frozen=True, slots=True)
class Clients:
    """crane and regctl for one registry: what is there, told by somebody else than skopeo."""

    address: str
    home: Path
    credentials: tuple[str, str] | None = None
    authority: Path | None = None

    def crane(self, *arguments: str) -> str:
        """Run crane; ``{}`` in an argument stands for the registry's address."""
        options = [] if self.authority else ["--insecure"]
        return self._run("crane", [*options, *arguments])

    def regctl(self, *arguments: str) -> str:
        """The same with regctl."""
        host = f"reg={self.address},tls={'enabled' if self.authority else 'disabled'}"
        return self._run("regctl", ["--host", host, *arguments])

    def digest(self, name: str) -> str:
        """The digest that both say ``repository:tag`` has; they must agree."""
        reference = f"{self.address}/{name}"
        said = self.crane("digest", reference).strip()
        assert self.regctl("image", "digest", reference).strip() == said
        return said

    def tags(self, repository: str) -> set[str]:
        """The tags of a repository; none where the registry does not know it."""
        try:
            return set(self.crane("ls", f"{self.address}/{repository}").split())
        except LookupError:
            return set()

    def digests(self, repository: str) -> dict[str, str]:
        """The digest of every tag, by regctl, which asks the registry for nothing else."""
        name = f"{self.address}/{repository}"
        return {
            tag: self.regctl("manifest", "head", f"{name}:{tag}").strip()
            for tag in self.tags(repository)
        }

    def environment(self) -> dict[str, str]:
        """What clients need to get in: a Docker configuration, and the authority."""
        self.home.mkdir(parents=True, exist_ok=True)
        auths = {}
        if self.credentials:
            both = base64.b64encode(":".join(self.credentials).encode()).decode()
            auths[self.address] = {"auth": both}
        (self.home / "config.json").write_text(json.dumps({"auths": auths}))
        trust = {"SSL_CERT_FILE": str(self.authority)} if self.authority else {}
        return {
            **trust,
            "PATH": machine.SYSTEM_PATH,
            "HOME": str(self.home),
            "DOCKER_CONFIG": str(self.home),
            "REGCTL_CONFIG": str(self.home / "regctl.json"),
        }

    def _run(self, program: str, arguments: list[str]) -> str:
        command = [machine.command(program), *(text.format(self.address) for text in arguments)]
        done = subprocess.run(
            command, check=False, capture_output=True, text=True, env=self.environment()
        )
        if "NAME_UNKNOWN" in done.stderr or "MANIFEST_UNKNOWN" in done.stderr:
            raise LookupError(done.stderr)
        assert done.returncode == 0, f"{command}: {done.stdout}{done.stderr}"
        return done.stdout


@contextmanager
def running(kind: Kind, directory: Path) -> Iterator[GuardedRegistry]:
    """A new, empty registry of that kind below ``directory``, which is made."""
    directory.mkdir(parents=True)
    address = f"127.0.0.1:{free_port()}"
    registry = GuardedRegistry(address, kind, directory / "log")
    http: dict[str, Any] = {"addr": address, "secret": "of the tests"}
    auth = ""
    with ExitStack() as stack:
        if kind.guard in {"htpasswd", "tls"}:
            (directory / "htpasswd").write_text(_HTPASSWD)
            settings = {"realm": "tests", "path": str(directory / "htpasswd")}
            auth = f"auth: {json.dumps({'htpasswd': settings})}\n"
        if kind.guard == "tls":
            made = certificates.for_loopback(directory)
            http["tls"] = {"certificate": str(made.certificate), "key": str(made.key)}
            registry.authority = made.authority
        if kind.guard == "token":
            tokens = token_service.running(directory / "tokens", USERNAME, PASSWORD)
            registry.tokens = stack.enter_context(tokens)
            auth = registry.tokens.registry_settings()
        config = directory / "config.yml"
        text = _CONFIG.format(storage=directory / "storage", http=json.dumps(http), auth=auth)
        config.write_text(text)
        stack.enter_context(process(kind.program, config, address, registry.log))
        yield registry


class Registries:
    """One registry of each kind for a test run, started when it is first asked for."""

    def __init__(self, directory: Path, stack: ExitStack) -> None:
        self._directory = directory
        self._stack = stack
        self._running: dict[Kind, GuardedRegistry] = {}

    def __getitem__(self, kind: Kind) -> GuardedRegistry:
        if kind not in self._running:
            directory = self._directory / "-".join(kind)
            self._running[kind] = self._stack.enter_context(running(kind, directory))
        registry = self._running[kind]
        registry.requests()  # what earlier tests asked is not this one's
        return registry
