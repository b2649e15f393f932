"""Why a model cannot be traced: what it holds, or which line of its forward, and what to change."""

from __future__ import annotations

import linecache
import traceback
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any, final

import torch
from torch import Tensor, nn
from torch.overrides import TorchFunctionMode
from torch.utils._pytree import tree_leaves

_TORCH = str(Path(torch.__file__).parent)
_HERE = str(Path(__file__).parent)


def explain(model: nn.Module, inputs: tuple[tuple[Any, ...], dict[str, Any]], refusals: Sequence[Exception]) -> str:
    """One message: the model, the inputs, the offending line, what each tracer said, and what to do."""
    args, kwargs = inputs
    given = [_describe(value) for value in args] + [f"{name}={_describe(value)}" for name, value in kwargs.items()]
    tracers = ("torch.export", "make_fx")
    said = [
        f"{tracer}: {type(e).__name__}: {_first_lines(str(e))}" for tracer, e in zip(tracers, refusals, strict=False)
    ]
    line = next((found for error in reversed(refusals) if (found := _user_line(error)) is not None), None)
    where = f" It stops at {line}." if line else ""
    return (
        f"{type(model).__name__} cannot be traced with this example input ({', '.join(given)}).{where} "
        f"{'; '.join(dict.fromkeys(said))}. "
        f"Check that model(example_input) runs; tracers also refuse `if` on tensor values, .item() and code that leaves"
        f" torch inside forward: compute such values outside, make them constants, or trace a module around the model "
        f"whose forward stops before them (raw heads before post-processing)"
    )


def explain_copy(model: nn.Module, error: Exception) -> str:
    """Why a model cannot be copied: which attribute holds what is no part of a network."""
    name = type(model).__name__
    held = next(_computed_tensors(model), None)
    if held is None:
        return (
            f"{name} cannot be copied ({type(error).__name__}: {_first_lines(str(error))}); every part of a model must "
            f"allow copy.deepcopy: take what does not (locks, files, generators) out of its attributes"
        )
    path, attribute, module = held
    where = f"{path}.{attribute}".lstrip(".")
    if any(hasattr(module, f"{attribute}_{kind}") for kind in ("g", "orig")):
        then = (
            "a hook computes it before each call, from a parameter in another shape; make it a parametrization "
            "(torch.nn.utils.parametrize.register_parametrization), which can be cut"
        )
    else:
        then = (
            "an activation that a hook or forward keeps; clear it before (del, .clear()), take the hook away, or keep "
            "what .detach() gives"
        )
    return f"{name} cannot be copied: {where} holds a tensor that is computed from others: {then}"


def _computed_tensors(model: nn.Module) -> Iterator[tuple[str, str, nn.Module]]:
    """Path of a module, the attribute with its keys, the module: of tensors that remember how they were computed."""
    for path, module in model.named_modules():
        for name, value in vars(module).items():
            if name not in ("_parameters", "_modules"):
                yield from ((path, f"{name}{keys}", module) for keys in _keys_to_computed(value, depth=3))


def _keys_to_computed(value: object, depth: int) -> Iterator[str]:
    if isinstance(value, Tensor):
        if value.grad_fn is not None:
            yield ""
    elif depth and isinstance(value, Mapping):
        yield from (f"[{key!r}]{rest}" for key, v in value.items() for rest in _keys_to_computed(v, depth - 1))
    elif depth and isinstance(value, list | tuple):
        yield from (f"[{i}]{rest}" for i, v in enumerate(value) for rest in _keys_to_computed(v, depth - 1))


_WRAPPERS = {
    "OptimizedModule": ("the result of torch.compile", "_orig_mod", "compile what is cut instead"),
    "DataParallel": ("wrapped for several GPUs", "module", "wrap what is cut instead"),
    "DistributedDataParallel": ("wrapped for several processes", "module", "wrap what is cut instead"),
    "FullyShardedDataParallel": ("wrapped for several processes", "module", "wrap what is cut instead"),
}


def refuse_wrapped(model: nn.Module) -> str | None:
    """What is wrong with a model that only stands for another one, None where nothing is."""
    for path, module in model.named_modules():
        known = _WRAPPERS.get(type(module).__name__) if type(module).__module__.startswith("torch.") else None
        where = f"its {path!r}" if path else "the model"
        if known is not None:
            what, attribute, then = known
            return f"{where} is {what}, which has no network of its own: give model.{attribute}, and {then}"
        if isinstance(module, torch.jit.ScriptModule):
            return f"{where} is a TorchScript module, whose code cannot be cut: give the nn.Module it was made from"
    return None


class ForeignParameterError(Exception):
    """Forward uses a parameter that is none of the model's."""


@final
class ForeignParameters(TorchFunctionMode):
    """Sees, while a model whose own parameters ask for no gradients is traced, parameters that do."""

    def __init__(self) -> None:
        super().__init__()
        self._problem: str | None = None

    def __torch_function__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        if self._problem is None:
            leaves = tree_leaves((args, kwargs or {}))
            foreign = next((v for v in leaves if type(v) is nn.Parameter and v.requires_grad), None)
            if foreign is not None:
                self._problem = _foreign(foreign)
        return func(*args, **(kwargs or {}))

    def check(self) -> None:
        """Raises ForeignParameterError where there was one."""
        if self._problem:
            raise ForeignParameterError(self._problem)


def _foreign(parameter: Tensor) -> str:
    line = _innermost(traceback.extract_stack())
    return (
        f"forward uses a parameter of shape {tuple(parameter.shape)}{f' ({line})' if line else ''} that is none of the "
        f"model's own (it belongs to a hook, a function, a plain list or another model): cut networks would share it, "
        f"and no export would hold it. Make it an attribute of the module that uses it (self.gate = nn.Parameter(…), "
        f"nn.ParameterList), or a constant by .detach()"
    )


def _user_line(error: BaseException) -> str | None:
    """The innermost line of code that is neither torch's nor ours: `file:line, in name: code`."""
    return _innermost(traceback.extract_tb(error.__traceback__))


def _innermost(frames: traceback.StackSummary) -> str | None:
    for frame in reversed(frames):
        name = frame.filename
        if not name.startswith((_TORCH, _HERE)) and not name.startswith("<") and "/contextlib.py" not in name:
            code = (frame.line or linecache.getline(name, frame.lineno or 0)).strip()
            return f"{Path(name).name}:{frame.lineno}, in {frame.name}: `{code}`"
    return None


def _describe(value: Any) -> str:
    return f"{tuple(value.shape)} {value.dtype}" if isinstance(value, Tensor) else type(value).__name__


def _first_lines(text: str) -> str:
    lines = [line.strip() for line in text.splitlines() if line.strip()]
    return " ".join(lines[:2])[:300].rstrip(".")
