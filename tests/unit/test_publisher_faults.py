"""What skopeo says of each fault, word by word, and what is made of it.

The words were collected from skopeo 1.9.3 and 1.18.0 against a registry that answers one kind of
request with one fault. The repository has the worst name that one can have.
"""

from __future__ import annotations

import json
from collections.abc import Iterator

import pytest

from plp_builder import log
from plp_builder.errors import (
    ArchiveInvalid,
    AuthenticationFailed,
    DigestDiffers,
    Failure,
    PushFailed,
    RegistryNotReachable,
    RegistryRefused,
    RepositoryNotFound,
)
from publisher.faults import SHOWN, Fault, Kind, classify, failure

R = "127.0.0.1:5000"
REPOSITORY = f"{R}/denied/unauthorized/immutable/toomanyrequests"
BLOB = "sha256:bd3f4ec650a49b27b96f80729bfad95304c810bb7dc2f8e510f054bb0dac1edb"
UPLOAD = f"http://{R}/v2/denied/unauthorized/immutable/toomanyrequests/blobs/uploads/5ec0f1eb"
REUSE = f"trying to reuse blob {BLOB} at destination: "

STEPS = {
    "ping": f"{REUSE}pinging container registry {R}: ",
    "blob": f"{REUSE}checking whether a blob {BLOB} exists in {REPOSITORY}: ",
    "old blob": f"{REUSE}failed to read from destination repository denied/immutable: ",
    "begin": f"writing blob: initiating layer upload to /v2/denied/blobs/uploads/ in {R}: ",
    "send": "writing blob: uploading layer chunked: ",
    "end": f"writing blob: uploading layer to {UPLOAD}?digest=sha256%3Abd3f4ec6: ",
    "manifest": f"writing manifest: uploading manifest {BLOB} to {REPOSITORY}: ",
    "tag": f"writing manifest: uploading manifest denied to {REPOSITORY}: ",
    "inspect": f'Error parsing image name "docker://{REPOSITORY}:denied": '
    f"reading manifest denied in {REPOSITORY}: ",
}
ANSWERS = {
    "unauthorized": Kind.DENIED,
    "unauthorized: authentication required": Kind.DENIED,
    "authentication required": Kind.DENIED,
    "denied": Kind.DENIED,
    "denied: requested access to the resource is denied": Kind.DENIED,
    "403 (Forbidden)": Kind.DENIED,
    "invalid status code from registry 403 (Forbidden)": Kind.DENIED,
    "StatusCode: 403, <html>forbidden by proxy</html>": Kind.DENIED,
    'StatusCode: 403, "<html>forbidden by proxy</html>"': Kind.DENIED,
    "name unknown": Kind.REPOSITORY,
    "name unknown: repository name not known to registry": Kind.REPOSITORY,
    'StatusCode: 404, ""': Kind.REPOSITORY,
    "manifest unknown": Kind.ABSENT,
    "manifest unknown: manifest unknown": Kind.ABSENT,
    "toomanyrequests": Kind.BUSY,
    "toomanyrequests: too many requests": Kind.BUSY,
    "too many requests to registry": Kind.BUSY,
    "429 (Too Many Requests)": Kind.BUSY,
    "StatusCode: 429, slow down": Kind.BUSY,
    'StatusCode: 429, "slow down"': Kind.BUSY,
    "StatusCode: 408, ": Kind.FAILING,
    "invalid status code from registry 408 (Request Timeout)": Kind.FAILING,
    "500 (Internal Server Error)": Kind.FAILING,
    "invalid status code from registry 503 (Service Unavailable)": Kind.FAILING,
    "received unexpected HTTP status: 500 Internal Server Error": Kind.FAILING,
    "received unexpected HTTP status: 502 Bad Gateway": Kind.FAILING,
    "received unexpected HTTP status: 503 Service Unavailable": Kind.FAILING,
    "received unexpected HTTP status: 504 Gateway Timeout": Kind.FAILING,
    "received unexpected HTTP status: 200 OK": Kind.FAILING,
    "blob upload unknown: blob upload unknown to registry": Kind.FAILING,
    "manifest blob unknown: blob unknown to registry": Kind.FAILING,
    "digest invalid: provided digest did not match uploaded content": Kind.FAILING,
    "name invalid": Kind.REFUSED,
    "name invalid: invalid repository name": Kind.REFUSED,
    "manifest invalid": Kind.REFUSED,
    "unsupported": Kind.REFUSED,
    "invalid status code from registry 400 (Bad Request)": Kind.REFUSED,
    'StatusCode: 413, "<html>too large</html>"': Kind.REFUSED,
    "tag invalid: The image tag 'v1' already exists in the 'r' repository and cannot be "
    "overwritten because the repository is immutable.": Kind.IMMUTABLE,
    "unknown: Failed to process request due to 'v1' configured as immutable.": Kind.IMMUTABLE,
    "denied: the tag v1 is protected": Kind.IMMUTABLE,
}

