"""Each recorded failure of a real build is named, shown and followed by a next step."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from plp_builder.errors import ArchiveNotWritten, BaseImageNotAvailable, BuildFailed, Failure
from plp_builder.progress import Model, hints
from plp_builder.progress.failure import explain, last_words
from tests.support.streams import moment, output, recorded, vertex, watch


def failure_of(name: str) -> Failure:
    return explain(watch(recorded(name))[1])


@pytest.mark.parametrize("name", ["run-fails", "run-fails-0.21"])
def test_a_command_that_fails(name: str) -> None:
    failure = failure_of(name)
    assert failure.what == 'step "RUN echo before; echo oops >&2; exit 7" failed with exit code 7'
    assert failure.why == (
        "before",
        "oops",
        "Dockerfile:4",
        "   2 |     COPY busybox /bin/busybox",
        '   3 |     SHELL ["/bin/busybox","sh","-c"]',
        "   4 | >>> RUN echo before; echo oops >&2; exit 7",
    )
    assert failure.hint == "Correct the command; the lines above are the last it printed."


@pytest.mark.parametrize("name", ["copy-missing", "copy-missing-0.21"])
def test_a_file_that_is_not_in_the_context(name: str) -> None:
    failure = failure_of(name)
    assert failure.what == 'step "COPY nothere.txt /x/" failed: "/nothere.txt" not found'
    assert "   3 | >>> COPY nothere.txt /x/" in failure.why
    assert ".dockerignore" in failure.hint


def test_a_file_outside_the_context() -> None:
    """BuildKit reads ``../`` as the context's root, so that it misses a file that does exist."""
    error = 'failed to calculate checksum of ref abc::def: "/shared": not found'
    hint = hints.hint(hints.Case(error, "COPY ../shared /", ""))
    assert "PLP_CONTEXT" in hint
    assert "PLP_BUILD_CONTEXTS" in hint


def test_a_file_that_is_not_in_a_stage() -> None:
    failure = failure_of("copy-from-missing")
    assert failure.hint == 'Check the path: there is no "/nothing" in base.'


def test_a_file_of_a_linked_copy() -> None:
    assert (
        failure_of("copy-link-missing").what == 'step "COPY --link df /b/" failed: "/df" not found'
    )


@pytest.mark.parametrize(
    ("name", "image", "reason", "hint"),
    [
        ("image-no-dns", "no.such.host.invalid/team/image:1", "no such host", "network, DNS"),
        ("image-401-0.21", "127.0.0.1:5077/401/image:1", "401 Unauthorized", "DOCKER_CONFIG"),
        ("image-404", "127.0.0.1:5077/404/image:1", "not found", "the name and the tag"),
        ("image-x509", "192.0.2.1:5078/404/image:1", "x509: ", "PLP_INSECURE_REGISTRIES"),
        ("image-platform", "127.0.0.1:5079/plat/image:1", "no match for", "PLP_PLATFORMS"),
        ("stage-missing", "docker.io/library/nosuchstage:latest", "no such host", "No stage"),
        ("syntax-image", "docker.io/docker/dockerfile:99", "no such host", "`# syntax=` line"),
    ],
)
def test_an_image_that_cannot_be_resolved(name: str, image: str, reason: str, hint: str) -> None:
    failure = failure_of(name)
    assert isinstance(failure, BaseImageNotAvailable)
    assert failure.what == f"image {image} is not available"
    assert reason in failure.why[-1]
    assert hint in failure.hint


