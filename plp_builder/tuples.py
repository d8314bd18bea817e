"""NamedTuple as typing has it, without what typing asks of annotations that nobody reads.

With annotations as strings (PEP 563) ``typing.NamedTuple`` compiles each of them, which is more
than half of what a class costs, and a build waits for some sixty classes.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

__all__ = ["NamedTuple"]

if TYPE_CHECKING:
    from typing import NamedTuple
else:
    from collections import namedtuple

    _LEFT_OUT = frozenset({"__module__", "__qualname__", "__annotations__", "__classcell__"})

    class _Maker(type):
        """Makes what `collections.namedtuple` does of a class with annotations for fields."""

        def __new__(cls, name: str, _: tuple[type, ...], body: dict[str, object]) -> type:
            fields = body.get("__annotations__", {})
            defaults = [body[field] for field in fields if field in body]
            made = namedtuple(name, fields, defaults=defaults, module=body["__module__"])  # noqa: PYI024
            made.__qualname__ = body["__qualname__"]
            made.__annotations__ = fields
            for key, value in body.items():
                if key not in fields and key not in _LEFT_OUT:
                    setattr(made, key, value)
            return made

    NamedTuple = type.__new__(_Maker, "NamedTuple", (), {})
