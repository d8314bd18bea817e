"""Named tuples are what typing would have made of the same class."""

from __future__ import annotations

import pickle
import typing

import pytest

from plp_builder import tuples


class Ours(tuples.NamedTuple):
    """A point."""

    x: int
    y: int | None = 3

    @property
    def total(self) -> int:
        """The sum."""
        return self.x + (self.y or 0)

    @classmethod
    def at(cls, x: int) -> Ours:
        """A point on a line."""
        return cls(x)


class Typed(typing.NamedTuple):
    """A point."""

    x: int
    y: int | None = 3


def test_it_is_a_tuple_with_names_and_defaults() -> None:
    made = Ours(1)
    assert (made.x, made.y, made.total) == (1, 3, 4)
    assert made == (1, 3)
    assert Ours.at(5)._replace(y=1) == (5, 1)


@pytest.mark.parametrize(
    "name", ["_fields", "_field_defaults", "__doc__", "__module__", "__slots__"]
)
def test_it_has_what_typing_gives(name: str) -> None:
    assert getattr(Ours, name) == getattr(Typed, name)


def test_its_annotations_can_be_resolved() -> None:
    assert typing.get_type_hints(Ours) == typing.get_type_hints(Typed)


def test_it_is_told_as_its_class() -> None:
    assert repr(Ours(1)) == "Ours(x=1, y=3)"
    assert Ours.__qualname__ == "Ours"
    assert pickle.loads(pickle.dumps(Ours(1, None))) == Ours(1, None)  # noqa: S301 - our own


def test_what_is_too_much_or_too_little_is_refused() -> None:
    with pytest.raises(TypeError):
        Ours()  # type: ignore[call-arg]
    with pytest.raises(TypeError):
        Ours(1, 2, 3)  # type: ignore[call-arg]
    with pytest.raises(AttributeError):
        Ours(1).x = 2  # type: ignore[misc]
