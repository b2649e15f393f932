"""Second moments of what every consumer reads in a network, in one streaming pass over batches.

A consumer is a weight that multiplies channels: of a convolution (plain, grouped, depthwise, transposed), a linear
layer, a matrix product, a projection of attention.
"""

from __future__ import annotations

import copy
import weakref
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field, replace
from typing import Any, Literal, TypeAlias, final

import torch
import torch.nn.functional as F
from torch import Tensor, nn
from torch.utils import _pytree as pytree

from autoprune.errors import EvaluationError
from autoprune.randomness import seeded
from autoprune.space.groups import SearchSpace
from autoprune.statistics.calls import Call, WeightCalls
from autoprune.statistics.rows import POSITIONS, input_rows

MomentKind: TypeAlias = Literal["patch", "channel"]
"""Of all inputs of an output (channels times kernel), or of channels alone: pixels of the inputs."""

_CPU = torch.device("cpu")
_NORM = ("input", "running_mean", "running_var", "weight", "bias", "training", "momentum", "eps")
_ATEN_NORM = ("input", "weight", "bias", "running_mean", "running_var", "training", "momentum", "eps")


@final
@dataclass(frozen=True, slots=True, eq=False)
class Norm:
    """A batch norm that a consumer's output goes straight, and only, into; names in the network.

    Attributes:
        mean: of its running mean.
        variance: of its running variance.
        weight: of its scale; None where it has none.
        bias: of its shift; None where it has none.
        eps: added to the variance.
    """

    mean: str
    variance: str
    weight: str | None
    bias: str | None
    eps: float


@final
@dataclass(frozen=True, slots=True, eq=False)
class Consumer:
    """A weight that multiplies channels, as one forward pass uses it.

    Attributes:
        call: the first call of it, without its inputs; `rows.weight_matrix` and `rows.matrix_weight` read it.
        calls: how many calls there are.
        norm: where its output goes; None where that is no batch norm, or not only one.
    """

    call: Call
    calls: int = 1
    norm: Norm | None = None

    @property
    def name(self) -> str:
        """Of the weight."""
        return self.call.name

    @property
    def bias(self) -> str | None:
        """Name of the bias."""
        return self.call.bias

    @property
    def reads(self) -> int:
        """The axis of the weight that multiplies incoming channels (those of one group, but for transposed ones)."""
        return 0 if self.call.kind == "transposed" or self.call.by_columns else 1


@final
@dataclass(frozen=True, slots=True, eq=False)
class Moments:
    """Of the inputs u of one consumer, over examples and positions.

    Attributes:
        consumer: whose.
        kind: what u is: (channels, kernel) of one output, channel-major, or channels alone.
        second: (groups, D, D) mean of u uᵀ, float64.
        mean: (groups, D) mean of u, float64.
        count: how many u there were.
        skipped: batches left out because a value was not finite.
    """

    consumer: Consumer
    kind: MomentKind
    second: Tensor
    mean: Tensor
    count: int
    skipped: int = 0

    @property
    def centred(self) -> Tensor:
        """(groups, D, D) covariance of u."""
        return self.second - self.mean[:, :, None] * self.mean[:, None]


def consumers(model: nn.Module, space: SearchSpace, inputs: Any) -> tuple[Consumer, ...]:
    """The consumers of a network in the order of their first calls, seen in one forward pass.

    Those whose inputs cannot be cut are among them. Left out is what is not seen as such a call (recurrent layers,
    computed weights), and what is also used in other ways (tied embeddings).

    Args:
        model: in the form of its space, dense or cut; only read: a copy runs.
        space: of the dense network.
        inputs: one batch.
    """
    copied = copy.deepcopy(model).eval()
    return look_at(copied, space, inputs)


