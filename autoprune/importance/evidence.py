"""What criteria look at, gathered for all groups at once in one pass over the calibration batches.

Nothing is hooked into the network: a copy runs under a mode of torch that sees every call that reads channels (its
weight has an axis of a group in `TensorLayout.reads`), the same for module form and graph form. Sums are per channel or
per weight, so memory does not depend on how many examples there are.

*Activations* are what the readers of a channel get: after the norm, the activation function and the sum. *Gates* are
ones that multiply what all readers of a channel get, one for each example and channel; the gradient of the loss by a
gate is, to first order, what removing the channel does to the loss of that example (sum of activation times gradient).
"""

from __future__ import annotations

import copy
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Literal, TypeAlias, TypeVar, final, get_args

import torch
from torch import Tensor, nn
from torch.utils import _pytree as pytree

from autoprune.errors import ConfigError, EvaluationError, blame
from autoprune.importance.reads import Reads, Slots
from autoprune.randomness import seeded
from autoprune.space.cutting.slicing import tensor_of
from autoprune.space.groups import SearchSpace

Need: TypeAlias = Literal["weights", "readers", "activations", "gradients", "curvature", "outputs", "losses"]

NETWORK: frozenset[Need] = frozenset({"outputs", "losses"})
"""Of all groups at once, from runs of the network that the criterion chooses: see `network`."""

DATA: frozenset[Need] = frozenset({"activations", "gradients", "curvature", "outputs", "losses"})
LOSS: frozenset[Need] = frozenset({"gradients", "curvature", "losses"})

EVIDENCE_BATCHES = 10
"""How many training batches a run gathers evidence on."""

_CPU = torch.device("cpu")

Objective: TypeAlias = Callable[[Any, Any], Tensor]
"""(outputs of the network, targets) -> loss, the mean over the examples of the batch."""

_F = TypeVar("_F", bound=Callable[..., Any])


def criterion(*needs: Need, zeros_last: bool = True) -> Callable[[_F], _F]:
    """Mark a criterion with what it needs; one without a mark needs `weights` only.

    Args:
        needs: the kinds of evidence it reads.
        zeros_last: whether a channel of zeros is the least important one (False for the geometric median).
    """

    def mark(part: _F) -> _F:
        part.needs, part.zeros_last = frozenset(needs), zeros_last  # type: ignore[attr-defined]
        return part

    return mark


def needs_of(part: object) -> frozenset[Need]:
    """What a criterion needs.

    Raises:
        ConfigError: it asks for a kind of evidence that there is not.
    """
    needs = frozenset(getattr(part, "needs", ("weights",)))
    known = get_args(Need)
    unknown = sorted(str(need) for need in needs - set(known))
    if unknown:
        raise ConfigError(f"a criterion needs {unknown[0]!r}, which is no evidence; there are {', '.join(known)}")
    return needs


@final
@dataclass(frozen=True, slots=True, eq=False)
class Calibration:
    """Data that evidence is gathered on.

    Attributes:
        batches: (inputs, targets); inputs a tensor, a tuple of positional or a mapping of keyword inputs; targets None
            where there are none.
        objective: the loss; None: there is none.
        device: where to run.
    """

    batches: Iterable[tuple[Any, Any]]
    objective: Objective | None = None
    device: torch.device = _CPU


@final
@dataclass(frozen=True, slots=True, eq=False)
class Activations:
    """(width,) moments of the values that the readers of each channel get, over examples and positions.

    Attributes:
        mean: of the values.
        variance: of the values, biased.
        zeros: share of values that are exactly zero.
        mean_abs: mean of the absolute values.
    """

    mean: Tensor
    variance: Tensor
    zeros: Tensor
    mean_abs: Tensor


