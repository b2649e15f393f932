"""Scoring many networks on the same examples: they lie on the device, laid out as the networks read them."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from typing import Any, TypeGuard, final

import torch
from torch import Tensor, nn
from torch.utils import _pytree as pytree

from autoprune.data.batch import Batch
from autoprune.errors import EvaluationError, is_interrupted, is_out_of_memory
from autoprune.evaluators.scoring_form import PLAIN, ScoringForm
from autoprune.measures.base import Values
from autoprune.space.groups import SearchSpace, Widths
from autoprune.statistics.folding import Fold, foldable
from autoprune.tasks.base import Task
from autoprune.tasks.measured import MeasuredTask
from autoprune.training.integrity import check_finite
from autoprune.training.scores import LOWER

KEPT_BYTES = {"cpu": 128 * 2**20}
"""So much of the validation data stays on a device; what is beyond is read again for each network. In main memory it is
little, as many workers may share that, and a job may limit it."""

_KEPT_ELSEWHERE = 2**30


def scores_by_measure(task: Task) -> TypeGuard[MeasuredTask]:
    """Whether the scores of a task are those of its measure on its examples, and nothing else."""
    return isinstance(task, MeasuredTask) and type(task).scored is MeasuredTask.scored


@final
class ResidentScorer:
    """Values of networks on validation examples.

    Args:
        task: has the data and the measure.
        space: of the networks.
        form: in which they run.
        kept_bytes: None: see `KEPT_BYTES`.
    """

    def __init__(
        self, task: MeasuredTask, space: SearchSpace, form: ScoringForm = PLAIN, *, kept_bytes: int | None = None
    ) -> None:
        self._task, self._space, self.form = task, space, form
        usual = KEPT_BYTES.get(task.device.type, _KEPT_ELSEWHERE)
        self._room = usual if kept_bytes is None else kept_bytes
        self._kept: list[Batch] = []
        self._whole = False
        self._folds: dict[tuple[str, ...], tuple[Fold, ...]] = {}

    def values(self, network: nn.Module, widths: Widths, *, start: int = 0, stop: int | None = None) -> Values:
        """(stop - start,) one value for each example from `start` on, in the sign of the measure.

        Args:
            network: of these widths, on the device; its own, as it may be laid out anew.
            widths: member of the space.
            start: number of the first example.
            stop: number of the one after the last; None: all that there are.

        Raises:
            EvaluationError: weights, outputs or values that are no usable numbers.
        """
        check_finite(network, what="a network to be scored", kind=EvaluationError, then=LOWER)
        network.eval()
        try:
            run = self.form.running(network, self._foldable(network, widths))
            return self._values(network, start, stop, run)
        except Exception as error:
            if is_interrupted(error) or is_out_of_memory(error) or self.form == PLAIN:
                raise
        network.to(memory_format=torch.contiguous_format)  # type: ignore[call-overload]  # torch's stubs lack it
        return self._values(network, start, stop, PLAIN.running(network, ()))

    def _values(
        self, network: nn.Module, start: int, stop: int | None, run: Callable[[nn.Module, Batch], Any]
    ) -> Values:
        return self._task.values(network, self._pieces(start, stop), first=start, run=run)

    def _foldable(self, network: nn.Module, widths: Widths) -> tuple[Fold, ...]:
        """What can be folded; looked up once for each set of blocks that are left out."""
        if not self.form.folded:
            return ()
        gone = tuple(block.name for block in self._space.left_out(widths))
        if gone not in self._folds:
            self._folds[gone] = foldable(network, next(self._pieces(0, 2)).inputs)
        return self._folds[gone]

    def _pieces(self, start: int, stop: int | None) -> Iterator[Batch]:
        """The examples from one on, up to another, in pieces of the form."""
        place = 0
        for batch in self._batches():
            end = place + len(batch) if stop is None else min(place + len(batch), stop)
            if end > start:
                whole = place >= start and end - place == len(batch)
                yield from (batch if whole else batch.part(max(start - place, 0), end - place)).split(self.form.piece)
            place = end
            if place == stop:
                return

    def _batches(self) -> Iterator[Batch]:
        """Those of the task, on the device; kept as far as there is room."""
        yield from self._kept
        if self._whole:
            return
        number = -1
        for number, batch in enumerate(self._task.scored_batches("validation", None)):
            if number < len(self._kept):
                continue
            laid_out = self.form.laid_out(batch.to(self._task.device))
            if number == len(self._kept):
                size = sum(leaf.nbytes for leaf in pytree.tree_leaves(laid_out.inputs) if isinstance(leaf, Tensor))
                if size <= self._room:
                    self._kept.append(laid_out)
                    self._room -= size
            yield laid_out
        self._whole = number + 1 == len(self._kept)