def gather_moments(
    model: nn.Module,
    space: SearchSpace,
    batches: Iterable[Any],
    kind: MomentKind = "patch",
    *,
    positions: int = POSITIONS,
    device: torch.device = _CPU,
    only: Callable[[Consumer], bool] | None = None,
) -> dict[str, Moments]:
    """Name of a consumer's weight -> moments of its inputs, all in one pass, in memory that batches do not add to.

    Args:
        model: the dense network in the form of its space; only read: a copy runs, in eval mode.
        space: its space.
        batches: inputs: each a tensor, a tuple of positional or a mapping of keyword inputs.
        kind: "patch" costs (C k²)² numbers for each consumer and is exact; "channel" costs C².
        positions: of each image that are looked at.
        device: where to run.
        only: which consumers; None: all whose inputs can be cut.

    Raises:
        EvaluationError: there are no batches, or none had finite values only.
    """
    batches = list(batches)
    if not batches:
        raise EvaluationError("moments of inputs need calibration data, and there are none: give batches of inputs")
    copied = copy.deepcopy(model).to(device).eval()
    cut = {layout.name for layout in space.tensors if any(layout.axes[dim] is not None for dim in layout.reads)}
    wanted = only or (lambda consumer: consumer.name in cut)
    found = [c for c in look_at(copied, space, on_device(batches[0], device)) if wanted(c)]
    gathering = _Gathering(copied, found, kind, positions)
    for inputs in batches:
        gathering.add(on_device(inputs, device))
    return gathering.result()


def look_at(model: nn.Module, space: SearchSpace, inputs: Any) -> tuple[Consumer, ...]:
    """As `consumers`, of a network that runs as it is and may be moved into eval mode."""
    names = tuple(layout.name for layout in space.tensors if layout.kind == "parameter")
    look = _Look(model, names)
    with evaluating(model), look:
        run_batch(model, inputs)
    return look.result()


@contextmanager
def evaluating(model: nn.Module) -> Iterator[None]:
    """Inside, the model is in eval mode, without gradients, and the global generators start anew."""
    flags = [(module, module.training) for module in model.modules()]
    model.eval()
    try:
        with seeded(0), torch.no_grad():
            yield
    finally:
        for module, flag in flags:
            module.training = flag


def run_batch(model: nn.Module, inputs: Any) -> Any:
    """Call the model on a tensor, on positional or on keyword inputs."""
    if isinstance(inputs, Mapping):
        return model(**inputs)
    return model(*inputs) if isinstance(inputs, tuple | list) else model(inputs)


def on_device(inputs: Any, device: torch.device) -> Any:
    """The inputs with all tensors on the device."""
    return pytree.tree_map_only(Tensor, lambda t: t.to(device), inputs)


def examples_of(inputs: Any) -> int:
    """How many examples a batch has."""
    return next((len(t) for t in pytree.tree_leaves(inputs) if isinstance(t, Tensor) and t.ndim), 1)


def all_finite(values: Any) -> bool:
    """Whether no number in it is infinite or not a number."""
    tensors = (t for t in pytree.tree_leaves(values) if isinstance(t, Tensor) and t.is_floating_point())
    return all(bool(t.isfinite().all()) for t in tensors)