@pytest.mark.parametrize(
    ("name", "what", "hint"),
    [
        ("killed", "failed with exit code 137", "lack of memory"),
        ("exec-format", 'step "RUN ["/armbin"]" failed with exit code 1', "another processor"),
        ("no-shell", 'step "RUN ["/bin/sh","-c","true"]" failed', "The image has no /bin/sh:"),
        ("no-network", "failed with exit code 1", "PLP_OFFLINE"),
        ("not-permitted", "failed with exit code 1", "operation not permitted"),
        ("no-space", "load build definition from Dockerfile", "Free space"),
        ("secret-missing", "RUN --mount=type=secret", "`id=tok,env=VARIABLE`"),
        ("add-404", 'step "ADD http://127.0.0.1:5077/404/file /x" failed', "status 404"),
        ("no-target", 'target stage "nosuch" could not be found', 'ends with "AS nosuch"'),
        ("parse-error", "unknown instruction: RUNN (did you mean RUN?)", "Correct line 2"),
        ("empty-dockerfile", "the Dockerfile cannot be empty", "at least a FROM"),
        ("lint-error", "lint violation found for rules: FromAsCasing", "Dockerfile checks"),
        ("daemon-died", "error reading from server: EOF", "buildkitd ended"),
        ("cancelled", "the build was cancelled", "Start it again."),
        ("parallel", "failed with exit code 3", "Correct the command"),
    ],
)
def test_common_causes(name: str, what: str, hint: str) -> None:
    failure = failure_of(name)
    assert type(failure) is BuildFailed
    assert what in failure.what
    assert hint in failure.hint


def test_what_buildkit_says_is_always_told() -> None:
    """Either in the first sentence or among the reasons."""
    for name in ("no-space", "secret-missing", "add-404", "no-target", "parse-error"):
        failure = failure_of(name)
        (said,) = [line for line in recorded(name) if line.startswith(b"error: failed to solve: ")]
        words = said.decode().removeprefix("error: failed to solve: ").strip()
        assert words.removeprefix("ResourceExhausted: ") in (failure.what, *failure.why)


REFUSED = "proxyconnect tcp: dial tcp 127.0.0.1:9: connect: connection refused"


def test_an_image_that_is_not_at_hand_offline() -> None:
    """The proxy that is not there is how PLP_OFFLINE works, and nothing to look for."""
    image = "docker.io/library/alpine:3"
    failure = explain(
        Model(),
        [
            f"error: failed to solve: {image}: failed to resolve source metadata for {image}: "
            f'failed to do request: Head "https://registry-1.docker.io/v2/x": {REFUSED}'
        ],
    )
    assert isinstance(failure, BaseImageNotAvailable)
    assert failure.what == f"image {image} is not available"
    (why,) = failure.why
    assert "PLP_OFFLINE is set" in why
    for word in ("PLP_BUILD_CONTEXTS", "oci-layout:", "PLP_REGISTRY_MIRRORS", "unset PLP_OFFLINE"):
        assert word in failure.hint
    assert "127.0.0.1:9" not in "".join((*failure.why, failure.hint))


def test_a_download_offline() -> None:
    failure = explain(
        Model(), [f'error: failed to solve: failed to load cache key: Get "https://x/y": {REFUSED}']
    )
    assert type(failure) is BuildFailed
    assert "unset PLP_OFFLINE" in failure.hint


@pytest.mark.parametrize(
    ("reason", "what", "hint"),
    [
        ("no space left on device", "does not fit in PLP_BUILD_PATH", "Free some space"),
        ("disk quota exceeded", "does not fit in PLP_BUILD_PATH", "Free some space"),
        ("input/output error", "cannot be written to PLP_BUILD_PATH", "Check the disk"),
    ],
)
def test_an_archive_that_cannot_be_written(reason: str, what: str, hint: str) -> None:
    """Unlike a daemon without space, which is a failed build."""
    words = f"rpc error: code = Unknown desc = write /dev/stdout: {reason}"
    failure = explain(Model(), [f"error: failed to solve: {words}"])
    assert type(failure) is ArchiveNotWritten
    assert what in failure.what
    assert failure.what.endswith(reason)
    assert failure.hint.startswith(hint)


@pytest.mark.parametrize(
    ("dockerfile", "head"),
    [
        ("docker/app/Dockerfile", "docker/app/Dockerfile:4"),
        ("Dockerfile", "Dockerfile:4"),
        ("docker/other", "Dockerfile:4"),
        ("", "Dockerfile:4"),
    ],
)
def test_the_excerpt_names_the_path_of_the_dockerfile(dockerfile: str, head: str) -> None:
    """But not of another file, as when a build context brings its own Dockerfile."""
    failure = explain(watch(recorded("run-fails"))[1], dockerfile=dockerfile)
    assert head in failure.why
    assert sum(":4" in line for line in failure.why) == 1


