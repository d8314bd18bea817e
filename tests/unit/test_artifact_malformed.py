"""Every malformed archive is refused with a sentence, whatever is wrong with it."""

from __future__ import annotations

import io
import tracemalloc
from collections.abc import Callable

import pytest

from plp_builder.errors import ArchiveInvalid
from plp_builder.oci import artifact
from tests.support import malformed

CASES = malformed.cases()
MEMORY = 64 * 1024 * 1024


def read(data: bytes) -> artifact.Artifact:
    return artifact.read(io.BytesIO(data), check=lambda: None)


def test_there_are_many_and_no_two_are_the_same() -> None:
    made = {name: make() for name, make in CASES.items()}
    assert len(made) >= 100
    assert len(set(made.values())) == len(made)
    assert {name: make() for name, make in CASES.items()} == made
    assert max(map(len, made.values())) < 6_000_000


def test_what_they_are_made_from_is_not_refused() -> None:
    assert read(malformed.good()).form == "oci"
    assert read(malformed.docker_good()).form == "docker"


@pytest.mark.parametrize("make", CASES.values(), ids=CASES)
def test_it_is_refused(make: Callable[[], bytes]) -> None:
    data = make()
    tracemalloc.start()
    try:
        with pytest.raises(ArchiveInvalid) as refused:
            read(data)
        assert tracemalloc.get_traced_memory()[1] < MEMORY
    finally:
        tracemalloc.stop()
    assert refused.value.what
    assert refused.value.what.isprintable()
    assert len(refused.value.what) < 500