@final
class _Look(WeightCalls):
    """Notes which calls there are and where their outputs go."""

    def __init__(self, model: nn.Module, names: tuple[str, ...]) -> None:
        super().__init__(model, names)
        every = [*model.named_parameters(remove_duplicate=False), *model.named_buffers(remove_duplicate=False)]
        self._names = {id(tensor): name for name, tensor in every}
        self._found: dict[str, Consumer] = {}
        self._elsewhere: set[str] = set()
        self._made: dict[int, tuple[Callable[[], Tensor | None], str]] = {}
        self._norms: dict[str, list[Norm | None]] = {}
        self._normed: dict[str, int] = {}

    def called(self, call: Call, run: Callable[[], Tensor]) -> Tensor:
        self._passed(None, (call.inputs,), {})
        outputs = run()
        known = self._found.get(call.name)
        self._found[call.name] = (
            Consumer(replace(call, inputs=call.inputs.new_zeros(0)))
            if known is None
            else replace(known, calls=known.calls + 1)
        )
        self._made[id(outputs)] = weakref.ref(outputs), call.name
        return outputs

    def other(
        self, func: Callable[..., Any], args: tuple[Any, ...], kwargs: dict[str, Any], run: Callable[[], Any]
    ) -> Any:
        outputs = run()
        if isinstance(outputs, Tensor) or (isinstance(outputs, tuple | list) and outputs):
            self._passed(func, args, kwargs)
        return outputs

    def weight_read(self, name: str) -> None:
        self._elsewhere.add(name)

    def _passed(self, func: Any, args: tuple[Any, ...], kwargs: dict[str, Any]) -> None:
        for value in pytree.tree_leaves((args, kwargs)):
            made, name = self._made.get(id(value), (None, ""))
            if made is not None and made() is value:
                self._norms.setdefault(name, []).append(self._norm(func, args, kwargs))

    def _norm(self, func: Any, args: tuple[Any, ...], kwargs: dict[str, Any]) -> Norm | None:
        if getattr(func, "__name__", "").partition(".")[0] != "batch_norm":
            return None
        given = {**dict(zip(_NORM if func is F.batch_norm else _ATEN_NORM, args, strict=False)), **kwargs}
        mean, variance, weight, bias = (
            self._names.get(id(given.get(key))) for key in ("running_mean", "running_var", "weight", "bias")
        )
        if mean is None or variance is None:
            return None
        self._normed[mean] = self._normed.get(mean, 0) + 1
        if any(given.get(key) is not None and not name for key, name in (("weight", weight), ("bias", bias))):
            return None  # a computed scale is not ours to change
        return Norm(mean, variance, weight, bias, float(given.get("eps", 1e-5)))

    def result(self) -> tuple[Consumer, ...]:
        made = []
        for name, consumer in self._found.items():
            norms = self._norms.get(name, [])
            only = norms[0] if len(norms) == consumer.calls == 1 else None
            if only is not None and self._normed[only.mean] > 1:
                only = None  # a norm that others use, too, is not this consumer's to change
            if name not in self._elsewhere:
                made.append(replace(consumer, norm=only))
        return tuple(made)


@final
@dataclass(slots=True, eq=False)
class _Sums:
    consumer: Consumer
    second: Tensor | None = None
    first: Tensor | None = None
    count: int = 0
    rows: list[Tensor] = field(default_factory=list)

    def take(self) -> None:
        """Add the rows of one batch."""
        rows, self.rows = torch.cat(self.rows).double().transpose(0, 1), []
        second, first = rows.transpose(1, 2) @ rows, rows.sum(dim=1)
        self.second = second if self.second is None else self.second.add_(second)
        self.first = first if self.first is None else self.first.add_(first)
        self.count += rows.shape[1]


@final
class _Gathering(WeightCalls):
    def __init__(self, model: nn.Module, found: Sequence[Consumer], kind: MomentKind, positions: int) -> None:
        super().__init__(model, tuple(consumer.name for consumer in found))
        self._model, self._kind, self._positions = model, kind, positions
        self._sums = {consumer.name: _Sums(consumer) for consumer in found}
        self._examples, self._skipped, self._batches = 1, 0, 0

    def called(self, call: Call, run: Callable[[], Tensor]) -> Tensor:
        rows = input_rows(call, self._examples, positions=self._positions, taps=self._kind == "patch")
        self._sums[call.name].rows.append(rows)
        return run()

    def add(self, inputs: Any) -> None:
        """Take a batch into the sums, all of it or nothing."""
        self._examples = examples_of(inputs)
        with evaluating(self._model), self:
            outputs = run_batch(self._model, inputs)
        rows = [sums.rows for sums in self._sums.values()]
        finite = all_finite((inputs, outputs, rows))
        for sums in self._sums.values():
            sums.take() if finite else sums.rows.clear()
        self._batches += finite
        self._skipped += not finite

    def result(self) -> dict[str, Moments]:
        if not self._batches:
            raise EvaluationError(
                f"moments of inputs need finite values, and all {self._skipped} calibration batches have others: "
                f"give it other batches, or check the network's weights"
            )
        return {
            name: Moments(s.consumer, self._kind, s.second / s.count, s.first / s.count, s.count, self._skipped)
            for name, s in self._sums.items()
            if s.second is not None and s.first is not None
        }
