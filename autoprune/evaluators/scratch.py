"""Short training from scratch: the widths are judged without the inherited weights (Liu et al., ICLR 2019)."""

from __future__ import annotations

from typing import final

from torch import nn

from autoprune.evaluators.base import Evaluator, check_counts, check_flags
from autoprune.evaluators.candidates import CandidateFactory
from autoprune.evaluators.trained import distilled, train_and_score
from autoprune.space.groups import Widths
from autoprune.tasks.score import Score
from autoprune.training.protocols import reinitialise
from autoprune.training.watch import Watch


@final
class Scratch(Evaluator):
    """Build the network at these widths, initialise it anew, train it for some epochs, score it.

    Args:
        factory: what candidates are made from.
        epochs: length of each training; the learning-rate schedule is compressed to it.
        distil: learn from the base network, too.
        validation_limit: score on this many validation examples (None: all of them).
        keep_examples: see `Inherited`.
    """

    kind = "training"

    def __init__(
        self,
        factory: CandidateFactory,
        *,
        epochs: int = 10,
        distil: bool = False,
        validation_limit: int | None = None,
        keep_examples: bool = False,
    ) -> None:
        check_counts("scratch", least=1, epochs=epochs, validation_limit=validation_limit)
        check_flags("scratch", distil=distil, keep_examples=keep_examples)
        self._factory = factory
        self._task = distilled(factory.task, "scratch") if distil else factory.task
        self._epochs = epochs
        self._limit, self._keep = validation_limit, keep_examples

    def evaluate(self, widths: Widths, *, seed: int, full: bool = False, watch: Watch | None = None) -> Score:
        """See `Evaluator.evaluate`."""
        cut, task = self._factory.cut(widths), self._task
        network = cut.network

        scores: list[Score] = []

        def score(trained: nn.Module) -> float:
            scores.append(task.scored(trained, limit=None if full else self._limit, examples=self._keep))
            return float(scores[-1])

        reinitialise(network, seed=seed)
        teacher = self._factory.model
        train_and_score(
            task,
            network,
            score,
            epochs=self._epochs,
            seed=seed,
            watch=watch,
            scores_epochs=True,
            teacher=teacher,
            cut=cut,
        )
        return scores[-1]
