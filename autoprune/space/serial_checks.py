"""Is the JSON of a space what `serial.to_json` writes? A stranger may have written it, or half of it be gone.

Every value is of its type and within sensible bounds, and whatever refers to another one by number finds it.
Longer than others, as there is one check for each kind of value, all made of the same few below.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Iterable, Mapping, Sequence
from typing import Any, TypeAlias

_LARGEST = 2**53
_LONGEST_TEXT, _LONGEST_NOTE = 1_000, 100_000
_MOST_AXES, _DEEPEST = 64, 20
_DTYPES = ("float", "bfloat", "int", "uint", "bool", "complex", "qint", "quint", "bits")

_Check: TypeAlias = Callable[[Any, str], None]


def check_json(data: Mapping[str, Any]) -> None:
    """Check the data of a space.

    Raises:
        ValueError: something is not as it must be; says where, what was found and what is allowed.
        KeyError: something is missing.
    """
    groups = _rows(data, "groups", _group)
    _rows(data, "frozen", _each(name=_text, channels=_whole(), reason=_note))
    axes = _rows(data, "axes", lambda axis, at: _axis(axis, at, groups))
    sizes = _rows(data, "sizes", lambda size, at: _size(size, at, len(groups)), optional=True)
    affine = _each(constant=_whole(-_LARGEST), terms=lambda terms, at: _terms(terms, at, len(groups)))
    product = _each(layer=_text, kind=_text, coefficient=_whole(), sizes=_many(affine))
    operations = _rows(data, "operations", product)
    tensors = _rows(data, "tensors", lambda tensor, at: _tensor(tensor, at, axes))
    if len({tensor["name"] for tensor in tensors}) < len(tensors):
        raise ValueError("tensors: two have one name")
    _rows(data, "blocks", lambda block, at: _block(block, at, len(operations)), optional=True)
    _rows(data, "densities", lambda density, at: _density(density, at, data), optional=True)
    if data.get("resolution") is not None:
        _resolution(data["resolution"], "resolution", data)
    _rows(data, "bits", lambda bits, at: _bits(bits, at, data), optional=True)
    _rows(data, "factors", lambda factors, at: _factors(factors, at, data), optional=True)
    steps = _many(_pair(_whole(0, _MOST_AXES), _index(len(axes))))
    _rows(data, "steps", _pair(_text, steps), optional=True)
    _values_and_calls(data, len(sizes), len(groups))
    _many(_note)(data.get("notes", []), "notes")
    _known(data.get("origin"), "origin", 0)


def _group(group: Any, at: str) -> None:
    _each(name=_text, width=_whole(1), choices=_many(_whole()))(group, at)
    optional = _each(
        members=_many(_text), residual=_flag, kind=_text, positions=_whole(), sets=_many(_whole(1)), rows=_whole(1)
    )
    optional({"members": [], "residual": False, "kind": "", "positions": 0, "sets": [], "rows": 1, **group}, at)
    if group.get("kind") != "weights" and any(size % group["width"] for size in group.get("sets", ())):
        raise ValueError(f"{at}.sets must be multiples of the width {group['width']}, got {_short(group['sets'])}")


def _axis(axis: Any, at: str, groups: Sequence[Mapping[str, Any]]) -> None:
    numbers = _many(_whole(-1, len(groups) - 1))
    _each(group=numbers, channel=_many(_whole()))(axis, at)
    if not axis["group"] or len(axis["group"]) != len(axis["channel"]):
        raise ValueError(f"{at}: {len(axis['group'])} groups for {len(axis['channel'])} channels")
    slots = [sum(group.get("sets", ())) or group["width"] for group in groups]
    for number, channel in set(zip(axis["group"], axis["channel"], strict=True)):
        if channel >= (slots[number] if number >= 0 else 1):
            raise ValueError(f"{at}: there is no channel {channel} in group {number}")


def _size(size: Any, at: str, groups: int) -> None:
    _pair(_whole(-_LARGEST), lambda terms, where: _terms(terms, where, groups))(size, at)


def _terms(terms: Any, at: str, groups: int) -> None:
    _many(_pair(_index(groups), _whole(-_LARGEST)))(terms, at)


def _tensor(tensor: Any, at: str, axes: Sequence[Mapping[str, Any]]) -> None:
    number = _index(len(axes))
    _each(
        name=_text,
        shape=_many(_whole()),
        kind=_one_of("parameter", "buffer"),
        axes=_many(lambda value, where: None if value is None else number(value, where)),
    )(tensor, at)
    shape = tensor["shape"]
    if len(shape) > _MOST_AXES or len(tensor["axes"]) != len(shape):
        raise ValueError(f"{at}: {len(tensor['axes'])} axes for the shape {_short(shape)}")
    wrong = [dim for dim, n in enumerate(tensor["axes"]) if n is not None and len(axes[n]["group"]) != shape[dim]]
    if wrong:
        raise ValueError(f"{at}: axis {wrong[0]} is {shape[wrong[0]]} long, its layout {_length(tensor, axes, wrong)}")
    _many(_text)(tensor.get("names", []), f"{at}.names")
    _many(_index(len(shape)))(tensor.get("reads", []), f"{at}.reads")
    _dtype(tensor.get("dtype", "float32"), f"{at}.dtype")


def _length(tensor: Mapping[str, Any], axes: Sequence[Mapping[str, Any]], wrong: Sequence[int]) -> int:
    return len(axes[tensor["axes"][wrong[0]]]["group"])


def _block(block: Any, at: str, operations: int) -> None:
    _each(name=_text, input=_text, output=_text)(block, at)
    _many(_index(operations))(block.get("operations", []), f"{at}.operations")
    _many(_text)(block.get("tensors", []), f"{at}.tensors")
    _whole(0, _MOST_AXES)(block.get("outputs", 0), f"{at}.outputs")
    argument = block.get("argument", 0)
    (_text if isinstance(argument, str) else _whole(0, _MOST_AXES))(argument, f"{at}.argument")


def _density(density: Any, at: str, data: Mapping[str, Any]) -> None:
    """Its weights are there, and its rows, blocks and steps divide them."""
    whole = _each(group=_text, tensor=_text, shape=_many(_whole(1)), steps=_whole(1), reads=_whole(0, 1))
    whole(density, at)
    _each(block=_pair(_whole(1), _whole(1)), rows=_whole(1), pattern=_text)(density, at)
    shapes = {tensor["name"]: list(tensor["shape"]) for tensor in data["tensors"]}
    if shapes.get(density["tensor"]) != list(density["shape"]) or len(density["shape"]) < 2:
        raise ValueError(f"{at}: there is no tensor {_short(density['tensor'])} of the shape {density['shape']}")
    if density["group"] not in {group["name"] for group in data["groups"]}:
        raise ValueError(f"{at}: there is no group {_short(density['group'])}")
    reads, (outputs, inputs) = density["reads"], density["block"]
    if density["shape"][1 - reads] % outputs or density["shape"][reads] % inputs:
        raise ValueError(f"{at}: blocks of {outputs} x {inputs} do not divide the shape {density['shape']}")
    units = math.prod(density["shape"]) // (outputs * inputs)
    if units % density["rows"] or density["steps"] > units:
        raise ValueError(f"{at}: {units} units in {density['rows']} rows and {density['steps']} steps")


def _factors(factors: Any, at: str, data: Mapping[str, Any]) -> None:
    """Its weights are there, in the layer that it names."""
    _each(group=_text, layer=_text, tensor=_text, shape=_many(_whole(1)), uses=_whole(0))(factors, at)
    shapes = {tensor["name"]: list(tensor["shape"]) for tensor in data["tensors"]}
    named = factors["tensor"] == f"{factors['layer']}.weight"
    if not named or shapes.get(factors["tensor"]) != list(factors["shape"]) or len(factors["shape"]) < 2:
        raise ValueError(f"{at}: layer {_short(factors['layer'])} has no weights of the shape {factors['shape']}")
    if factors["group"] not in {group["name"] for group in data["groups"]}:
        raise ValueError(f"{at}: there is no group {_short(factors['group'])}")


def _bits(bits: Any, at: str, data: Mapping[str, Any]) -> None:
    """Its weights are there, and its group goes up to their full bits."""
    _each(group=_text, tensor=_text, shape=_many(_whole(1)), full=_whole(9, 64), outputs=_whole(0, 1))(bits, at)
    shapes = {tensor["name"]: list(tensor["shape"]) for tensor in data["tensors"]}
    if shapes.get(bits["tensor"]) != list(bits["shape"]) or len(bits["shape"]) < 2:
        raise ValueError(f"{at}: there is no tensor {_short(bits['tensor'])} of the shape {bits['shape']}")
    groups = {group["name"]: group for group in data["groups"]}
    if bits["group"] not in groups:
        raise ValueError(f"{at}: there is no group {_short(bits['group'])}")
    *some, full = groups[bits["group"]]["choices"]
    if full != bits["full"] or not all(2 <= choice <= 8 for choice in some):
        raise ValueError(f"{at}: bits must be 2 to 8, or {bits['full']} for weights as they are, got {_short(some)}")


def _resolution(resolution: Any, at: str, data: Mapping[str, Any]) -> None:
    """Every product has a coefficient at every size, those of the last one as they are."""
    whole = _many(_whole(1))
    _each(shape=_pair(_whole(1), _whole(1)), sides=whole, coefficients=_many(_many(_whole())))(resolution, at)
    sides, coefficients = resolution["sides"], resolution["coefficients"]
    ascending = bool(sides) and sides == sorted(set(sides)) and sides[-1] == resolution["shape"][0]
    if not ascending or len(coefficients) != len(sides):
        raise ValueError(f"{at}: sides {_short(sides)} of {_short(resolution['shape'])} and {len(coefficients)} costs")
    if any(len(row) != len(data["operations"]) for row in coefficients):
        raise ValueError(f"{at}: every size must have {len(data['operations'])} coefficients")
    if coefficients[-1] != [operation["coefficient"] for operation in data["operations"]]:
        raise ValueError(f"{at}: the coefficients of full images are not those of the products")


def _values_and_calls(data: Mapping[str, Any], sizes: int, groups: int) -> None:
    number = _index(sizes)
    values = data.get("activations", [])
    total = len(values) if isinstance(values, list) else 0
    value = _each(name=_text, sizes=_many(number), bytes=_whole(0, 1024), storage=_whole(-1, total - 1))
    _rows(data, "activations", value, optional=True)
    for at, found in enumerate(values):
        _whole(-1)(found.get("last", -1), f"activations[{at}].last")
        _flag(found.get("batched", True), f"activations[{at}].batched")
        _dtype(found.get("dtype", "float32"), f"activations[{at}].dtype")
    read = _many(_index(total))
    call = _each(operator=_text, layer=_text, inputs=read, outputs=read)
    for at, found in enumerate(_rows(data, "calls", call, optional=True)):
        _many(_many(number))(found["weights"], f"calls[{at}].weights")
        _known(found.get("settings", []), f"calls[{at}].settings", 0)
        _whole(-1, groups - 1)(found.get("switch", -1), f"calls[{at}].switch")
        _many(_pair(_whole(), _whole()))(found.get("splits", []), f"calls[{at}].splits")


def _rows(data: Mapping[str, Any], name: str, check: _Check, *, optional: bool = False) -> list[Any]:
    rows: list[Any] = data.get(name, []) if optional else data[name]
    _many(check)(rows, name)
    return rows


def _many(check: _Check) -> _Check:
    def checked(value: Any, at: str) -> None:
        if not isinstance(value, list | tuple):
            raise ValueError(f"{at} must be a list, got {_short(value)}")
        for number, one in enumerate(value):
            check(one, f"{at}[{number}]")

    return checked


def _pair(first: _Check, second: _Check) -> _Check:
    def checked(value: Any, at: str) -> None:
        if not isinstance(value, list | tuple) or len(value) != 2:
            raise ValueError(f"{at} must be a list of two, got {_short(value)}")
        first(value[0], f"{at}[0]")
        second(value[1], f"{at}[1]")

    return checked


def _each(**checks: _Check) -> _Check:
    def checked(value: Any, at: str) -> None:
        if not isinstance(value, dict):
            raise ValueError(f"{at} must be keys and values, got {_short(value)}")
        for name, check in checks.items():
            if name not in value:
                raise KeyError(f"{at}.{name}")
            check(value[name], f"{at}.{name}")

    return checked


def _whole(low: int = 0, high: int = _LARGEST) -> _Check:
    def checked(value: Any, at: str) -> None:
        if type(value) is not int or not low <= value <= high:
            raise ValueError(f"{at} must be a whole number from {low} to {high}, got {_short(value)}")

    return checked


def _index(length: int) -> _Check:
    def checked(value: Any, at: str) -> None:
        if type(value) is not int or not 0 <= value < length:
            raise ValueError(f"{at} must be the number of one of {length}, counted from 0, got {_short(value)}")

    return checked


def _one_of(*allowed: str) -> _Check:
    def checked(value: Any, at: str) -> None:
        if value not in allowed:
            raise ValueError(f"{at} must be one of {', '.join(allowed)}, got {_short(value)}")

    return checked


def _text(value: Any, at: str) -> None:
    if not isinstance(value, str) or len(value) > _LONGEST_TEXT:
        raise ValueError(f"{at} must be a text of at most {_LONGEST_TEXT:,} characters, got {_short(value)}")


def _note(value: Any, at: str) -> None:
    if not isinstance(value, str) or len(value) > _LONGEST_NOTE:
        raise ValueError(f"{at} must be a text of at most {_LONGEST_NOTE:,} characters, got {_short(value)}")


def _flag(value: Any, at: str) -> None:
    if not isinstance(value, bool):
        raise ValueError(f"{at} must be true or false, got {_short(value)}")


def _dtype(value: Any, at: str) -> None:
    if not isinstance(value, str) or not value.startswith(_DTYPES) or not value.isidentifier():
        raise ValueError(f"{at} must be a type of tensors, for example float32, got {_short(value)}")


def _known(value: Any, at: str, depth: int) -> None:
    """Numbers, texts, lists and keys, not too deep."""
    if depth > _DEEPEST:
        raise ValueError(f"{at[:80]}… lies more than {_DEEPEST} levels deep")
    inner: Iterable[tuple[object, Any]] = ()
    if isinstance(value, dict):
        inner = value.items()
    elif isinstance(value, list):
        inner = enumerate(value)
    elif isinstance(value, int) and not isinstance(value, bool):
        _whole(-(2**63), 2**64)(value, at)
    for name, one in inner:
        _known(one, f"{at}.{name}", depth + 1)


def _short(value: object) -> str:
    if isinstance(value, int) and not -(2**64) < value < 2**64:
        return f"one of {value.bit_length():,} bits"
    if isinstance(value, list | dict):
        return f"a {type(value).__name__} of {len(value)}"
    text = repr(value)
    return text if len(text) <= 60 else f"{text[:59]}…"
