"""A module tree put together anew from given tensors: `copy.deepcopy`, but for looking at everything each time."""

from __future__ import annotations

import copy
import gc
from collections import OrderedDict
from collections.abc import Callable, Collection, Iterator, Mapping, MutableMapping
from contextlib import contextmanager
from typing import Any, NamedTuple, final

from torch import Tensor, nn

_TABLES = ("_parameters", "_buffers", "_modules")
_PROTOCOL = ("__deepcopy__", "__getstate__", "__reduce__", "__reduce_ex__", "__setstate__")
_USUAL = tuple(getattr(nn.Module, name, None) for name in _PROTOCOL)
_COLLECTIONS = (dict, OrderedDict, list, set)
_PLAIN = (type(None), bool, int, float, complex, str, bytes, type)


class _Attributes(NamedTuple):
    """Names of attributes.

    Attributes:
        empty: those of empty collections, and their types.
        shallow: collections of constants, and their types.
        deep: all else that is no constant.
        tables: tables of parameters, buffers and modules.
    """

    empty: tuple[tuple[str, Callable[..., Any]], ...]
    shallow: tuple[tuple[str, Callable[..., Any]], ...]
    deep: tuple[str, ...]
    tables: tuple[str, ...]


@final
class Parts:
    """The modules of a model and what is to be done with the attributes of each, looked up once."""

    def __init__(self, model: nn.Module) -> None:
        self._model = model
        self._below: dict[str, nn.Module] = dict(model.named_modules())
        every = list(self._below.values())
        self._own_way = [module for module in every if _copies_its_own_way(module)]
        plain = [module for module in every if not _copies_its_own_way(module)]
        self._plain = [(module, _attributes(module)) for module in plain]

    def table_of(self, name: str) -> tuple[MutableMapping[str, Any], str]:
        """The table that holds this parameter or buffer, and its name in there."""
        path, _, attribute = name.rpartition(".")
        owner = self._model.get_submodule(path)
        return (owner._parameters if attribute in owner._parameters else owner._buffers), attribute

    def assemble(self, made: dict[int, Any], gone: Collection[str]) -> Any:
        """Return the copy of the model.

        Args:
            made: id of a tensor or module -> what takes its place; deepcopy's memo, more is added.
            gone: paths of modules that are among the latter: nothing below them is copied.
        """
        left_out = {id(m) for path in gone for below, m in self._below.items() if f"{below}.".startswith(f"{path}.")}
        plain = [entry for entry in self._plain if id(entry[0]) not in left_out] if gone else self._plain
        shells = [type(module).__new__(type(module)) for module, _ in plain]
        made.update(zip([id(module) for module, _ in plain], shells, strict=True))
        for module in self._own_way:
            if id(module) not in left_out:
                copy.deepcopy(module, made)
        put = object.__setattr__
        for (module, (empty, shallow, deep, tables)), shell in zip(plain, shells, strict=True):
            content = module.__dict__.copy()
            for key, kind in empty:  # hook tables, a dozen of each module
                content[key] = kind()
            for key, kind in shallow:
                content[key] = kind(content[key])
            for key in deep:
                content[key] = copy.deepcopy(content[key], made)
            for key in tables:
                content[key] = _renewed(content[key], made)
            put(shell, "__dict__", content)
        return made[id(self._model)]


@contextmanager
def uncollected() -> Iterator[None]:
    """Inside, Python looks for no garbage: a network is thousands of tables, each one a step towards a collection.

    They all stay, so that looking finds nothing, and it looks at whatever else the process has.
    """
    enabled = gc.isenabled()
    gc.disable()
    try:
        yield
    finally:
        if enabled:
            gc.enable()


def _renewed(table: Mapping[str, Any], made: dict[int, Any]) -> dict[str, Any]:
    """A table of tensors or modules; tensors that nobody has made are copied whole."""
    made[id(None)] = None
    try:
        return dict(zip(table, map(made.__getitem__, map(id, table.values())), strict=True))
    except KeyError:
        renewed = {}
    for name, value in table.items():
        known = None if value is None else made.get(id(value))
        if known is None and value is not None:
            known = made[id(value)] = value.clone() if type(value) is Tensor else copy.deepcopy(value, made)
        renewed[name] = known
    return renewed


def _copies_its_own_way(module: nn.Module) -> bool:
    """True where the class says itself how it is copied (recurrent layers, parametrised ones).

    Other layers of torch have a `__setstate__` that only fills in what older pickles lack.
    """
    ways = (getattr(type(module), name, None) for name in _PROTOCOL)
    own = [way for way, usual in zip(ways, _USUAL, strict=True) if way is not usual]
    return any(not way.__module__.startswith("torch.nn.modules.") or isinstance(module, nn.RNNBase) for way in own)


def _attributes(module: nn.Module) -> _Attributes:
    empty, shallow, deep, tables = [], [], [], []
    for name, value in module.__dict__.items():
        if name in _TABLES and value:
            tables.append(name)
        elif type(value) in _COLLECTIONS and not value:
            empty.append((name, type(value)))
        elif type(value) in (list, set) and all(map(_is_constant, value)):
            shallow.append((name, type(value)))
        elif not _is_constant(value):
            deep.append(name)
    return _Attributes(tuple(empty), tuple(shallow), tuple(deep), tuple(tables))


def _is_constant(value: object) -> bool:
    return type(value) in _PLAIN or (type(value) is tuple and all(map(_is_constant, value)))
