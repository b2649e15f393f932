"""The calls of a network that multiply channels by a weight, seen while it runs: in module form and in graph form.

Nothing is hooked into the network: it runs under a mode of torch that sees every function. Recurrent layers, weights
that `forward` computes, and products with a weight of more than two dimensions are not seen as such calls.
"""

from __future__ import annotations

import weakref
from abc import ABC, abstractmethod
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace
from types import FunctionType
from typing import Any, Literal, TypeAlias, final

import torch.nn.functional as F
from torch import Tensor, nn
from torch.overrides import TorchFunctionMode
from torch.utils import _pytree as pytree

from autoprune.space.cutting.slicing import tensor_of

CallKind: TypeAlias = Literal["convolution", "transposed", "product"]

_CONVOLUTION = ("input", "weight", "bias", "stride", "padding", "dilation", "groups")
_TRANSPOSED = ("input", "weight", "bias", "stride", "padding", "output_padding", "groups", "dilation")
_ATEN = ("input", "weight", "bias", "stride", "padding", "dilation", "transposed", "output_padding", "groups")
_ORDERS: dict[str, tuple[str, ...]] = {
    **{f"conv{n}d": _CONVOLUTION for n in (1, 2, 3)},
    **{f"conv_transpose{n}d": _TRANSPOSED for n in (1, 2, 3)},
    "convolution": _ATEN,
    "linear": ("input", "weight", "bias"),
    **dict.fromkeys(("matmul", "mm", "__matmul__"), ("input", "weight")),
    "addmm": ("bias", "input", "weight"),
}
"""Name of a function -> its arguments, in order."""

_SYNONYMS = {"mat1": "input", "mat2": "weight", "other": "weight", "tensor2": "weight"}
_CONVOLUTIONS: tuple[Callable[..., Tensor], ...] = (F.conv1d, F.conv2d, F.conv3d)
_TRANSPOSED_ONES: tuple[Callable[..., Tensor], ...] = (F.conv_transpose1d, F.conv_transpose2d, F.conv_transpose3d)
_TURNED = ("t", "transpose", "numpy_T", "__get__", "permute", "swapaxes", "adjoint")
"""What turns a matrix before it is multiplied with."""


@final
@dataclass(frozen=True, slots=True, eq=False)
class WeightCall:
    """One call that multiplies channels by a weight; sizes that torch takes as one number or several are tuples.

    Attributes:
        name: of the weight.
        kind: what it computes.
        inputs: what it reads: (N, C, *spatial) or (C, *spatial) for convolutions, (..., C) for products.
        bias: name of the bias that it adds; None where it adds none that is a parameter of the network.
        kernel: size of the kernel, () for products.
        stride: of the kernel.
        padding: zeros before and after the inputs, per dimension.
        dilation: of the kernel.
        output_padding: of a transposed convolution.
        groups: of the convolution, 1 for products.
        by_columns: the weight of a product is (inputs, outputs), not (outputs, inputs).
    """

    name: str
    kind: CallKind
    inputs: Tensor
    bias: str | None
    kernel: tuple[int, ...] = ()
    stride: tuple[int, ...] = ()
    padding: tuple[tuple[int, int], ...] = ()
    dilation: tuple[int, ...] = ()
    output_padding: tuple[int, ...] = ()
    groups: int = 1
    by_columns: bool = False

    @property
    def reads(self) -> int:
        """The axis of the weight that multiplies incoming channels (those of one group, but for transposed ones)."""
        return 0 if self.kind == "transposed" or self.by_columns else 1

    def without_inputs(self) -> WeightCall:
        """The same, for keeping: it holds no values."""
        return replace(self, inputs=self.inputs.new_zeros(0))

    def run(self, inputs: Tensor, weight: Tensor) -> Tensor:
        """What it gives for other inputs and another weight, maybe those of a cut network; without the bias."""
        if self.kind == "product":
            return inputs @ (weight if self.by_columns else weight.T)
        number = len(self.kernel) - 1
        if self.kind == "transposed":
            cropped = [before for before, _ in self.padding]
            more = (self.output_padding, self.groups, self.dilation)
            return _TRANSPOSED_ONES[number](inputs, weight, None, self.stride, cropped, *more)
        padded = F.pad(inputs, [size for pair in reversed(self.padding) for size in pair])
        return _CONVOLUTIONS[number](padded, weight, None, self.stride, 0, self.dilation, self.groups)


