"""Every failure that the builder and the publisher can end with.

Each class is one stable name, which results and JSON logs carry, and one exit code.
A failure says what failed, why, and what to do next::

    Failure                          internal-error
    ├── SettingInvalid               setting-invalid
    │   ├── SettingNotImplemented    setting-not-implemented
    │   └── VariableMissing          variable-missing   exit code 4
    ├── PathFailure
    │   ├── SourcePathNotUsable      source-path-not-usable
    │   ├── ContextNotUsable         context-not-usable
    │   ├── DockerfileNotFound       dockerfile-not-found
    │   ├── DockerfileNotUsable      dockerfile-not-usable
    │   ├── BuildPathNotWritable     build-path-not-writable
    │   └── CachePathNotUsable       cache-path-not-usable
    ├── SecretNotUsable              secret-not-usable
    ├── SshNotUsable                 ssh-not-usable
    ├── BuildContextNotUsable        build-context-not-usable
    ├── ToolNotFound                 tool-not-found
    ├── RootlessNotPermitted         rootless-not-permitted
    ├── DaemonFailure
    │   ├── DaemonNotReady           daemon-not-ready
    │   └── DaemonDied               daemon-died
    ├── BuildFailed                  build-failed
    │   └── BaseImageNotAvailable    base-image-not-available
    ├── ArchiveInvalid               archive-invalid
    ├── ArchiveNotWritten            archive-not-written
    ├── AuthenticationFailed         authentication-failed      exit code 2
    │   └── CredentialsNotUsable     credentials-not-usable     exit code 2
    ├── PushFailed                   push-failed
    │   ├── RepositoryNotFound       repository-not-found
    │   ├── RegistryNotReachable     registry-not-reachable
    │   ├── RegistryRefused          registry-refused
    │   └── DigestDiffers            digest-differs
    ├── CacheDamaged                 cache-damaged      (a warning: never ends a build)
    │   └── StateDamaged             state-damaged      (a warning: the state is put aside)
    ├── CacheNotUsable               cache-not-usable   (a warning: never ends a build)
    │   └── StateNotCarried          state-not-carried  (a note: the portable cache is used)
    ├── ResourcesExhausted           resources-exhausted
    ├── TimedOut                     timed-out
    └── Stopped
        ├── Terminated               terminated         exit code 143
        └── Interrupted              interrupted        exit code 130
"""

from __future__ import annotations

import errno
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Iterable
    from typing import ClassVar


class Failure(Exception):
    """The root of all expected failures.

    ``what`` is one sentence without a full stop; ``why`` holds the lines that explain it,
    for example the relevant output of a tool; ``hint`` is the next step for the reader.
    A class may bring a hint of its own, which is used when none is given.
    """

    name: ClassVar[str] = "internal-error"
    exit_code: ClassVar[int] = 1
    default_hint: ClassVar[str] = ""

    def __init__(self, what: str, *, why: Iterable[str] = (), hint: str | None = None) -> None:
        super().__init__(what)
        self.what = what
        self.why = (why,) if isinstance(why, str) else tuple(why)
        self.hint = self.default_hint if hint is None else hint


class SettingInvalid(Failure):
    """One or more variables hold what cannot be used; ``why`` has a line for each."""

    name = "setting-invalid"
    default_hint = "Correct the variables named above; `--help` lists what each accepts."


class SettingNotImplemented(SettingInvalid):
    """A variable of the contract that this version does not honour yet."""

    name = "setting-not-implemented"
    default_hint = "Unset the variable, or use a version that implements it (see CHANGELOG.md)."


class VariableMissing(SettingInvalid):
    """One or more required variables are not set; ``why`` names all of them."""

    name = "variable-missing"
    exit_code = 4


class PathFailure(Failure):
    """A path of the contract is missing or cannot be used."""

    name = "path-not-usable"


class SourcePathNotUsable(PathFailure):
    """PLP_SOURCE_PATH is missing, no directory, or not readable."""

    name = "source-path-not-usable"


class ContextNotUsable(PathFailure):
    """PLP_CONTEXT is missing, no directory, or outside the source path."""

    name = "context-not-usable"


class DockerfileNotFound(PathFailure):
    """No Dockerfile where PLP_DOCKERFILE points to."""

    name = "dockerfile-not-found"


class DockerfileNotUsable(PathFailure):
    """The Dockerfile is no regular file, not readable, or lies outside the source path."""

    name = "dockerfile-not-usable"


class BuildPathNotWritable(PathFailure):
    """PLP_BUILD_PATH is missing, no directory, or does not take files."""

    name = "build-path-not-writable"


class CachePathNotUsable(PathFailure):
    """PLP_CACHE_PATH is not absolute or is something other than a directory."""

    name = "cache-path-not-usable"


class SecretNotUsable(Failure):
    """A secret's variable is unset, or its file is missing, unreadable or too large."""

    name = "secret-not-usable"


class SshNotUsable(Failure):
    """An SSH agent socket or key is missing or unreadable."""

    name = "ssh-not-usable"