GET = f'Get "https://{R}/v2/": '
SENTENCES = {
    "writing blob: determining upload URL: http: no Location header in response": Kind.FAILING,
    f"{REUSE}unable to retrieve auth token: invalid username/password: unauthorized": Kind.LOGIN,
    f"{REUSE}Requesting bearer token: invalid status code from registry 403 (Forbidden)": (
        Kind.LOGIN
    ),
    f"{REUSE}Requesting bearer token: invalid status code from registry 404 (Not Found)": (
        Kind.REFUSED
    ),
    f"{REUSE}Requesting bearer token: invalid status code from registry 500 "
    "(Internal Server Error)": Kind.FAILING,
    f"{REUSE}too many requests to registry": Kind.BUSY,
    f"{REUSE}unexpected EOF": Kind.CONNECTION,
    f'{REUSE}Head "http://{R}/v2/x/y/blobs/{BLOB}": EOF': Kind.CONNECTION,
    f'writing blob: Patch "{UPLOAD}": EOF': Kind.CONNECTION,
    f'writing blob: Patch "{UPLOAD}": write tcp 127.0.0.1:1->{R}: write: broken pipe': (
        Kind.CONNECTION
    ),
    f'writing manifest: Put "http://{R}/v2/x/y/manifests/{BLOB}": read tcp 127.0.0.1:34234->{R}: '
    "read: connection reset by peer": Kind.CONNECTION,
    f'writing blob: Put "{UPLOAD}": net/http: HTTP/1.x transport connection broken: malformed '
    'HTTP response "\\x00\\x01garbage"': Kind.CONNECTION,
    f'{STEPS["ping"]}{GET}malformed HTTP response "SSH-2.0-x"': Kind.CONNECTION,
    f"{STEPS['ping']}{GET}dial tcp {R}: connect: connection refused": Kind.NO_CONNECTION,
    f"{STEPS['ping']}{GET}dial tcp {R}: connect: no route to host": Kind.NO_CONNECTION,
    f"{STEPS['ping']}{GET}dial tcp {R}: i/o timeout": Kind.NO_CONNECTION,
    f"{STEPS['ping']}{GET}net/http: TLS handshake timeout": Kind.CONNECTION,
    f"{STEPS['ping']}{GET}proxyconnect tcp: dial tcp {R}: connect: connection refused": (
        Kind.NO_CONNECTION
    ),
    f"{STEPS['ping']}{GET}x509: certificate has expired or is not yet valid: current time "
    "2026-11-21T12:00:00Z is after 2026-11-20T12:00:00Z": Kind.EXPIRED,
    f"{STEPS['ping']}{GET}tls: failed to verify certificate: x509: certificate is valid for a.b, "
    "not c.d": Kind.OTHER_NAME,
    f"{STEPS['ping']}{GET}x509: certificate is not valid for any names, but wanted to match c.d": (
        Kind.OTHER_NAME
    ),
    f"{STEPS['ping']}{GET}x509: certificate relies on legacy Common Name field, use SANs instead": (
        Kind.OTHER_NAME
    ),
    f"{STEPS['ping']}{GET}Service Unavailable": Kind.FAILING,
    f"{STEPS['ping']}{GET}dial tcp: lookup r.invalid on 10.0.0.53:53: no such host": Kind.NO_NAME,
    f"{STEPS['ping']}{GET}dial tcp: lookup r on 10.0.0.53:53: server misbehaving": (
        Kind.NO_CONNECTION
    ),
    f"{STEPS['ping']}{GET}x509: certificate signed by unknown authority": Kind.CERTIFICATE,
    f"{STEPS['ping']}{GET}x509: cannot validate certificate for 127.0.0.1 because it doesn't "
    "contain any IP SANs": Kind.OTHER_NAME,
    f"{STEPS['ping']}{GET}tls: failed to verify certificate: x509: certificate signed by unknown "
    "authority": Kind.CERTIFICATE,
    f"{STEPS['ping']}{GET}tls: first record does not look like a TLS handshake": Kind.PLAIN_HTTP,
    f"{STEPS['ping']}{GET}http: server gave HTTP response to HTTPS client": Kind.PLAIN_HTTP,
    f"{STEPS['ping']}name unknown": Kind.NO_REGISTRY,
    f'{STEPS["ping"]}StatusCode: 404, ""': Kind.NO_REGISTRY,
    f"{STEPS['ping']}invalid status code from registry 404 (Not Found)": Kind.NO_REGISTRY,
    "writing blob: happened during read: Digest did not match, expected sha256:a, got sha256:b": (
        Kind.ARCHIVE
    ),
    "determining manifest MIME type for docker://127.0.0.1:1/archive@sha256:a: Manifest does not "
    "match provided manifest digest sha256:a": Kind.ARCHIVE,
    "reading config blob sha256:a: Download config.json digest sha256:b does not match expected "
    "sha256:a": Kind.ARCHIVE,
    "something that nobody has seen before": Kind.UNKNOWN,
}