@final
@dataclass(frozen=True, slots=True, eq=False)
class Gradients:
    """First-order terms, averaged.

    Attributes:
        gates: (width,) mean over batches of the gradient of the loss by the channel's gate.
        gate_squares: (width,) mean over batches of its square.
        weights: as `filters`: mean over batches of gradient times weight.
        weight_squares: as `filters`: mean over batches of its square.
        magnitudes: (width,) mean over examples of |mean over positions of value times gradient|, the loss being that of
            the example.
    """

    gates: Tensor
    gate_squares: Tensor
    weights: tuple[Tensor, ...]
    weight_squares: tuple[Tensor, ...]
    magnitudes: Tensor


@final
@dataclass(frozen=True, slots=True, eq=False)
class Curvature:
    """Diagonal of the empirical Fisher information.

    Attributes:
        gates: (width,) mean over examples of the squared gradient of the example's own loss by the channel's gate.
    """

    gates: Tensor


@final
@dataclass(frozen=True, slots=True, eq=False)
class Gathered:
    """Sums over all batches; per-channel ones hold the slots of all groups, one group after the other.

    Attributes:
        slots: where those of each group lie.
        moments: (4, slots) of values: their number's share of sums, squares, zeros and absolute values.
        seen: (slots,) how many values there were.
        gates: (4, slots) of gate gradients: sums over batches, of squares over batches, of squares over examples, of
            absolute values over examples.
        products: name -> sums of gradient times weight, and of its square, over batches.
        batches: how many counted.
        examples: how many they held.
        skipped: batches left out because a value was not finite.
    """

    slots: Slots
    moments: Tensor
    seen: Tensor
    gates: Tensor
    products: Mapping[str, tuple[Tensor, Tensor]]
    batches: int
    examples: int
    skipped: int

    def activations(self, group: int, start: int, width: int) -> Activations | None:
        """Of one set of channels; None where no call that reads them was seen."""
        part = self.slots.part(group, start, width)
        seen = self.seen[part]
        if not (seen > 0).all():
            return None
        mean, square, zeros, absolute = self.moments[:, part] / seen
        return Activations(mean, (square - mean.square()).clamp(min=0), zeros, absolute)

    def gate_means(self, group: int, start: int, width: int) -> tuple[Tensor, Tensor, Tensor, Tensor] | None:
        """Moments over batches; second moment, and mean size per position, over examples; None as above."""
        part = self.slots.part(group, start, width)
        if not (self.seen[part] > 0).all():
            return None
        first, second, fisher, size = self.gates[:, part]
        return first / self.batches, second / self.batches, fisher / self.examples, size / self.seen[part]


def check_data(needs: frozenset[Need], calibration: Calibration | None, *, what: str) -> Calibration:
    """Return the data that are needed.

    Raises:
        ConfigError: there are none, or no loss where one is needed.
    """
    kinds = ", ".join(sorted(needs & DATA))
    if calibration is None:
        raise ConfigError(f"{what} needs {kinds}: give it data (calibration=…), or choose a criterion of weights only")
    if needs & LOSS and calibration.objective is None:
        raise ConfigError(
            f"{what} needs {kinds} and so a loss, and there is none: give batches of (inputs, targets) with a loss, or "
            f"choose a criterion without gradients"
        )
    return calibration


def gather(
    model: nn.Module, space: SearchSpace, needs: frozenset[Need], calibration: Calibration | None, *, what: str
) -> Gathered | None:
    """Gather what is needed on data; None where nothing is. The model is only read: a copy runs, in eval mode.

    Args:
        model: the network that was traced, in module or graph form.
        space: its space.
        needs: kinds of evidence.
        calibration: the data.
        what: who needs it, for messages.

    Raises:
        ConfigError: there are no data, no targets or no loss where they are needed, or batches that do not run.
        EvaluationError: no batch had finite values only.
    """
    if not needs & DATA:
        return None
    kinds = ", ".join(sorted(needs & DATA))
    calibration = check_data(needs, calibration, what=what)
    gathering = _Gathering(model, space, needs, calibration)
    with blame(ConfigError, f"{what} cannot run the network on calibration data", then="Give batches as it takes."):
        for inputs, targets in calibration.batches:
            gathering.add(inputs, targets)
    if not gathering.batches:
        found = f"all {gathering.skipped} have values that are not finite" if gathering.skipped else "there are none"
        raise EvaluationError(f"{what} needs {kinds}, but of the calibration batches {found}: give it others")
    return gathering.result()


