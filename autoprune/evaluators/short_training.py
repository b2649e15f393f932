"""A short training from inherited weights before a network is judged.

DarwinLM (Tang et al. 2025, arXiv 2502.07780, section 3.2) trains offspring briefly before it selects, and Minitron
(Muralidharan et al. 2024, arXiv 2407.14679, section 3) finds that a short retraining settles how candidates rank.
"""

from __future__ import annotations

import json
import math
from pathlib import Path
from typing import final

from torch import nn

from autoprune.config.training import Recipe
from autoprune.errors import ConfigError, EvaluationError
from autoprune.evaluators.base import Evaluator, check_counts, check_flags
from autoprune.evaluators.candidates import CandidateFactory
from autoprune.evaluators.trained import distilled, train_and_score
from autoprune.files import read_json, write_whole
from autoprune.space.groups import Widths
from autoprune.tasks.score import Score
from autoprune.training.watch import Watch

_FILE = "learning_rate.json"
_SHARES = (1.0, 0.3, 0.1, 0.03, 0.01)
"""Of the recipe's learning rate, from which one is chosen."""
_RATIO = 0.5
"""Uniform widths of the network that it is chosen on."""


@final
class ShortTraining(Evaluator):
    """Let the weights inherit as the finals' do, train for some steps, score.

    Args:
        factory: what candidates are made from.
        steps: of the optimizer; None: whole epochs.
        epochs: over which the steps are spread, each reading other examples, or, where `steps` is None, whole passes
            over the data. After each the search may stop the training early.
        lr: learning rate; None: chosen once in a run, among shares from 1 to 1/100 of the recipe's, by what the same
            training of a network of half the widths ends with. Where a task has no recipe, it is the task's own.
        distil: learn from the base network, too.
        validation_limit: score on this many validation examples (None: all of them).
        keep_examples: see `Inherited`.

    Raises:
        ConfigError: a number out of range, or what the task cannot do: train, count steps, or distil.
    """

    kind = "training"

    def __init__(
        self,
        factory: CandidateFactory,
        *,
        steps: int | None = 100,
        epochs: int = 1,
        lr: float | None = None,
        distil: bool = False,
        validation_limit: int | None = None,
        keep_examples: bool = False,
    ) -> None:
        check_counts("short_training", least=1, steps=steps, epochs=epochs, validation_limit=validation_limit)
        check_flags("short_training", distil=distil, keep_examples=keep_examples)
        if lr is not None and not (isinstance(lr, int | float) and not isinstance(lr, bool) and 0 < lr < math.inf):
            raise ConfigError(f"evaluator 'short_training': lr must be a number above 0, got {lr!r}")
        if steps is not None and epochs > steps:
            raise ConfigError(
                f"evaluator 'short_training': {steps} steps cannot be spread over {epochs} epochs, each of which takes "
                f"at least one; set epochs to {steps} or less"
            )
        task = factory.task
        if not task.trains:
            raise ConfigError(f"evaluator 'short_training' trains networks, but {task.why_untrained}")
        if distil:
            task = distilled(task, "short_training")
        if steps is not None:
            recipe = task.recipe
            shorter = None if recipe is None else task.shortened(-(-steps // epochs) * _per_step(recipe))
            if shorter is None:
                raise ConfigError(
                    "evaluator 'short_training': this task trains in whole epochs only; set steps to null, and epochs"
                )
            task = shorter
        self._factory, self._task, self._epochs, self._lr = factory, task, epochs, lr
        self._limit, self._keep = validation_limit, keep_examples

    def prepare(self, directory: Path, *, seed: int) -> None:
        """Choose the learning rate, where none is given."""
        chosen, recipe, tried = self._lr, self._task.recipe, {}
        if chosen is None and recipe is not None:
            for lr in (share * recipe.lr for share in _SHARES):
                try:
                    tried[lr] = float(self._trained(self._factory.space.uniform(_RATIO), lr, seed=seed))
                except EvaluationError:  # it diverges at this rate
                    continue
            if not tried:
                raise EvaluationError(
                    f"evaluator 'short_training': a network of half the widths diverges at every learning rate from "
                    f"{_SHARES[-1] * recipe.lr:g} to {recipe.lr:g}; set training.lr or the evaluator's lr lower"
                )
            chosen = max(tried, key=lambda lr: tried[lr])
        found = {"lr": chosen, "tried": [[lr, score] for lr, score in tried.items()]}
        write_whole(directory / _FILE, json.dumps(found, indent=1).encode())

    def load(self, directory: Path) -> None:
        """Take in the learning rate."""
        self._lr = read_json(directory / _FILE)["lr"]

    def evaluate(self, widths: Widths, *, seed: int, full: bool = False, watch: Watch | None = None) -> Score:
        """See `Evaluator.evaluate`."""
        return self._trained(widths, self._lr, seed=seed, full=full, watch=watch)

    def _trained(
        self, widths: Widths, lr: float | None, *, seed: int, full: bool = False, watch: Watch | None = None
    ) -> Score:
        scores: list[Score] = []

        def score(trained: nn.Module) -> float:
            limit = None if full else self._limit
            scores.append(self._factory.task.scored(trained, limit=limit, examples=self._keep))
            return float(scores[-1])

        cut = self._factory.heirs("training").cut(widths)
        train_and_score(
            self._task,
            cut.network,
            score,
            epochs=self._epochs,
            seed=seed,
            lr=lr,
            watch=watch,
            scores_epochs=True,
            teacher=self._factory.model,
            cut=cut,
        )
        return scores[-1]


def _per_step(recipe: Recipe) -> int:
    return recipe.batch_size * recipe.accumulate_batches
