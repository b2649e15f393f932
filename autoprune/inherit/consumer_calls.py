"""A mode of torch that sees the calls of consumers while a network runs, the same for module form and graph form."""

from __future__ import annotations

import types
import weakref
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from typing import Any, TypeAlias, final

import torch
import torch.nn.functional as F
from torch import Tensor, nn
from torch.overrides import TorchFunctionMode

from autoprune.inherit.consumers import Channels, Consumer, Run
from autoprune.space.cutting.slicing import tensor_of
from autoprune.space.groups import SearchSpace, TensorLayout

_BEGIN = ("input", "weight", "bias", "stride", "padding")
_CALLS: dict[str, tuple[str, ...]] = {f"conv{n}d": (*_BEGIN, "dilation", "groups") for n in (1, 2, 3)}
_CALLS |= {f"conv_transpose{n}d": (*_BEGIN, "output_padding", "groups", "dilation") for n in (1, 2, 3)}
_CALLS["convolution"] = (*_BEGIN, "dilation", "transposed", "output_padding", "groups")
_CALLS["linear"] = _BEGIN[:3]
_CALLS |= dict.fromkeys(("matmul", "mm", "__matmul__"), _BEGIN[:2])
_CALLS["addmm"] = ("bias", "input", "weight")
"""Name of a function -> its arguments in order."""

_PRODUCTS = ("matmul", "mm", "__matmul__", "addmm")
_SYNONYMS = {"self": "input", "mat1": "input", "other": "weight", "mat2": "weight"}
_TURNED = ("t", "transpose", "numpy_T", "__get__", "permute")
"""What graphs without high-level operators do to a weight before it is multiplied with."""

_NORMS = ("batch_norm", "instance_norm")

Visit: TypeAlias = Callable[[tuple[str, int], Consumer, Tensor, Tensor], None]
"""((weight, which of its calls), the consumer, its inputs, its weight) -> None."""


