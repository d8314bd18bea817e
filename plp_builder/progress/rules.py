"""The common causes of failed builds, told from BuildKit's own words: patterns and next steps.

The patterns were read off real builds with BuildKit 0.21.1 and 0.32.2. The first that fits wins,
so a precise one stands before a general one. The words of a build step itself come last: they say
what a tool thought, not what BuildKit knows.
"""

from __future__ import annotations

import re

from plp_builder.tuples import NamedTuple


class Rule(NamedTuple):
    """``pattern`` is searched in one field of a case; its groups fill the hint's braces."""

    field: str
    pattern: re.Pattern[str]
    hint: str


def _flags(field: str) -> re.RegexFlag:
    # An excerpt is several lines, of which a mark begins the interesting one.
    return re.IGNORECASE | (re.MULTILINE if field == "excerpt" else re.NOFLAG)


def _rule(field: str, pattern: str, hint: str) -> Rule:
    return Rule(field, re.compile(pattern, _flags(field)), hint)


NO_NAMES = (
    r"no such host|server misbehaving|temporary failure in name resolution|"
    r"name or service not known|could not resolve|bad address|enotfound|eai_again"
)
NO_WAY = (
    r"connection refused|network is unreachable|no route to host|i/o timeout|"
    r"context deadline exceeded|connection reset|connection timed out|unexpected eof|: eof$"
)

OFFLINE = r"proxyconnect tcp: dial tcp 127\.0\.0\.1:9:"
"""The proxy that is not there, which an offline daemon is given (buildkit/command.py)."""

IMAGE_RULES = (
    _rule(
        "excerpt",
        r">>> *#\s*syntax\s*=",
        "The `# syntax=` line makes BuildKit fetch its Dockerfile frontend from a registry. "
        "Remove the line to use the built-in one, or make the registry reachable.",
    ),
    _rule(
        "excerpt",
        r">>> .*(?:--|,)from=([a-z0-9][a-z0-9_.-]*)(?:[ ,]|$)",
        'No stage before this line is named "{1}", so BuildKit looked for an image of that name: '
        "correct the name, or bring an image along by PLP_BUILD_CONTEXTS ({1}=oci-layout:///path).",
    ),
    _rule(
        "error",
        OFFLINE,
        "Bring the image along by PLP_BUILD_CONTEXTS (image=oci-layout:///path, or "
        "image=docker-image://127.0.0.1:5000/name), name a mirror on this machine in "
        "PLP_REGISTRY_MIRRORS (docker.io=127.0.0.1:5000), or unset PLP_OFFLINE.",
    ),
    _rule(
        "error",
        r"x509|failed to verify certificate|tls: ",
        "The registry's certificate is not trusted here. Name its CA in PLP_BUILDKITD_CONFIG "
        '([registry."host"] ca=["/path"]); for a test registry use PLP_INSECURE_REGISTRIES.',
    ),
    _rule(
        "error",
        r"server gave HTTP response to HTTPS client",
        "The registry speaks plain HTTP: add it to PLP_INSECURE_REGISTRIES.",
    ),
    _rule(
        "error",
        r"\b429\b|toomanyrequests|too many requests",
        "The registry limits how often images are pulled: log in (DOCKER_CONFIG), wait, "
        "or use a mirror (PLP_REGISTRY_MIRRORS).",
    ),
    _rule(
        "error",
        r"\b40[13]\b|unauthorized|forbidden|denied|insufficient_scope|authorization failed",
        "The registry wants credentials that may pull this image, or the image does not exist: "
        "check its name, mount a config.json and let DOCKER_CONFIG name its directory.",
    ),
    _rule(
        "error",
        r"no match for platform in manifest",
        "The image does not exist for this platform: correct PLP_PLATFORMS, or choose another "
        "image.",
    ),
    _rule(
        "error",
        r"unexpected status .*\b5\d\d\b",
        "The registry has a problem of its own: try again later, or use a mirror "
        "(PLP_REGISTRY_MIRRORS).",
    ),
    _rule(
        "error",
        rf"{NO_NAMES}|{NO_WAY}",
        "The registry cannot be reached from here: check network, DNS and proxy, name a mirror in "
        "PLP_REGISTRY_MIRRORS, or bring the image along by PLP_BUILD_CONTEXTS "
        "(image=oci-layout:///path).",
    ),
    _rule(
        "error",
        r"not found",
        "The registry has no such image: check the name and the tag. A misspelt stage name is "
        "taken for an image, too.",
    ),
)