def fatal(text: str) -> list[str]:
    """The line as skopeo writes it."""
    return [f'time="2026-11-21T11:02:27Z" level=fatal msg={json.dumps(text)}']


@pytest.mark.parametrize("step", [step for step in STEPS if step != "ping"])
@pytest.mark.parametrize("answer", ANSWERS)
def test_an_answer_means_the_same_at_every_step(step: str, answer: str) -> None:
    assert classify(1, fatal(STEPS[step] + answer)).kind is ANSWERS[answer]


@pytest.mark.parametrize("sentence", SENTENCES)
def test_what_a_sentence_means(sentence: str) -> None:
    fault = classify(1, fatal(sentence))
    assert fault.kind is SENTENCES[sentence]
    (said,) = fault.said
    assert said
    assert len(said) <= len(sentence)


READABLE = {
    "something else": "something else",
    f"{REUSE}unexpected EOF": "unexpected EOF",
    f"{STEPS['inspect']}manifest unknown": f"reading manifest denied in {REPOSITORY}: manifest "
    "unknown",
    f"writing blob {BLOB}: EOF": "writing blob sha256:bd3f4ec650a4…: EOF",
    f"{STEPS['ping']}{GET}dial tcp {R}: connect: connection refused": (
        f"no connection to {R}: connection refused"
    ),
    f'{STEPS["ping"]}Get "https://{R}/v2/": dial tcp [::1]:5000: i/o timeout': (
        f"no connection to {R} ([::1]:5000): i/o timeout"
    ),
    'pinging container registry r.invalid: Get "https://r.invalid/v2/": dial tcp: lookup r.invalid '
    "on 10.0.0.53:53: no such host": "no connection to r.invalid: no such host",
    'pinging container registry r.invalid:5000: Get "https://r.invalid:5000/v2/": dial tcp: lookup '
    "r.invalid: no such host": "no connection to r.invalid:5000: no such host",
    'pinging container registry r: Get "https://r/v2/": proxyconnect tcp: dial tcp: lookup proxy '
    "on 10.0.0.53:53: no such host": "no connection to the proxy (proxy): no such host",
    'pinging container registry r: Get "https://r/v2/": proxyconnect tcp: dial tcp 10.0.0.1:3128: '
    "connect: connection refused": "no connection to the proxy (10.0.0.1:3128): connection refused",
}


@pytest.mark.parametrize("text", READABLE)
def test_what_skopeo_says_is_told_readably(text: str) -> None:
    assert classify(1, fatal(text)).said == (READABLE[text],)
    image = f'Error parsing image name "docker://{REPOSITORY}:denied": '
    assert classify(1, fatal(image + text)).said == (READABLE[text],)
    # A line that is not quoted as it should be.
    assert classify(1, [f'time="2026" level=fatal msg={text}']).said == (READABLE[text],)


def test_what_signs_an_upload_is_not_told() -> None:
    text = 'writing blob: Patch "https://r/v2/x/uploads/1?_state=abc&X-Amz-Signature=def": EOF'
    assert classify(1, fatal(text)).said == ('writing blob: Patch "https://r/v2/x/uploads/1": EOF',)
    text = "uploading layer to https://r/v2/x/uploads/1?digest=sha256%3Ab: denied"
    fault = classify(1, fatal(text))
    assert fault == Fault(Kind.DENIED, ("uploading layer to https://r/v2/x/uploads/1: denied",))


def test_only_the_fatal_line_counts() -> None:
    lines = ['time="t" level=warning msg="x: unauthorized"', *fatal("y: EOF"), "Unsolicited"]
    assert classify(1, lines).kind is Kind.CONNECTION


def test_without_a_fatal_line_the_last_one_counts() -> None:
    assert classify(1, ["a: unauthorized", "panic: no idea", ""]).said == ("panic: no idea",)


def test_silence_and_signals_are_told() -> None:
    assert classify(3, []) == Fault(Kind.UNKNOWN, ("exit code 3",))
    assert classify(-9, ["out of memory"]).said == ("skopeo was ended by signal 9", "out of memory")


@pytest.mark.parametrize("text", ['"\\x00 \\u12"', '"', '"\\'])
def test_what_is_quoted_strangely_is_told_as_it_is(text: str) -> None:
    assert classify(1, [f"level=fatal msg={text}"]).kind is Kind.UNKNOWN