@final
class ConsumerCalls(TorchFunctionMode):
    """Inside `batch`, what reads channels is visited.

    Args:
        model: the network that will run.
        space: its space.
        visit: called at each.
    """

    def __init__(self, model: nn.Module, space: SearchSpace, visit: Visit) -> None:
        super().__init__()
        self._visit, self._space = visit, space
        self._layouts: dict[int, TensorLayout] = {id(tensor_of(model, t.name)): t for t in space.tensors}
        self.readers = {t.name for t in space.tensors if any(_is_cut(t, dim) for dim in t.reads)}
        self.elsewhere: set[str] = set()
        """Weights that are used for something else than reading, too."""
        self.norms: dict[tuple[str, int], str | None] = {}
        """Call -> name of the running mean that a norm right behind it takes away; None: that of the batch."""
        self._counts: dict[str, int] = {}
        self._turned: dict[int, tuple[Tensor, TensorLayout]] = {}
        self._made: dict[int, tuple[weakref.ref[Tensor], tuple[str, int]]] = {}

    @contextmanager
    def batch(self) -> Iterator[None]:
        """Watch what runs inside: one pass of the network."""
        try:
            with self:
                yield
        finally:
            self._counts.clear()
            self._turned.clear()
            self._made.clear()

    def __torch_function__(
        self, func: Callable[..., Any], types: Any, args: tuple[Any, ...] = (), kwargs: Mapping[str, Any] | None = None
    ) -> Any:
        """Called by torch in place of each of its functions."""
        kwargs = dict(kwargs or {})
        if func is F.multi_head_attention_forward:
            with self:  # its projections are calls of their own
                return _opened(*args, **kwargs)
        name = getattr(func, "__name__", "").partition(".")[0]
        if name in _CALLS:
            return self._call(name, func, args, kwargs)
        outputs = func(*args, **kwargs)
        if name in _NORMS:
            self._norm(func, args, kwargs)
        elif isinstance(outputs, Tensor):
            self._use(name, args, outputs)
        return outputs

    def _use(self, name: str, args: tuple[Any, ...], outputs: Tensor) -> None:
        layout = self._layouts.get(id(args[0])) if args else None
        if name in _TURNED and layout is not None and len(layout.shape) == 2:
            self._turned[id(outputs)] = outputs, layout  # the tensor is kept, so that its id stays its own
            return
        for arg in args:
            used = self._layouts.get(id(arg))
            if used is not None and name != "__get__":
                self.elsewhere.add(used.name)

    def _call(self, name: str, func: Callable[..., Any], args: tuple[Any, ...], kwargs: dict[str, Any]) -> Any:
        given = dict(zip(_CALLS[name], args, strict=False)) | {_SYNONYMS.get(k, k): v for k, v in kwargs.items()}
        outputs = func(*args, **kwargs)
        inputs, weight = given.get("input"), given.get("weight")
        turned = self._turned.get(id(weight))
        layout = turned[1] if turned else self._layouts.get(id(weight))
        if layout is None or not isinstance(inputs, Tensor) or not {"alpha", "beta"}.isdisjoint(given):
            return outputs
        spatial = 0 if name in _PRODUCTS or name == "linear" else len(layout.shape) - 2
        transposed = "transpose" in name or bool(given.get("transposed"))
        plain = name in _PRODUCTS and not turned
        reads = 0 if transposed or plain else 1
        axis = layout.axes[reads] if len(layout.shape) >= 2 else None
        depthwise = given.get("groups", 1) == inputs.shape[-1 - spatial] > 1
        if axis is None or not _is_cut(layout, reads) or depthwise or inputs.ndim < 1 + spatial:
            return outputs
        blocks = int(given.get("groups", 1) or 1)
        bias = self._layouts.get(id(given.get("bias")))
        number = self._counts[layout.name] = self._counts.get(layout.name, -1) + 1
        key = layout.name, number
        consumer = Consumer(
            weight=layout.name,
            reads=reads,
            writes=1 - reads,
            channels=Channels.on(axis, inputs.shape[-1 - spatial] // blocks, self._space),
            blocks=blocks,
            spatial=spatial,
            outputs=layout.shape[1 - reads],
            bias=None if bias is None else bias.name,
            run=_runner(name, func, given, turned=turned is not None),
        )
        self._visit(key, consumer, inputs.detach(), (turned[0].t() if turned else weight).detach())  # type: ignore[union-attr]
        if isinstance(outputs, Tensor):
            self._made[id(outputs)] = weakref.ref(outputs), key
        return outputs

    def _norm(self, func: Callable[..., Any], args: tuple[Any, ...], kwargs: dict[str, Any]) -> None:
        place = 1 if func in (F.batch_norm, F.instance_norm) else 3
        inputs = args[0] if args else kwargs.get("input")
        mean = args[place] if len(args) > place else kwargs.get("running_mean")
        made = self._made.get(id(inputs))
        if made is not None and made[0]() is inputs:
            layout = self._layouts.get(id(mean))
            if mean is None or layout is not None:
                self.norms[made[1]] = None if layout is None else layout.name


def _is_cut(layout: TensorLayout, dim: int) -> bool:
    axis = layout.axes[dim]
    return axis is not None and bool((axis.group >= 0).any())


def _runner(name: str, func: Callable[..., Any], given: dict[str, Any], *, turned: bool) -> Run:
    if name in _PRODUCTS:
        return lambda inputs, weight: torch.matmul(inputs, weight.t() if turned else weight)
    fixed = {key: value for key, value in given.items() if key not in ("input", "weight", "bias")}

    def run(inputs: Tensor, weight: Tensor) -> Tensor:
        outputs: Tensor = func(input=inputs, weight=weight, bias=None, **fixed)
        return outputs

    return run


def _without_dispatch() -> Callable[..., Any]:
    """Attention as torch computes it, its own check for modes left out: inside, each call is seen by itself."""
    attention = F.multi_head_attention_forward
    names = {**attention.__globals__, "has_torch_function": lambda relevant: False}
    copied = types.FunctionType(attention.__code__, names, attention.__name__, attention.__defaults__)
    copied.__kwdefaults__ = attention.__kwdefaults__
    return copied


_opened = _without_dispatch()
