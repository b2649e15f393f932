"""From a network and a measure to a score with its noise: the one place where values become scores."""

from __future__ import annotations

from collections import deque
from collections.abc import Callable, Iterable
from typing import Any, final

import torch
import torch.nn.functional as F
from torch import Tensor, nn
from torch.utils import _pytree as pytree

from autoprune.data.batch import Batch
from autoprune.errors import EvaluationError, blame, is_out_of_memory
from autoprune.measures.base import Measure, Values
from autoprune.randomness import seeded
from autoprune.tasks.score import Score
from autoprune.training.scores import checked_score, scored_copy

BATCH = 512
"""Examples per forward pass where scores are taken."""

KEPT_BYTES = 256 * 2**20
"""So much of the base network's outputs is kept; what is beyond is computed again for each network."""


def outputs_of(network: nn.Module, batch: Batch) -> Any:
    """What a network gives for a batch."""
    return batch.outputs(network)


@final
class BaseOutputs:
    """What the base network returns for batches, computed once as far as memory allows; it travels without what it has.

    Args:
        model: the base network; a copy of it runs, in eval mode.
        kept_bytes: see `KEPT_BYTES`.
    """

    def __init__(self, model: nn.Module, *, kept_bytes: int = KEPT_BYTES) -> None:
        self.model, self._limit = model, kept_bytes
        self._network: nn.Module | None = None
        self._kept: dict[tuple[str, int, int], object] = {}
        self._bytes = 0

    def __getstate__(self) -> dict[str, object]:
        return {**self.__dict__, "_network": None, "_kept": {}, "_bytes": 0}

    def outputs(self, split: str, number: int, batch: Batch, device: torch.device) -> object:
        """For one batch, on `device`; the same numbers whether they were kept or not.

        Args:
            split: whose batch it is.
            number: of its first example in the split; with its size it says which one it is.
            batch: as read.
            device: where networks run.
        """
        key = (split, number, len(batch))
        if key not in self._kept:
            if self._network is None:
                self._network = scored_copy(self.model, device)
            # what it draws must not depend on whether others were kept
            with seeded(0), torch.inference_mode(False), torch.no_grad():
                found = batch.to(device).outputs(self._network)
            size = sum(leaf.nbytes for leaf in pytree.tree_leaves(found) if isinstance(leaf, Tensor))
            if self._bytes + size > self._limit:
                return found
            self._bytes += size
            self._kept[key] = _on(found, torch.device("cpu"))
        return _on(self._kept[key], device)


def scored_by(
    measure: Measure,
    model: nn.Module,
    batches: Iterable[Batch],
    *,
    split: str,
    device: torch.device,
    base: BaseOutputs | None = None,
    examples: bool = False,
) -> Score:
    """Return the score of a network, higher is better.

    A copy of the model runs, in eval mode on `device`: what `forward` itself writes down is not kept.

    Args:
        measure: what counts.
        model: the network; only read.
        batches: to be scored on, in their order.
        split: whose batches they are.
        device: where.
        base: of the base network, where the measure compares with it.
        examples: also keep the values of single examples.

    Raises:
        EvaluationError: weights, outputs or values that are no usable numbers, or outputs that the measure cannot take.
    """
    if measure.needs_base and base is None:
        raise EvaluationError(
            f"the measure {measure.name!r} compares with a base network, and here is none: score by the task of a "
            f"candidate factory, or by task.compared_with(base)"
        )
    network = scored_copy(model, device)
    values = values_of(measure, network, batches, split=split, device=device, base=base)
    return score_of(measure, values, examples=examples)


def score_of(measure: Measure, values: Values, *, examples: bool = False) -> Score:
    """The score that values make, higher is better: the measure's sign is turned here and nowhere else.

    Args:
        measure: whose values they are.
        values: one for each example.
        examples: keep them, unless the measure is `wide`.

    Raises:
        EvaluationError: no score that the measure can have.
    """
    with blame(EvaluationError, f"measure {measure.name!r} fails on the values of all examples"):
        value, error = measure.combine(values)
    score = checked_score(measure.scale.turned(value), measure.score_range, what=f"measure {measure.name!r}")
    return Score(score, error, examples=turned(measure, values) if examples and not measure.wide else None)