@pytest.fixture
def _secret() -> Iterator[None]:
    log.configure(redact=("c4n4ry-Pa55w0rd",))
    yield
    log.configure()


@pytest.mark.usefixtures("_secret")
@pytest.mark.parametrize("before", range(SHOWN - 60, SHOWN + 5))
def test_secrets_are_hidden_before_anything_is_cut(before: int) -> None:
    said = f"{'x' * before} c4n4ry-Pa55w0rd"
    for code, lines in ((1, fatal(said)), (1, [said]), (-6, [said])):
        assert "c4n" not in " ".join(classify(code, lines).said)


def test_a_web_page_is_not_told_in_full() -> None:
    (said,) = classify(1, fatal(STEPS["send"] + "StatusCode: 502, " + "<p>" * 9999)).said
    assert len(said) == SHOWN


@pytest.mark.parametrize("kind", Kind)
def test_every_kind_has_a_failure_with_a_next_step(kind: Kind) -> None:
    told = failure(Fault(kind, ("said",)), "push the tag 1.2", 1, "PLP_REGISTRY_TOKEN")
    assert told.what == f"could not push the tag 1.2: {kind.value}"
    assert told.why[0] == "said"
    assert told.hint or kind is Kind.UNKNOWN


CLASSES: dict[Kind, type[Failure]] = {
    Kind.BUSY: PushFailed,
    Kind.STALLED: RegistryNotReachable,
    Kind.DENIED: AuthenticationFailed,
    Kind.LOGIN: AuthenticationFailed,
    Kind.REPOSITORY: RepositoryNotFound,
    Kind.IMMUTABLE: RegistryRefused,
    Kind.CERTIFICATE: RegistryNotReachable,
    Kind.DIFFERS: DigestDiffers,
    Kind.ARCHIVE: ArchiveInvalid,
    Kind.UNKNOWN: PushFailed,
}


@pytest.mark.parametrize(("kind", "expected"), CLASSES.items())
def test_faults_become_failures_of_the_contract(kind: Kind, expected: type[Failure]) -> None:
    assert type(failure(Fault(kind), "x", 1, "")) is expected


def test_hints_name_the_variable_that_helps() -> None:
    def hint(kind: Kind, origin: str = "") -> str:
        return failure(Fault(kind), "x", 1, origin).hint

    assert hint(Kind.CERTIFICATE).startswith("Give the certificate of the CA")
    assert "PLP_REGISTRY_CA_PATH" in hint(Kind.CERTIFICATE)
    for kind, word in ((Kind.EXPIRED, "clock"), (Kind.OTHER_NAME, "PLP_IMAGE_REPOSITORY")):
        assert word in hint(kind)
        assert "PLP_REGISTRY_CA_PATH" not in hint(kind)
    for kind in (Kind.CERTIFICATE, Kind.EXPIRED, Kind.OTHER_NAME):
        assert "For a test registry only, PLP_REGISTRY_INSECURE" in hint(kind)
    assert "PLP_REGISTRY_INSECURE" in hint(Kind.PLAIN_HTTP)
    assert "PLP_REGISTRY_PASSWORD" in hint(Kind.DENIED)
    assert "PLP_REGISTRY_PASSWORD" not in hint(Kind.DENIED, "DOCKER_CONFIG")


def test_a_failure_tells_attempts_and_where_credentials_came_from() -> None:
    told = failure(Fault(Kind.DENIED, ("denied",)), "push the image", 3, "PLP_REGISTRY_TOKEN")
    assert told.what.endswith("after 3 attempts")
    assert told.why == ("denied", "credentials: PLP_REGISTRY_TOKEN")


@pytest.mark.parametrize("kind", [Kind.LOGIN, Kind.DENIED])
def test_missing_credentials_are_told_apart_from_refused_ones(kind: Kind) -> None:
    none = failure(Fault(kind, ("denied",)), "push the image", 1, "")
    assert none.what == (
        "could not push the image: the registry does not allow this without credentials"
    )
    assert none.why == ("denied", "no credentials were given")
    assert none.hint.startswith("Set PLP_REGISTRY_USERNAME and PLP_REGISTRY_PASSWORD")
    looked = ["DOCKER_CONFIG=/x has no entry for r.example"]
    other = failure(Fault(kind, ("denied",)), "push the image", 1, "", looked)
    assert other.what == none.what
    assert other.why == ("denied", *looked)
    assert other.hint.startswith("Add an entry for the registry there")


def test_only_what_may_pass_is_tried_again() -> None:
    passing = {kind for kind in Kind if Fault(kind).passing}
    assert passing == {
        *(Kind.BUSY, Kind.FAILING, Kind.NO_CONNECTION, Kind.CONNECTION, Kind.STALLED, Kind.DIFFERS)
    }