def failed_step(printed: bytes = b"", error: str = "exit code: 1", name: str = "RUN x") -> Model:
    error = f'process "x" did not complete successfully: {error}'
    step = f"[1/1] {name}"
    return watch(
        [
            vertex("v", step, started=moment(0)),
            output("v", printed),
            vertex("v", step, started=moment(0), completed=moment(1), error=error),
        ]
    )[1]


def test_only_the_last_lines_of_a_step_are_shown() -> None:
    failure = explain(failed_step(b"".join(b"line %d\n" % number for number in range(100))))
    assert failure.why == tuple(f"line {number}" for number in range(80, 100))


def test_the_last_line_needs_no_newline() -> None:
    assert explain(failed_step(b"done\nSegmentation fault")).why[-1] == "Segmentation fault"


def test_a_step_that_fails_without_last_words_of_buildctl() -> None:
    """As when buildctl was killed."""
    assert (
        explain(failed_step(b"x\n", "exit code: 2")).what == 'step "RUN x" failed with exit code 2'
    )


def test_nothing_known() -> None:
    failure = explain(Model())
    assert failure.what == "buildctl ended without saying why"


def test_a_crash_of_buildctl_is_told_as_one() -> None:
    _, model = watch(
        [
            b"runtime: failed to create new OS thread (have 9 already; errno=11)\n",
            b"goroutine 51 gp=0x2cd6 m=nil [runnable]:\n",
            b"\t/src/golang.org/x/net@v0.57.0/http2/server.go:2256 +0x21f\n",
        ]
    )
    failure = explain(model)
    assert failure.what == "buildctl crashed"
    assert "--pids-limit" in failure.hint


def test_a_panic_of_buildctl_is_shown() -> None:
    _, model = watch([b"panic: runtime error\n", b"goroutine 1 [running]:\n"])
    assert explain(model).why == ("panic: runtime error", "goroutine 1 [running]:")


def test_texts_given_by_the_caller_win() -> None:
    assert (
        explain(
            Model(), ["noise", "error: failed to solve: rpc error: code = Unknown desc = x"]
        ).what
        == "x"
    )


def test_a_step_cannot_command_the_terminal_through_a_failure() -> None:
    failure = explain(failed_step(b"\x1b]0;t\x07a\x1b[2J\n", name="RUN \x1b[31m\u202ex"))
    assert failure.why[0] == "a"
    assert failure.what == 'step "RUN x" failed with exit code 1'


def test_braces_of_a_build_do_not_disturb_the_hint() -> None:
    failure = explain(
        Model(), ['error: failed to solve: target stage "{0} {x}" could not be found']
    )
    assert failure.hint.startswith('No FROM of the Dockerfile ends with "AS {0} {x}"')


@pytest.mark.parametrize(
    ("text", "hint"),
    [
        ("exit code: 127", "not found in the image"),
        ("exit code: 126", "cannot be executed"),
        ("exit code: 139", "crashed"),
        ("exit code: 1", "Correct the command"),
    ],
)
def test_exit_codes_that_say_something(text: str, hint: str) -> None:
    assert hint in explain(failed_step(b"x\n", text)).hint


def test_a_long_excerpt_is_cut_around_its_mark() -> None:
    body = [f"{number:4} | {'>>>' if number == 40 else '   '} RUN {number}" for number in range(60)]
    words = last_words(["Dockerfile:40", "-" * 20, *body, "-" * 20, "error: x"])
    assert words.error == "x"
    assert words.excerpt == ("Dockerfile:40", *body[38:53])


@given(st.lists(st.text(max_size=30) | st.sampled_from(["error: ", "Dockerfile:3", "-" * 20])))
def test_any_last_words_are_survived(texts: list[str]) -> None:
    failure = explain(Model(), texts)
    assert failure.what
    assert failure.hint
