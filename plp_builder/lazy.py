"""Modules that are imported only when something of them is used.

Some libraries import, for features that this program never touches, what costs more than the
rest of the program's start (asyncio: 45 ms). A module named here before such a library is imported
stands in ``sys.modules`` as usual, but is executed at the first access to one of its attributes.
Whoever uses it later gets the whole module and notices nothing.

``importlib.util.LazyLoader`` is of no help: every ``import`` statement reads ``__spec__``, which
already executes its modules.
"""

from __future__ import annotations

import sys
from _thread import RLock
from types import ModuleType

TYPE_CHECKING = False  # for the type checker, without importing typing
if TYPE_CHECKING:
    from importlib.machinery import ModuleSpec

_loading = RLock()  # threading's own, without importing it
_KNOWN = {"typing": {"TYPE_CHECKING": False}}
"""What of a module is used so often that it has to be there before the module is executed."""
_executing: list[ModuleType] = []


class _NotYetExecuted(ModuleType):
    """A module that holds nothing but its name and its spec.

    A package also lacks ``__path__`` until then, so importing one of its submodules executes the
    package first, as Python promises. ``from … import`` asks for it, too: a module has none.
    """

    def __getattr__(self, name: str) -> object:
        if name == "__path__" and self.__spec__ and not self.__spec__.parent:
            raise AttributeError(name)
        with _loading:
            if type(self) is _NotYetExecuted:
                if self in _executing:  # by this thread: the others wait
                    raise AttributeError(name)
                _execute(self)
        return getattr(self, name)


def _execute(module: ModuleType) -> None:
    spec = module.__spec__
    if spec is None or spec.loader is None:  # pragma: no cover - lazily() makes none of these
        raise ImportError(module.__name__)
    _executing.append(module)
    if spec.submodule_search_locations is not None:
        module.__path__ = spec.submodule_search_locations
    try:
        spec.loader.exec_module(module)
    except BaseException:
        sys.modules.pop(module.__name__, None)
        raise
    finally:
        _executing.remove(module)
        module.__class__ = ModuleType


def lazily(*names: str) -> None:
    """Let each named top-level module be executed at its first use instead of at its import.

    A module that is imported already, or that is not found on ``sys.path``, is left as it is.
    """
    for name in names:
        spec = None if name in sys.modules else _spec(name)
        if spec is None or spec.loader is None:
            continue
        module = _NotYetExecuted(name)
        module.__spec__ = spec
        module.__loader__ = spec.loader
        module.__file__ = spec.origin
        module.__package__ = spec.parent
        vars(module).update(_KNOWN.get(name, {}))
        sys.modules[name] = module


def _spec(name: str) -> ModuleSpec | None:
    for finder in sys.meta_path:
        if found := finder.find_spec(name, None):
            return found
    return None


def before_pydantic() -> None:
    """Spare pydantic-settings what it would do for features that nothing here uses.

    Its command line imports asyncio, pydantic's URL-safe bytes import secrets, what reads .env
    files imports tempfile and so on. To look for plug-ins, pydantic reads the metadata of every
    installed distribution (15 ms): it is told that there are none. Should pydantic one day look
    elsewhere, this costs time and breaks nothing.
    """
    lazily("asyncio", "email", "random", "secrets", "shutil", "tempfile", "tokenize", "traceback")
    loader = "pydantic.plugin._loader"
    if loader not in sys.modules:
        without_plugins = ModuleType(loader)
        vars(without_plugins)["get_plugins"] = tuple
        sys.modules[loader] = without_plugins