RULES = (
    _rule(
        "error",
        OFFLINE,
        "PLP_OFFLINE is set, so nothing is fetched: bring along in the build context what the "
        "step needs, or unset PLP_OFFLINE.",
    ),
    _rule(
        "error",
        r"lint violation found",
        "Correct the findings of the Dockerfile checks shown above, or drop `error=true` from the "
        "`# check=` line.",
    ),
    _rule(
        "error",
        r"unknown flag: (\S+)",
        "The Dockerfile frontend in use does not know {1}: correct it, or use a newer frontend "
        "(PLP_FRONTEND, or a `# syntax=` line).",
    ),
    _rule(
        "error",
        r"parse error on line (\d+)",
        "Correct line {1} of the Dockerfile.",
    ),
    _rule(
        "error",
        r"unterminated heredoc",
        "End the heredoc with its delimiter on a line of its own.",
    ),
    _rule(
        "error",
        r"base name \((\S+)\) should not be blank",
        "{1} has no value: give it one by PLP_BUILD_ARGS, or a default in an ARG before the first "
        "FROM.",
    ),
    _rule(
        "error",
        r"failed to parse stage name|invalid reference format",
        "Correct the image reference: lower case, `registry/name:tag` or `name@sha256:…`.",
    ),
    _rule(
        "error",
        r"target stage \"(.*)\" could not be found",
        'No FROM of the Dockerfile ends with "AS {1}": correct PLP_TARGET or the stage\'s name.',
    ),
    _rule(
        "error",
        r"Dockerfile cannot be empty",
        "Write at least a FROM line, or let PLP_DOCKERFILE name another file.",
    ),
    _rule(
        "error",
        r"failed to parse target platform",
        "Write platforms as linux/amd64 or linux/arm64/v8, separated by commas, in PLP_PLATFORMS.",
    ),
    _rule(
        "error",
        r"secret (\S+): not found",
        "The Dockerfile asks for a secret that was not given: add a line "
        "`id={1},env=VARIABLE` or `id={1},src=/path` to PLP_SECRETS.",
    ),
    _rule(
        "error",
        r"no SSH key \"(.*)\" forwarded",
        "The Dockerfile asks for SSH: set PLP_SSH to `default=/path/of/key` or an agent's socket.",
    ),
    _rule(
        "error",
        r"(security\.insecure|network\.host) is not allowed",
        "The step asks for {1}, which this builder does not give to build steps: take the flag "
        "out.",
    ),
    _rule(
        "error",
        r"no space left on device",
        "Free space where BuildKit keeps its state and where PLP_CACHE_PATH lies, or give the "
        "container a larger disk.",
    ),
    _rule(
        "step",
        r"^(?:exporting|importing) cache",
        "The portable cache cannot be used: check that PLP_CACHE_PATH is writable and has space. "
        "PLP_CACHE_STRATEGY=off builds without it.",
    ),
    _rule(
        "error",
        r"error reading from server: EOF|transport is closing|code = Unavailable",
        "buildkitd ended during the build, often for lack of memory: give the container more, and "
        "start the build again.",
    ),
    _rule(
        "error",
        r"invalid response status (\d+)",
        "The address in ADD answers with status {1}: check the URL and whether it needs a login.",
    ),
    _rule(
        "error",
        r"digest mismatch",
        "What was downloaded is not what --checksum promises: check the file and the checksum.",
    ),
    _rule(
        "output",
        r"no space left on device",
        "Free space where BuildKit keeps its state (PLP_CACHE_PATH), or write less in this step.",
    ),
    _rule(
        "output",
        r"exec format error",
        "The program is made for another processor, or it is a script without a `#!` line: check "
        "PLP_PLATFORMS and the platform of the base image and of what was copied.",
    ),
    _rule(
        "output",
        r"unable to start container process: exec: \"([^\"]*)\".*(?:no such file|not found)",
        "The image has no {1}: install it in an earlier step, or use the JSON form of the "
        'instruction with a program that is there (RUN ["/program", "argument"]).',
    ),
    _rule(
        "error",
        r"exit code: 137\b",
        "The step was killed, most often for lack of memory: give the container more, or let the "
        "step do less at the same time.",
    ),
    _rule(
        "error",
        r"exit code: (?:139|134|135)\b",
        "A program in the step crashed: check that it fits the base image and the platform.",
    ),
    _rule(
        "output",
        r"operation not permitted",
        '"operation not permitted": the step needs a right that rootless builds do not have (to '
        "mount, make devices, or give files to ids beyond the subordinate range). Do without it, "
        "or see the rootless part of the documentation.",
    ),
    _rule(
        "error",
        r"operation not permitted",
        '"operation not permitted": BuildKit lacks a right that this step needs, for example to '
        "unpack device nodes. Do without them, or see the rootless part of the documentation.",
    ),
    _rule(
        "output",
        rf"{NO_NAMES}|network is unreachable|no route to host",
        "The step reached for the network in vain. With PLP_OFFLINE or PLP_NETWORK=none it has "
        "none; otherwise check network, DNS and proxy.",
    ),
    _rule(
        "error",
        r"exit code: 127\b",
        "A command was not found in the image: install it in an earlier step, or correct its name.",
    ),
    _rule(
        "error",
        r"exit code: 126\b",
        "A file was found that cannot be executed: check its mode (chmod +x) and its `#!` line.",
    ),
    _rule(
        "error",
        r"did not complete successfully",
        "Correct the command; the lines above are the last it printed.",
    ),
)
