"""Evidence gathered for all groups at once in one pass over the calibration batches.

Nothing is hooked into the network: a copy runs under a mode of torch that sees every call that reads channels (its
weight has an axis of a group in `TensorLayout.reads`), the same for module form and graph form. Sums are per channel or
per weight and samples are bounded, so memory does not depend on how many examples there are.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field, replace
from typing import Any, final

import torch
from torch import Tensor, nn
from torch.utils import _pytree as pytree

from autoprune.data.batch import Batch, examples_in
from autoprune.errors import ConfigError, EvaluationError, blame
from autoprune.importance.evidence import Activations, Calibration, check_data
from autoprune.importance.needs import LOSS, RUN, Need
from autoprune.importance.reads import Reads, Recorder, Slots, gated
from autoprune.importance.recorders import InputSquares, MapSample, MeanSample, ValueSums
from autoprune.randomness import seeded
from autoprune.space.copying import copy_network
from autoprune.space.cutting.slicing import tensor_of
from autoprune.space.groups import SearchSpace
from autoprune.statistics.consumers import Consumer
from autoprune.statistics.moments import Moments, gather_moments
from autoprune.statistics.rows import weight_matrix

POSITIONS = 32
"""Positions of each example at which a reader is looked at, for second moments."""

MOST_MOMENTS = 2**29
"""Numbers that the second moments of one reader may have."""


@final
@dataclass(frozen=True, slots=True, eq=False)
class GatheredEvidence:
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
        inputs: name of a reader -> (size,) mean square of each index of what it gets.
        pooled: (sampled examples, slots) means.
        maps: (name of a reader, number of the call) -> (sampled examples, size, height, width) values.
        consumed: name of a reader -> second moments of what it reads.
        inverses: name of a reader -> inverses of them, filled as they are asked for.
    """

    slots: Slots
    moments: Tensor
    seen: Tensor
    gates: Tensor
    products: Mapping[str, tuple[Tensor, Tensor]]
    batches: int
    examples: int
    skipped: int
    inputs: Mapping[str, Tensor]
    pooled: Tensor | None
    maps: Mapping[tuple[str, int], Tensor]
    consumed: Mapping[str, Moments] = field(default_factory=dict)
    inverses: dict[str, dict[tuple[bool, float], Tensor]] = field(default_factory=dict)

    def activations(self, group: int, start: int, width: int) -> Activations | None:
        """Of one set of channels; None where no call that reads them was seen."""
        part = self.slots.part(group, start, width)
        if not self.saw(group, start, width):
            return None
        mean, square, zeros, absolute = self.moments[:, part] / self.seen[part]
        return Activations(mean, (square - mean.square()).clamp(min=0), zeros, absolute)

    def gate_means(self, group: int, start: int, width: int) -> tuple[Tensor, Tensor, Tensor, Tensor] | None:
        """Moments over batches; second moment, and mean size per position, over examples; None as above."""
        if not self.saw(group, start, width):
            return None
        part = self.slots.part(group, start, width)
        first, second, fisher, size = self.gates[:, part]
        return first / self.batches, second / self.batches, fisher / self.examples, size / self.seen[part]

    def saw(self, group: int, start: int, width: int) -> bool:
        """Whether calls were seen that read all of a set of channels."""
        return bool((self.seen[self.slots.part(group, start, width)] > 0).all())


def gather(
    model: nn.Module, space: SearchSpace, needs: frozenset[Need], calibration: Calibration | None, *, what: str
) -> GatheredEvidence | None:
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
    if not needs & RUN:
        return None
    kinds = ", ".join(sorted(needs & RUN))
    calibration = check_data(needs, calibration, what=what)
    gathering = _Gathering(model, space, needs, calibration)
    with blame(ConfigError, f"{what} cannot run the network on calibration data", then="Give batches as it takes."):
        for inputs, targets in calibration.batches:
            gathering.add(inputs, targets)
    if not gathering.batches:
        found = f"all {gathering.skipped} have values that are not finite" if gathering.skipped else "there are none"
        raise EvaluationError(f"{what} needs {kinds}, but of the calibration batches {found}: give it others")
    sums = gathering.result()
    return replace(sums, consumed=_consumed(model, space, calibration, what)) if "moments" in needs else sums