class BuildContextNotUsable(Failure):
    """A named build context is missing or ambiguous."""

    name = "build-context-not-usable"


class ToolNotFound(Failure):
    """A program that the builder drives is not on PATH."""

    name = "tool-not-found"
    default_hint = "Run `make setup` and put its bin/ first on PATH."


CONTAINER_HINT = (
    "Docker: add --privileged, or "
    "--security-opt seccomp=unconfined --security-opt apparmor=unconfined. "
    "Kubernetes: securityContext with seccompProfile.type and appArmorProfile.type Unconfined, "
    "runAsUser 1000, allowPrivilegeEscalation true."
)


class RootlessNotPermitted(Failure):
    """This environment does not let an unprivileged BuildKit run."""

    name = "rootless-not-permitted"
    default_hint = CONTAINER_HINT


class DaemonFailure(Failure):
    """buildkitd could not be used; ``why`` has the relevant lines of its log."""

    name = "daemon-failed"


class DaemonNotReady(DaemonFailure):
    """buildkitd did not report readiness within PLP_START_TIMEOUT."""

    name = "daemon-not-ready"


class DaemonDied(DaemonFailure):
    """buildkitd ended while it was needed."""

    name = "daemon-died"


class BuildFailed(Failure):
    """BuildKit could not solve the build; ``why`` has the failed step's last lines."""

    name = "build-failed"


class BaseImageNotAvailable(BuildFailed):
    """An image that the Dockerfile names could not be resolved."""

    name = "base-image-not-available"


class ArchiveInvalid(Failure):
    """An image archive does not hold what its index and manifests promise."""

    name = "archive-invalid"


class ArchiveNotWritten(Failure):
    """The archive could not be put in its place; an older one is as it was."""

    name = "archive-not-written"


class AuthenticationFailed(Failure):
    """The registry did not accept the credentials, or they do not allow a push."""

    name = "authentication-failed"
    exit_code = 2


class CredentialsNotUsable(AuthenticationFailed):
    """A file or a helper that should hold credentials is missing, unreadable or malformed."""

    name = "credentials-not-usable"


class PushFailed(Failure):
    """The image did not arrive; ``why`` has what the registry or skopeo said."""

    name = "push-failed"
    default_hint = "Publish again: what has arrived already is not sent a second time."


class RepositoryNotFound(PushFailed):
    """The registry does not know the repository, and does not make it by a push."""

    name = "repository-not-found"


class RegistryNotReachable(PushFailed):
    """No connection, no name, no trusted certificate: the registry could not be asked."""

    name = "registry-not-reachable"


class RegistryRefused(PushFailed):
    """The registry answered that it does not take this: trying again would not help."""

    name = "registry-refused"


class DigestDiffers(PushFailed):
    """A tag points to something other than what was pushed."""

    name = "digest-differs"


class CacheDamaged(Failure):
    """Part of the cache cannot be trusted. Told as a warning; the build goes on."""

    name = "cache-damaged"


class StateDamaged(CacheDamaged):
    """A daemon cannot work with the state that was kept: the build begins again without it."""

    name = "state-damaged"


class CacheNotUsable(Failure):
    """The cache cannot be read or kept. Told as a warning; the build goes on."""

    name = "cache-not-usable"


class StateNotCarried(CacheNotUsable):
    """The daemon's state cannot be kept where it should be; the portable cache does instead."""

    name = "state-not-carried"


class ResourcesExhausted(Failure):
    """The system lets us have no further process, thread, descriptor or memory."""

    name = "resources-exhausted"
    default_hint = (
        "Raise the limits of this machine or container: processes and threads (--pids-limit, "
        "ulimit -u), open files (ulimit -n), memory."
    )


_SCARCE = {errno.EMFILE: "open files", errno.ENFILE: "open files", errno.ENOMEM: "memory"}


def exhausted(error: BaseException) -> ResourcesExhausted | None:
    """``error`` as that failure, where a limit of the system is what it tells of."""
    if isinstance(error, ResourcesExhausted):
        return error
    what = ""
    if isinstance(error, OSError):
        what = _SCARCE.get(error.errno or 0, "")
    elif isinstance(error, MemoryError):
        what = "memory"
    elif isinstance(error, RuntimeError) and "can't start new thread" in str(error):
        what = "threads"
    if not what:
        return None
    return ResourcesExhausted(
        f"the system gives us no more {what}", why=[str(error)] if str(error) else []
    )


class TimedOut(Failure):
    """The time of PLP_TIMEOUT is over."""

    name = "timed-out"


class Stopped(Failure):
    """A signal asked the program to stop."""

    name = "stopped"
    default_hint = "Start the build again; the previous archive is as it was."


class Terminated(Stopped):
    """SIGTERM: the host stops the job."""

    name = "terminated"
    exit_code = 143


class Interrupted(Stopped):
    """SIGINT: somebody pressed Ctrl-C."""

    name = "interrupted"
    exit_code = 130
