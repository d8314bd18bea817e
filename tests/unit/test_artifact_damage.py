"""A damaged archive of any form is refused, or is pushed as if it were whole."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from plp_builder.errors import ArchiveInvalid
from tests.support import archives
from tests.support.archives import END, member
from tests.support.artifacts import FORMS, LAYERS, consistent, pushed, read


@pytest.mark.parametrize("form", FORMS)
@given(st.data())
def test_a_flipped_byte_never_changes_what_is_pushed(form: str, data: st.DataObject) -> None:
    """The archive is refused, or the byte is one that nothing depends on."""
    good = FORMS[form]
    position = data.draw(st.integers(0, len(good.rstrip(b"\0")) - 1))
    changed = bytearray(good)
    changed[position] ^= data.draw(st.integers(1, 255))
    try:
        found = read(bytes(changed))
    except ArchiveInvalid:
        return
    assert pushed(found) == pushed(read(good))


@given(st.integers(0, 255), st.data())
def test_a_flipped_byte_in_compressed_layers_never_changes_their_content(
    flip: int, data: st.DataObject
) -> None:
    """Of gzip's header parts mean nothing; the manifest is another then, the image is not."""
    good = archives.crane_pull(LAYERS[:2])
    changed = bytearray(good)
    changed[data.draw(st.integers(0, len(good.rstrip(b"\0")) - 1))] ^= flip
    try:
        found = read(bytes(changed))
    except ArchiveInvalid:
        return
    consistent(bytes(changed), found)
    assert found.images[0].config == read(good).images[0].config


@pytest.mark.parametrize("form", FORMS)
@given(st.data())
def test_an_archive_that_is_cut_off_anywhere_is_refused(form: str, data: st.DataObject) -> None:
    good = FORMS[form]
    with pytest.raises(ArchiveInvalid):
        read(good[: data.draw(st.integers(0, len(good) - 1))])


@given(st.binary(max_size=3000) | st.binary(max_size=600).map(lambda body: member("a", body) + END))
def test_any_bytes_are_refused(data: bytes) -> None:
    with pytest.raises(ArchiveInvalid):
        read(data)