def _consumed(model: nn.Module, space: SearchSpace, calibration: Calibration, what: str) -> Mapping[str, Moments]:
    """Second moments of what each reader reads, in one more pass; raises EvaluationError where they are too many."""
    axes = {t.name: [t.axes[dim] for dim in t.reads] for t in space.tensors}
    cut = {name for name, of_tensor in axes.items() for a in of_tensor if a is not None and (a.group >= 0).any()}

    def wanted(consumer: Consumer) -> bool:
        if consumer.name not in cut:
            return False
        weight = tensor_of(model, consumer.name)
        groups, _, size = weight_matrix(consumer.call, weight.detach()).shape
        if groups * size**2 > MOST_MOMENTS:
            raise EvaluationError(
                f"{what} needs moments, and those of the {size:,} inputs of {consumer.name!r} would take "
                f"{groups * size**2 * 8 / 2**30:.0f} GB: choose another criterion, or exclude the group that it reads"
            )
        return True

    inputs = [given for given, _ in calibration.batches]
    return gather_moments(model, space, inputs, "patch", positions=POSITIONS, device=calibration.device, only=wanted)


def on_device(calibration: Calibration) -> Iterator[tuple[Any, Any, int]]:
    """(inputs, targets, examples) of each batch, where the network runs."""
    for inputs, targets in calibration.batches:
        moved, aims = pytree.tree_map_only(Tensor, lambda t: t.to(calibration.device), (inputs, targets))
        yield moved, aims, examples_in(moved) or 1


def finite(values: Any) -> bool:
    """Whether all floating-point tensors in it are finite."""
    leaves = (t for t in pytree.tree_leaves(values) if isinstance(t, Tensor) and t.is_floating_point())
    return all(bool(t.isfinite().all()) for t in leaves)


@final
class _Gathering:
    def __init__(self, model: nn.Module, space: SearchSpace, needs: frozenset[Need], calibration: Calibration) -> None:
        device = calibration.device
        self._model = copy_network(model).to(device).eval()
        self._calibration, self._differentiated = calibration, bool(needs & LOSS)
        self._slots = Slots(space, device)
        self._values, self._inputs, self._maps = ValueSums(self._slots, device), InputSquares(), MapSample()
        self._means = MeanSample(self._slots, device) if "pooled" in needs else None
        kept: dict[Need, Recorder | None] = {
            "activations": self._values,
            "inputs": self._inputs,
            "maps": self._maps,
            "pooled": self._means,
        }
        self._recorders = [recorder for need, recorder in kept.items() if need in needs and recorder is not None]
        self._reads = Reads(self._model, space, self._slots, self._recorders)
        self._weights: dict[str, Tensor] = {}
        if self._differentiated:
            self._model.requires_grad_(True)
        if "gradients" in needs:
            cut = (t.name for t in space.tensors if t.kind == "parameter" and any(a is not None for a in t.axes))
            self._weights = {name: tensor_of(self._model, name) for name in cut}
        self._seen = torch.zeros(self._slots.number, dtype=torch.float64, device=device)
        self._gates = torch.stack([torch.zeros_like(self._seen)] * 4)
        self._products: dict[str, tuple[Tensor, Tensor]] = {
            name: (torch.zeros_like(w, dtype=torch.float64), torch.zeros_like(w, dtype=torch.float64))
            for name, w in self._weights.items()
        }
        self.batches, self._examples, self.skipped = 0, 0, 0
        self._axes_known = False

    def add(self, given: Any, targets: Any) -> None:
        """Take part of one batch into the sums, all of it or nothing."""
        one = Calibration([(given, targets)], self._calibration.objective, self._calibration.device)
        ((inputs, targets, examples),) = on_device(one)
        objective = self._calibration.objective if self._differentiated else None
        gates = torch.ones(examples, self._slots.number, device=self._calibration.device, requires_grad=True)
        if not self._axes_known:
            self._axes_known = True
            self._reads.learn_axes(lambda some: Batch(some).outputs(self._model), inputs)
        with seeded(0), torch.set_grad_enabled(objective is not None):
            with self._reads.batch(examples, None if objective is None else gated(gates)):
                outputs = Batch(inputs).outputs(self._model)
            found: list[Tensor] = []
            if objective is not None:
                loss = self._calibration.loss(outputs, targets, inputs)
                wanted = [gates, *self._weights.values()]
                given = torch.autograd.grad(loss, wanted, allow_unused=True)
                found = [torch.zeros_like(w) if g is None else g for w, g in zip(wanted, given, strict=True)]
                found = [loss.detach(), *found]
        staged = [tensor for recorder in self._recorders for tensor in recorder.staged()]
        if not finite((inputs, outputs, staged, found)):
            self.skipped += 1
            return
        for recorder in self._recorders:
            recorder.commit()
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

    def result(self) -> GatheredEvidence:
        products = {name: (a / self.batches, b / self.batches) for name, (a, b) in self._products.items()}
        counts = self.batches, self._examples, self.skipped
        samples = self._inputs.means(), None if self._means is None else self._means.means(), self._maps.maps()
        return GatheredEvidence(self._slots, self._values.sums, self._seen, self._gates, products, *counts, *samples)
