"""Batch norms folded into the weights right before them: the same outputs to rounding, without a pass over them.

Nothing is written into the network. It runs under a mode of torch that hands a call the folded weight and bias, and
lets the norm behind it pass its input on; so it works in module form and in graph form, and leaves no trace.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, final

import torch
from torch import Tensor, nn
from torch.overrides import TorchFunctionMode
from torch.utils import _pytree as pytree

from autoprune.data.batch import Batch
from autoprune.errors import EvaluationError
from autoprune.space.cutting.slicing import tensor_of
from autoprune.statistics.norms import Norm, norm_arguments
from autoprune.statistics.running import evaluating

_PLAIN = ("conv1d", "conv2d", "conv3d", "linear")
_TRANSPOSED = ("conv_transpose1d", "conv_transpose2d", "conv_transpose3d")
_CALLS = frozenset((*_PLAIN, *_TRANSPOSED))
"""Functions whose first arguments are input, weight and bias, by the names that module form and graph form share."""


@final
@dataclass(frozen=True, slots=True)
class Fold:
    """A weight and the norm that alone reads what it makes; names in the network.

    Attributes:
        weight: of a convolution or a linear layer.
        bias: that it adds; None for none.
        norm: right behind it.
        transposed: of a transposed convolution, whose outputs lie along the second axis of the weight.
    """

    weight: str
    bias: str | None
    norm: Norm
    transposed: bool


def foldable(model: nn.Module, inputs: Any) -> tuple[Fold, ...]:
    """What can be folded in a network, seen in one forward pass.

    Each weight is called once, its output goes into one norm and nowhere else, and that norm is called once and uses
    its running statistics. Weights that are computed, and those of half precision, are left as they are.

    Args:
        model: runs as it is, in eval mode; only read.
        inputs: one batch.
    """
    look = _Look(model)
    with evaluating(model), look:
        outputs = Batch(inputs).outputs(model)
    return look.found(outputs)


@final
@dataclass(slots=True, eq=False)
class _Made:
    """What a call gave, and the norms that read it; None for any other function."""

    outputs: Tensor
    weight: str
    bias: str | None
    transposed: bool
    readers: list[Norm | None] = field(default_factory=list)


@final
class _Look(TorchFunctionMode):
    """Notes which calls there are, and what reads what they make."""

    def __init__(self, model: nn.Module) -> None:
        super().__init__()
        tensors = [*model.named_parameters(remove_duplicate=False), *model.named_buffers(remove_duplicate=False)]
        self._names = {id(tensor): name for name, tensor in tensors}
        self._made: dict[int, _Made] = {}
        self._calls: Counter[str] = Counter()

    def __torch_function__(
        self, func: Callable[..., Any], types: Any, args: tuple[Any, ...] = (), kwargs: Mapping[str, Any] | None = None
    ) -> Any:
        """Called by torch in place of each of its functions."""
        given = dict(kwargs or {})
        norm = self._norm(func, args, given)
        read = [self._made[id(v)] for v in pytree.tree_leaves((args, given)) if id(v) in self._made]
        outputs = func(*args, **given)
        if any(isinstance(leaf, Tensor) for leaf in pytree.tree_leaves(outputs)):  # sizes are the same when folded
            for made in read:
                made.readers.append(norm)
        name = _name_of(func)
        if name in _CALLS:
            self._called(name, _arguments(args, given), outputs)
        return outputs

    def _called(self, function: str, given: Mapping[str, Any], outputs: Tensor) -> None:
        weight, bias = given.get("weight"), given.get("bias")
        name, added = self._names.get(id(weight)), self._names.get(id(bias))
        if not isinstance(weight, Tensor) or name is None:
            return
        self._calls[name] += 1
        known = bias is None or added is not None
        if known and outputs.ndim == weight.ndim and weight.dtype in (torch.float32, torch.float64):
            self._made[id(outputs)] = _Made(outputs, name, added, function in _TRANSPOSED)

    def _norm(self, func: Callable[..., Any], args: tuple[Any, ...], given: Mapping[str, Any]) -> Norm | None:
        found = norm_arguments(func, args, given)
        if found is None:
            return None
        mean, variance, weight, bias = (
            self._names.get(id(found.get(key))) for key in ("running_mean", "running_var", "weight", "bias")
        )
        if mean is None or variance is None:
            return None
        self._calls[mean] += 1
        computed = any(found.get(key) is not None and not name for key, name in (("weight", weight), ("bias", bias)))
        return (
            None if found["training"] or computed else Norm(mean, variance, weight, bias, float(found.get("eps", 1e-5)))
        )

    def found(self, outputs: Any) -> tuple[Fold, ...]:
        """What can be folded, given what the network returned."""
        returned = set(map(id, pytree.tree_leaves(outputs)))
        return tuple(
            Fold(made.weight, made.bias, norm, made.transposed)
            for key, made in self._made.items()
            if key not in returned and len(made.readers) == 1 and (norm := made.readers[0]) is not None
            if self._calls[made.weight] == self._calls[norm.mean] == 1
        )


@final
class Folded(TorchFunctionMode):
    """Inside, the network runs with its norms folded; `check` says afterwards whether it ran as it was looked at.

    Args:
        model: the network; its tensors must stay the same objects, and hold the same values.
        folds: of it.
        memory_format: of the folded weights of images.
    """

    def __init__(
        self, model: nn.Module, folds: Sequence[Fold], *, memory_format: torch.memory_format = torch.preserve_format
    ) -> None:
        super().__init__()
        self._model = model  # held, so that no other tensor comes to lie where one of its tensors was
        self._weights: dict[int, tuple[Tensor, Tensor, int]] = {}
        self._open: dict[int, Tensor] = {}
        with torch.no_grad():
            for fold in folds:
                weight, bias = _folded(model, fold)
                if weight.ndim == 4:
                    weight = weight.contiguous(memory_format=memory_format)
                mean = id(tensor_of(model, fold.norm.mean))
                self._weights[id(tensor_of(model, fold.weight))] = weight, bias, mean
        self._norms = {mean for _, _, mean in self._weights.values()}

    def __torch_function__(
        self, func: Callable[..., Any], types: Any, args: tuple[Any, ...] = (), kwargs: Mapping[str, Any] | None = None
    ) -> Any:
        """Called by torch in place of each of its functions."""
        given: Mapping[str, Any] = kwargs or {}
        name = _name_of(func)
        if name in _CALLS:
            weight = args[1] if len(args) > 1 else given.get("weight")
            if (fold := self._weights.get(id(weight))) is not None:
                new, bias, mean = fold
                rest = {key: value for key, value in given.items() if key not in ("input", "weight", "bias")}
                read = args[0] if args else given["input"]
                made: Tensor = func(read, new, bias, *args[3:], **rest)
                self._open[mean] = made
                return made
        elif (norm := norm_arguments(func, args, given)) is not None and id(norm.get("running_mean")) in self._norms:
            made = self._open.pop(id(norm["running_mean"]), norm["running_mean"])
            if made is not norm["input"]:
                raise NotFoldedError("a norm reads something else than what was folded for it")
            return made
        return func(*args, **given)

    def check(self) -> None:
        """Raise NotFoldedError where what was folded did not go into its norm."""
        if self._open:
            self._open.clear()
            raise NotFoldedError("a folded layer was run without its norm")


class NotFoldedError(EvaluationError):
    """A network did not run as it was looked at; its norms must stay where they are."""


def _folded(model: nn.Module, fold: Fold) -> tuple[Tensor, Tensor]:
    """Weight and bias that do what weight and norm do, computed in double precision."""
    weight = tensor_of(model, fold.weight).detach()
    mean, variance = (tensor_of(model, name).double() for name in (fold.norm.mean, fold.norm.variance))
    gain = (variance + fold.norm.eps).rsqrt()
    if fold.norm.weight is not None:
        gain = gain * tensor_of(model, fold.norm.weight).detach().double()
    before = 0.0 if fold.bias is None else tensor_of(model, fold.bias).detach().double()
    bias = (before - mean) * gain
    if fold.norm.bias is not None:
        bias = bias + tensor_of(model, fold.norm.bias).detach().double()
    ones = (1,) * (weight.ndim - 2)
    if fold.transposed:
        groups = len(mean) // weight.shape[1]
        by_group = weight.double().reshape(groups, -1, *weight.shape[1:]) * gain.reshape(groups, 1, -1, *ones)
        return by_group.reshape(weight.shape).to(weight.dtype), bias.to(weight.dtype)
    return (weight.double() * gain.reshape(-1, 1, *ones)).to(weight.dtype), bias.to(weight.dtype)


def _name_of(func: Callable[..., Any]) -> str:
    return getattr(func, "__name__", "").partition(".")[0]


def _arguments(args: tuple[Any, ...], given: Mapping[str, Any]) -> dict[str, Any]:
    return {**dict(zip(("input", "weight", "bias"), args, strict=False)), **given}
