"""Archives that are wrong in one way each: exit code 3, and no registry hears of them."""

from __future__ import annotations

from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import pytest

from tests.support import malformed, publication, skopeo
from tests.support.publication import Result
from tests.support.registries import Kind, Registries

AT_ONCE = 3
EVERY = 12
"""One of so many is tried in the usual run, all of them in the long one."""


@pytest.fixture(name="publish")
def _publish(guarded_registries: Registries, tmp_path: Path) -> Publish:
    return Publish(guarded_registries, tmp_path)


class Publish:
    """Publishes archives to a real registry that keeps an access log."""

    def __init__(self, registries: Registries, directory: Path) -> None:
        self.registry = registries[Kind("registry", "htpasswd")]
        self._directory = directory
        self._skopeo = skopeo.find("system")

    def __call__(self, name: str, data: bytes) -> Result:
        home = self._directory / name
        home.mkdir()
        (home / "image.tar").write_bytes(data)
        env = {
            **self.registry.env,
            "PLP_ARTIFACT_PATH": str(home / "image.tar"),
            "PLP_IMAGE_REPOSITORY": f"{self.registry.address}/malformed/app",
            "PLP_TAG": "v1.2.3",
        }
        try:
            return publication.run(env, self._skopeo, home)
        finally:
            (home / "image.tar").unlink()


def refused(publish: Publish, names: list[str]) -> list[str]:
    """What is wrong with how these were refused: a sentence each."""
    cases = malformed.cases()
    publish.registry.requests()
    with ThreadPoolExecutor(AT_ONCE) as pool:
        results = dict(zip(names, pool.map(lambda n: publish(n, cases[n]()), names), strict=True))
    problems = [
        f"{name}: {result.code} {result.error}\n{result.stderr}"
        for name, result in results.items()
        if (result.code, result.error) != (3, "archive-invalid") or result.left_files
    ]
    problems += [f"{name}: {r.stderr}" for name, r in results.items() if "Traceback" in r.stderr]
    asked = publish.registry.requests()
    return problems + [f"the registry was asked: {line}" for line in asked]


def test_the_registry_hears_of_a_good_one(publish: Publish) -> None:
    """Else an empty access log would mean nothing."""
    result = publish("good", malformed.good())
    assert result.code == 0, result.stderr
    assert any("PUT /v2/malformed/app/manifests/1.2.3" in it for it in publish.registry.requests())


def test_malformed_archives_are_refused_before_a_word_is_said(publish: Publish) -> None:
    names = sorted(malformed.cases())[::EVERY]
    problems = refused(publish, names)
    assert not problems, "\n".join(problems)


@pytest.mark.soak
@pytest.mark.timeout(3600)
def test_all_malformed_archives_are_refused_before_a_word_is_said(publish: Publish) -> None:
    names = sorted(malformed.cases())
    assert len(names) >= 100
    problems = refused(publish, names)
    assert not problems, f"{len(names)} archives:\n" + "\n".join(problems)