def turned(measure: Measure, values: Values) -> Values:
    """Values of which higher is better; truth values stay what they are where that is so."""
    scale = measure.scale
    kept: Values = scale.turned(values if scale.higher_is_better or values.dtype.kind != "b" else 100.0 * values)
    return kept


def values_of(
    measure: Measure,
    network: nn.Module,
    batches: Iterable[Batch],
    *,
    split: str,
    device: torch.device,
    base: BaseOutputs | None = None,
    first: int = 0,
    run: Callable[[nn.Module, Batch], Any] = outputs_of,
) -> Values:
    """One value, or row, for each example, on the CPU.

    Where memory does not suffice for a batch, it and all others are halved.

    Args:
        measure: what counts.
        network: runs as it is: on the device, in eval mode, weights that are finite.
        batches: of the examples, in their order.
        split: whose they are.
        device: where.
        base: of the base network, where the measure compares with it.
        first: number of the first of these examples in the split.
        run: gives the outputs of the network for a batch on the device.

    Raises:
        EvaluationError: outputs or values that are no usable numbers, or outputs that the measure cannot take.
    """
    found: list[Tensor] = []
    sound: list[Tensor] = []
    most = None
    with seeded(0), torch.no_grad():
        for batch in batches:
            waiting = deque(batch.split(most or len(batch)))
            while waiting:
                part = waiting[0]
                too_large = None
                try:
                    reference = base.outputs(split, first, part, device) if base and measure.needs_base else None
                    values, fine = _of_part(measure, run(network, part.to(device)), part, reference)
                except (RuntimeError, MemoryError, EvaluationError) as error:
                    if len(part) < 2 or not is_out_of_memory(error):
                        raise
                    too_large = len(part)
                if too_large is not None:  # beyond `except`, whose traceback holds what filled the memory
                    most = (too_large + 1) // 2
                    waiting = deque(half for one in waiting for half in one.split(most))
                    _empty_cache(device)
                    continue
                waiting.popleft()
                first += len(part)
                found.append(values)
                sound.append(fine)
    finite = torch.cat(sound)
    broken = (~finite).nonzero()  # looked at once: a GPU is not waited for after each batch
    if len(broken):
        raise EvaluationError(
            f"the network's outputs are NaN or infinite for {len(broken)} of {len(finite)} examples, first for example "
            f"{int(broken[0])} as read; its weights and these inputs are finite: its forward overflows or divides by 0"
        )
    if measure.wide:
        widest = max(values.shape[1] for values in found)
        found = [F.pad(values, (0, widest - values.shape[1])) for values in found]
    return torch.cat(found).cpu().numpy()


def _of_part(measure: Measure, outputs: Any, batch: Batch, reference: object) -> tuple[Tensor, Tensor]:
    """(N,) values, and whether outputs and value are usable numbers."""
    with blame(EvaluationError, f"measure {measure.name!r} fails", then="Correct its settings or its code."):
        values = measure.values(outputs, batch, reference)
    if values.shape[:1] != (len(batch),) or values.ndim != 1 + measure.wide:
        raise EvaluationError(
            f"measure {measure.name!r} gave values of shape {tuple(values.shape)} for {len(batch)} examples; it must "
            f"give one {'row ' if measure.wide else ''}for each"
        )
    fine = measure.sound(outputs, len(batch)).to(values.device)
    finite = values.isfinite().all(1) if measure.wide else values.isfinite()
    return values, fine & finite if values.is_floating_point() else fine


def _empty_cache(device: torch.device) -> None:
    if device.type == "cuda":
        torch.cuda.empty_cache()


def _on(outputs: object, device: torch.device) -> object:
    return pytree.tree_map_only(Tensor, lambda tensor: tensor.to(device), outputs)
