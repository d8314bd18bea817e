"""What skopeo is asked, and what it gets to see."""

from __future__ import annotations

from publisher import skopeo
from publisher.skopeo import Registry

DIGEST = "sha256:" + "a" * 64
REGISTRY = Registry("r.example/team/app", "/proc/self/fd/5", "", False, (5,))
SOURCE = f"docker://127.0.0.1:1/archive@{DIGEST}"


def test_an_image_is_copied_with_all_that_belongs_to_it() -> None:
    assert skopeo.copy(REGISTRY, SOURCE, REGISTRY.digest(DIGEST)) == (
        "skopeo",
        "--insecure-policy",
        "copy",
        "--authfile",
        "/proc/self/fd/5",
        "--multi-arch",
        "all",
        "--preserve-digests",
        "--remove-signatures",
        "--src-tls-verify=false",
        "--dest-tls-verify=true",
        SOURCE,
        f"docker://r.example/team/app@{DIGEST}",
    )


def test_an_index_gets_a_tag_without_its_images() -> None:
    arguments = skopeo.copy(REGISTRY, SOURCE, REGISTRY.tag("1.2"), index_only=True)
    assert arguments[arguments.index("--multi-arch") + 1] == "index-only"
    assert arguments[-1] == "docker://r.example/team/app:1.2"


def test_a_tag_is_read_as_it_is() -> None:
    assert skopeo.inspect(REGISTRY, REGISTRY.tag("1.2")) == (
        "skopeo",
        "--insecure-policy",
        "inspect",
        "--raw",
        "--no-tags",
        "--authfile",
        "/proc/self/fd/5",
        "--tls-verify=true",
        "docker://r.example/team/app:1.2",
    )


def test_an_insecure_registry_is_not_verified() -> None:
    insecure = REGISTRY._replace(insecure=True)
    assert "--dest-tls-verify=false" in skopeo.copy(insecure, SOURCE, insecure.tag("1"))
    assert "--tls-verify=false" in skopeo.inspect(insecure, insecure.tag("1"))


def test_skopeo_sees_only_what_it_needs() -> None:
    environ = {
        "PATH": "/bin",
        "HOME": "/root",
        "HTTPS_PROXY": "http://p:1",
        "no_proxy": "localhost",
        "PLP_REGISTRY_PASSWORD": "secret",
        "DOCKER_CONFIG": "/d",
        "REGISTRY_AUTH_FILE": "/a",
        "XDG_RUNTIME_DIR": "/run/user/0",
        "XDG_DATA_HOME": "/d",
        "AWS_SECRET_ACCESS_KEY": "secret",
        "CI_JOB_TOKEN": "secret",
        "SSL_CERT_FILE": "/certs",
    }
    assert skopeo.environment(environ) == {
        "PATH": "/bin",
        "HTTPS_PROXY": "http://p:1",
        "no_proxy": "localhost",
        "SSL_CERT_FILE": "/certs",
        "HOME": "/proc/none",
        "_CONTAINERS_ROOTLESS_UID": "65534",
    }


def test_a_bundle_of_our_own_wins() -> None:
    env = skopeo.environment({"SSL_CERT_FILE": "/certs"}, "/proc/self/fd/7")
    assert env["SSL_CERT_FILE"] == "/proc/self/fd/7"