@final
class _Gathering:
    def __init__(self, model: nn.Module, space: SearchSpace, needs: frozenset[Need], calibration: Calibration) -> None:
        self._model = copy.deepcopy(model).to(calibration.device).eval()
        self._calibration, self._differentiated = calibration, bool(needs & LOSS)
        self._slots = Slots(space, calibration.device)
        self._reads = Reads(self._model, space, self._slots, values="activations" in needs)
        self._weights: dict[str, Tensor] = {}
        if self._differentiated:
            self._model.requires_grad_(True)
        if "gradients" in needs:
            cut = (t.name for t in space.tensors if t.kind == "parameter" and any(a is not None for a in t.axes))
            self._weights = {name: tensor_of(self._model, name) for name in cut}
        zeros = torch.zeros(self._slots.number, dtype=torch.float64, device=calibration.device)
        self._moments, self._seen = torch.stack([zeros] * 4), zeros.clone()
        self._gates = torch.stack([zeros] * 4)
        self._products: dict[str, tuple[Tensor, Tensor]] = {
            name: (torch.zeros_like(w, dtype=torch.float64), torch.zeros_like(w, dtype=torch.float64))
            for name, w in self._weights.items()
        }
        self.batches, self._examples, self.skipped = 0, 0, 0

    def add(self, inputs: Any, targets: Any) -> None:
        """Take part of one batch into the sums, all of it or nothing."""
        inputs, targets = pytree.tree_map_only(Tensor, lambda t: t.to(self._calibration.device), (inputs, targets))
        examples = next((t.shape[0] for t in pytree.tree_leaves(inputs) if isinstance(t, Tensor) and t.ndim), 1)
        objective = self._calibration.objective if self._differentiated else None
        gates = torch.ones(examples, self._slots.number, device=self._calibration.device, requires_grad=True)
        with seeded(0), torch.set_grad_enabled(objective is not None):
            with self._reads.batch(None if objective is None else gates):
                outputs = _run(self._model, inputs)
            found: list[Tensor] = []
            if objective is not None:
                loss = objective(outputs, targets)
                wanted = [gates, *self._weights.values()]
                given = torch.autograd.grad(loss, wanted, allow_unused=True)
                found = [torch.zeros_like(w) if g is None else g for w, g in zip(wanted, given, strict=True)]
                found = [loss.detach(), *found]
        if not all(bool(t.isfinite().all()) for t in (*_floating((inputs, outputs)), self._reads.moments, *found)):
            self.skipped += 1
            return
        self._moments += self._reads.moments
        self._seen += self._reads.seen
        self.batches += 1
        self._examples += examples
        if objective is not None:
            self._add_gradients(found[1].double(), found[2:], examples)

    def _add_gradients(self, by_gate: Tensor, by_weight: Sequence[Tensor], examples: int) -> None:
        total = by_gate.sum(dim=0)
        own = examples * by_gate  # of each example's own loss
        self._gates += torch.stack([total, total.square(), own.square().sum(dim=0), own.abs().sum(dim=0)])
        for (name, weight), gradient in zip(self._weights.items(), by_weight, strict=True):
            product = gradient.double() * weight.detach()
            self._products[name][0].add_(product)
            self._products[name][1].add_(product.square())

    def result(self) -> Gathered:
        products = {name: (a / self.batches, b / self.batches) for name, (a, b) in self._products.items()}
        counts = self.batches, self._examples, self.skipped
        return Gathered(self._slots, self._moments, self._seen, self._gates, products, *counts)


def _run(model: nn.Module, inputs: Any) -> Any:
    if isinstance(inputs, Mapping):
        return model(**inputs)
    return model(*inputs) if isinstance(inputs, tuple) else model(inputs)


def _floating(values: Any) -> list[Tensor]:
    return [t for t in pytree.tree_leaves(values) if isinstance(t, Tensor) and t.is_floating_point()]