class WeightCalls(TorchFunctionMode, ABC):
    """Inside, calls that multiply channels by one of the weights go through `called`, all others through `other`.

    Args:
        model: the network that will run; its parameters must stay the same objects.
        names: of the parameters to look for; those of the network that are not there are left out.
    """

    def __init__(self, model: nn.Module, names: Sequence[str]) -> None:
        super().__init__()
        every = dict(model.named_parameters(remove_duplicate=False))
        found = {name: tensor_of(model, name) for name in names if name in every}
        self._weights = {id(weight): (name, weight) for name, weight in found.items()}
        self._parameters = {id(tensor): name for name, tensor in every.items()}
        self._parameters |= {key: name for key, (name, _) in self._weights.items()}
        self._turned: dict[int, tuple[weakref.ref[Tensor], str]] = {}

    def forget(self) -> None:
        """Hold the network no longer; afterwards the mode cannot be used again."""
        self._parameters.clear()
        self._weights.clear()
        self._turned.clear()

    @abstractmethod
    def called(self, call: WeightCall, run: Callable[[], Tensor]) -> Tensor:
        """Return the output of the call; `run` makes it, with the weights as they then are."""

    def other(
        self, func: Callable[..., Any], args: tuple[Any, ...], kwargs: dict[str, Any], run: Callable[[], Any]
    ) -> Any:
        """Return the output of any other function."""
        return run()

    def weight_read(self, name: str) -> None:
        """A weight was used in some other way than in a call."""

    def __torch_function__(
        self, func: Callable[..., Any], types: Any, args: tuple[Any, ...] = (), kwargs: Mapping[str, Any] | None = None
    ) -> Any:
        """Called by torch in place of each of its functions."""
        given = dict(kwargs or {})
        name = getattr(func, "__name__", "").partition(".")[0]
        if func is F.multi_head_attention_forward:
            with self:
                return _ATTENTION(*args, **given)
        if name in _ORDERS:
            call = self._call(name, args, given)
            if call is not None:
                return self.called(call, lambda: func(*args, **given))
        used = [v for v in pytree.tree_leaves((args, given)) if isinstance(v, Tensor) and id(v) in self._weights]
        made = self.other(func, args, given, lambda: func(*args, **given))
        for weight in used:
            self._used(name, weight, made)
        return made

    def _used(self, name: str, weight: Tensor, made: Any) -> None:
        if not isinstance(made, Tensor) or made is weight:
            return
        turned = weight.ndim == 2 and made.shape == weight.shape[::-1] and made.stride() == weight.stride()[::-1]
        if name in _TURNED and turned and made.data_ptr() == weight.data_ptr():
            self._turned[id(made)] = weakref.ref(made), self._parameters[id(weight)]
        else:
            self.weight_read(self._parameters[id(weight)])

    def _call(self, function: str, args: tuple[Any, ...], kwargs: dict[str, Any]) -> WeightCall | None:
        given = dict(zip(_ORDERS[function], args, strict=False))
        synonyms = {**_SYNONYMS, "self": _ORDERS[function][0]}
        given |= {key if key in _ORDERS[function] else synonyms.get(key, key): v for key, v in kwargs.items()}
        inputs, weight = given.get("input"), given.get("weight")
        if not isinstance(inputs, Tensor) or id(inputs) in self._weights or not isinstance(weight, Tensor):
            return None
        name, _ = self._weights.get(id(weight), ("", None))
        turned = not name
        if turned:
            made, name = self._turned.get(id(weight), (lambda: None, ""))
            if made() is not weight:
                return None
        bias = self._parameters.get(id(given.get("bias")))
        if "conv" not in function:
            if weight.ndim != 2 or any(given.get(key, 1) != 1 for key in ("alpha", "beta")):
                return None
            return WeightCall(name, "product", inputs, bias, by_columns=(function != "linear") != turned)
        return None if turned else _convolution(name, function, inputs, bias, weight, given)


def _convolution(
    name: str, function: str, inputs: Tensor, bias: str | None, weight: Tensor, given: Mapping[str, Any]
) -> WeightCall:
    kernel = tuple(weight.shape[2:])
    n = len(kernel)
    dilation = _each(given.get("dilation", 1), n)
    padding = given.get("padding", 0)
    if padding == "same":
        totals = [d * (k - 1) for d, k in zip(dilation, kernel, strict=True)]
        around = tuple((total // 2, total - total // 2) for total in totals)
    else:
        around = tuple((p, p) for p in _each(0 if padding == "valid" else padding, n))
    return WeightCall(
        name,
        "transposed" if "transpose" in function or given.get("transposed") else "convolution",
        inputs,
        bias,
        kernel,
        _each(given.get("stride", 1), n),
        around,
        dilation,
        _each(given.get("output_padding", 0), n),
        given.get("groups", 1),
    )


def _each(value: int | Sequence[int], n: int) -> tuple[int, ...]:
    given = (value,) if isinstance(value, int) else tuple(value)
    return given * n if len(given) == 1 else given


def _undispatched(function: Any) -> Any:
    """A Python function of torch whose body runs at once, so that the calls inside it are seen by the mode."""
    apart = {**function.__globals__, "has_torch_function": lambda _: False}
    made = FunctionType(function.__code__, apart, function.__name__, function.__defaults__, function.__closure__)
    made.__kwdefaults__ = function.__kwdefaults__
    return made


_ATTENTION = _undispatched(F.multi_head_attention_forward)
