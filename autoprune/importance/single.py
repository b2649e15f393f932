"""Scores of single weights: the criteria of channels, given a row for each weight of a layer, or block of weights."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any, final

import numpy as np
import torch
from torch import Tensor, nn

from autoprune.data.batch import Batch
from autoprune.errors import ConfigError, EvaluationError, blame
from autoprune.importance.checks import checked_scores
from autoprune.importance.evidence import Calibration, Gradients, GroupEvidence, InputMoments, check_data
from autoprune.importance.gathering import MOST_MOMENTS, POSITIONS, finite, on_device
from autoprune.importance.needs import NETWORK, Need
from autoprune.importance.scoring import ChosenCriterion
from autoprune.randomness import seeded
from autoprune.space.copying import copy_network
from autoprune.space.cutting.masks import units_of
from autoprune.space.cutting.slicing import tensor_of
from autoprune.space.groups import FloatArray, LayerDensity, SearchSpace
from autoprune.statistics.calls import WeightCall, WeightCalls
from autoprune.statistics.moments import Moments, gather_moments
from autoprune.statistics.rows import input_rows, matrix_weight, weight_matrix

_KNOWN: frozenset[Need] = NETWORK | {"weights", "readers", "inputs", "gradients", "moments"}


def check_single(scoring: ChosenCriterion, what: str) -> None:
    """Check that a criterion can score single weights.

    Raises:
        ConfigError: it cannot.
    """
    if not scoring.single or scoring.needs - _KNOWN:
        raise ConfigError(
            f"{what} scores channels, and a density leaves single weights out: choose magnitude, wanda, obs, snip, "
            f"taylor_weight, lamp, net_trim, grasp, movement, obd or random. (A function of your own is marked with "
            f"criterion(…, single=True) where it holds for rows that are single weights)"
        )


def single_weights(
    model: nn.Module,
    space: SearchSpace,
    scoring: ChosenCriterion,
    calibration: Calibration | None,
    rng: np.random.Generator,
    *,
    what: str,
) -> list[FloatArray]:
    """Score the units of all layers that have a density; the model is only read.

    Args:
        model: the network that was traced.
        space: of densities.
        scoring: the criterion, which holds for single weights.
        calibration: data, where it needs some.
        rng: for criteria that draw.
        what: who asks, for messages.

    Returns:
        Per group (units,) scores.

    Raises:
        ConfigError: there are no data, or the criterion fails.
        EvaluationError: no finite batch, a layer that is not seen, or scores that are not finite.
    """
    evidence = _Evidence(model, space, scoring.needs, calibration, what)
    found = []
    for group, density in space.sparse.values():
        with blame(ConfigError, f"{what} fails", then="Correct its settings or its code."), torch.no_grad():
            given = scoring(evidence.of(density), rng)
        whose = f"layer {density.group!r}"
        found.append((group, checked_scores(given, density.units, what=what, whose=whose, cause="weights")))
    return [scores for _, scores in sorted(found, key=lambda entry: entry[0])]


@final
class _Evidence:
    def __init__(
        self,
        model: nn.Module,
        space: SearchSpace,
        needs: frozenset[Need],
        calibration: Calibration | None,
        what: str,
    ) -> None:
        self._model, self._what = model, what
        names = tuple(space.sparse)
        self._products: dict[str, tuple[Tensor, Tensor]] | None = None
        self._squares: dict[str, Tensor] | None = None
        self._moments: dict[str, Moments] | None = None
        if "gradients" in needs:
            self._products = _products(model, names, check_data(needs, calibration, what=what), what)
        if "inputs" in needs:
            self._squares = _mean_squares(model, names, check_data(needs, calibration, what=what), what)
        if "moments" in needs:
            self._moments = _consumed(model, space, check_data(needs, calibration, what=what), what)

    def of(self, density: LayerDensity) -> GroupEvidence:
        """The evidence of one layer."""
        name = density.tensor
        weight = tensor_of(self._model, name).detach()

        def units(tensor: Tensor) -> Tensor:
            return units_of(density, tensor)

        rows = units(weight)
        given: dict[str, Any] = {"readers": (rows,)}
        if self._products is not None:
            one, square = (units(found) for found in self._products[name])
            nothing = torch.full((density.units,), torch.nan)  # of gates, which no criterion of single weights reads
            given["gradients"] = Gradients(nothing, nothing, (one,), (square,), nothing)
        if self._squares is not None:
            given["inputs"] = (units(self._seen(self._squares, name).to(weight.device)),)
        if self._moments is not None:
            moments = self._seen(self._moments, name)
            call = moments.consumer.call
            matrix = weight_matrix(call, weight).to(moments.second)
            place = torch.zeros(moments.mean.shape, dtype=torch.int64)
            given["moments"] = (InputMoments(matrix, moments.second, moments.mean, place, moments.count),)
            given["spread"] = lambda values: units(_spread(call, values, weight))
        return GroupEvidence(density.units, (rows,), (), layers=(density.group,), **given)

    def _seen(self, found: dict[str, Any], name: str) -> Any:
        if name not in found:
            raise EvaluationError(
                f"{self._what} looks at what {name!r} is multiplied with, and no call is seen that multiplies by it "
                f"alone: choose a criterion of weights or gradients, or exclude that layer"
            )
        return found[name]


def _spread(call: WeightCall, values: Tensor, weight: Tensor) -> Tensor:
    """In the shape of a weight, values of its elements: (groups, outputs, D), or (groups, D) of what they multiply."""
    if values.ndim == 2:
        values = values[:, None].expand(-1, weight_matrix(call, weight).shape[1], -1)
    return matrix_weight(call, values, weight)


def _products(
    model: nn.Module, names: Sequence[str], calibration: Calibration, what: str
) -> dict[str, tuple[Tensor, Tensor]]:
    """Name -> mean over batches of gradient times weight, and of its square."""
    copied = copy_network(model).to(calibration.device).eval().requires_grad_(True)
    weights = {name: tensor_of(copied, name) for name in names}
    sums = {name: torch.zeros(2, *w.shape, dtype=torch.float64, device=w.device) for name, w in weights.items()}

    def add(inputs: Any, targets: Any) -> bool:
        with torch.enable_grad():
            loss = calibration.loss(Batch(inputs).outputs(copied), targets, inputs)
            found = torch.autograd.grad(loss, list(weights.values()), allow_unused=True)
        slopes = [torch.zeros_like(w) if g is None else g for w, g in zip(weights.values(), found, strict=True)]
        if not finite((inputs, loss.detach(), slopes)):
            return False
        for (name, weight), slope in zip(weights.items(), slopes, strict=True):
            product = slope.double() * weight.detach()
            sums[name] += torch.stack([product, product.square()])
        return True

    batches = _batches(calibration, add, what)
    return {name: (total[0] / batches, total[1] / batches) for name, total in sums.items()}


def _mean_squares(model: nn.Module, names: Sequence[str], calibration: Calibration, what: str) -> dict[str, Tensor]:
    """Name -> in the shape of the weight, the mean square of what each element multiplies."""
    copied = copy_network(model).to(calibration.device).eval()
    seen = _Squares(copied, names)

    def add(inputs: Any, targets: Any) -> bool:
        seen.examples = next(number for _, _, number in on_device(Calibration([(inputs, targets)])))
        with seen:
            outputs = Batch(inputs).outputs(copied)
        return seen.take(keep=finite((inputs, outputs)))

    with torch.no_grad():
        _batches(calibration, add, what)
    return {
        name: _spread(call, seen.sums[name] / seen.counts[name], tensor_of(copied, name))
        for name, call in seen.calls.items()
    }


@final
class _Squares(WeightCalls):
    """Sums of squares of what weights multiply, at sampled positions."""

    def __init__(self, model: nn.Module, names: Sequence[str]) -> None:
        super().__init__(model, names)
        self.examples = 1
        self.calls: dict[str, WeightCall] = {}
        self.sums: dict[str, Tensor] = {}
        self.counts: dict[str, int] = {}
        self._staged: list[tuple[WeightCall, Tensor, int]] = []

    def called(self, call: WeightCall, run: Callable[[], Tensor]) -> Tensor:
        rows = input_rows(call, self.examples, positions=POSITIONS)
        self._staged.append((call.without_inputs(), rows.double().square().sum(dim=0), len(rows)))
        return run()

    def take(self, *, keep: bool) -> bool:
        """Add what the last batch gave, or forget it where it is not to be kept or not finite."""
        keep = keep and all(bool(squares.isfinite().all()) for _, squares, _ in self._staged)
        for call, squares, number in self._staged if keep else ():
            self.calls[call.name] = call
            self.sums[call.name] = self.sums.get(call.name, 0) + squares
            self.counts[call.name] = self.counts.get(call.name, 0) + number
        self._staged.clear()
        return keep


def _consumed(model: nn.Module, space: SearchSpace, calibration: Calibration, what: str) -> dict[str, Moments]:
    """Second moments of what each layer reads; raises EvaluationError where they are too many."""

    def wanted(consumer: Any) -> bool:
        if consumer.name not in space.sparse:
            return False
        groups, _, size = weight_matrix(consumer.call, tensor_of(model, consumer.name).detach()).shape
        if groups * size**2 > MOST_MOMENTS:
            raise EvaluationError(
                f"{what} needs moments, and those of the {size:,} inputs of {consumer.name!r} would take "
                f"{groups * size**2 * 8 / 2**30:.0f} GB: choose another criterion, or exclude that layer"
            )
        return True

    inputs = [given for given, _ in calibration.batches]
    return gather_moments(model, space, inputs, positions=POSITIONS, device=calibration.device, only=wanted)


def _batches(calibration: Calibration, add: Callable[[Any, Any], bool], what: str) -> int:
    """How many batches were finite; each is shown to `add`, which says whether it was."""
    kept, skipped = 0, 0
    with blame(ConfigError, f"{what} cannot run the network on calibration data", then="Give batches as it takes."):
        for inputs, targets, _ in on_device(calibration):
            with seeded(0):
                good = add(inputs, targets)
            kept, skipped = kept + good, skipped + (not good)
    if not kept:
        found = f"all {skipped} have values that are not finite" if skipped else "there are none"
        raise EvaluationError(f"{what} needs data, but of the calibration batches {found}: give it others")
    return kept
