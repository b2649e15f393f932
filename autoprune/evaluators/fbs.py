"""Channels that each example chooses, at equal cost: Gao et al. 2019, FBS, arXiv 1810.05331."""

from __future__ import annotations

import math
from collections.abc import Callable
from typing import final

from torch import nn

from autoprune.errors import ConfigError
from autoprune.evaluators.base import Evaluator, check_counts, check_flags
from autoprune.evaluators.boosted import BoostedNetwork, put_back, readings
from autoprune.evaluators.candidates import CandidateFactory
from autoprune.evaluators.trained import train_and_score
from autoprune.space.copying import copy_network
from autoprune.space.groups import Widths
from autoprune.tasks.score import Score
from autoprune.training.watch import Watch


@final
class FeatureBoosting(Evaluator):
    """What widths are worth if every example may choose its channels: a bound for static choices, which are among them.

    The network keeps all channels; for each example the most salient ones of every group are there, as many as the
    widths say, and all others are 0. So each example takes the multiply-adds of the cut network, not counting those
    that predict saliencies (inputs x channels for each group). Predictors and weights are trained together, from what
    the cut network inherits; channels that it lacks begin as they are in the base network. In contrast to the paper,
    predictors stand beside batch norms and do not replace their factors, and channels of a residual sum are chosen
    once, by the inputs of the first layer that writes them.

    Scores are those of dynamic networks; what is trained at the end, compared and exported are static ones. A short
    training need not reach the bound: it has more to learn than that of a static network.

    Args:
        factory: what candidates are made from.
        epochs: passes over the data.
        lr_share: learning rate, as a share of the recipe's.
        sparsity: λ, weight of the mean L1 norm of saliencies; the paper's 1e-8.
        validation_limit: score on this many validation examples (None: all of them).
        keep_examples: see `Inherited`.

    Raises:
        ConfigError: a number out of range, a task that does not train by a recipe, or what cannot be chosen for each
            example: heads, blocks, tied channels, networks that run as graphs.
    """

    kind = "training"

    def __init__(
        self,
        factory: CandidateFactory,
        *,
        epochs: int = 1,
        lr_share: float = 0.1,
        sparsity: float = 1e-8,
        validation_limit: int | None = None,
        keep_examples: bool = False,
    ) -> None:
        check_counts("fbs", least=1, epochs=epochs, validation_limit=validation_limit)
        check_flags("fbs", keep_examples=keep_examples)
        _check("lr_share", lr_share, "above 0", lambda value: value > 0)
        _check("sparsity", sparsity, "of at least 0", lambda value: value >= 0)
        if factory.task.recipe is None:
            raise ConfigError("evaluator 'fbs' trains gates by a recipe, and this task trains in a way of its own")
        readings(factory.model, factory.space)
        self._factory, self._epochs, self._lr = factory, epochs, lr_share * factory.task.recipe.lr
        self._sparsity, self._limit, self._keep = sparsity, validation_limit, keep_examples

    def boosted(self, widths: Widths) -> BoostedNetwork:
        """The dynamic network of these widths, before its training: it computes what the cut one does."""
        made = self._factory
        network = copy_network(made.model)
        put_back(made.heirs("training").cut(widths), network)
        return BoostedNetwork(network, made.space, widths, made.ranking, sparsity=self._sparsity).to(made.task.device)

    def evaluate(self, widths: Widths, *, seed: int, full: bool = False, watch: Watch | None = None) -> Score:
        """See `Evaluator.evaluate`."""
        task, network = self._factory.task, self.boosted(widths)
        scores: list[Score] = []

        def score(trained: nn.Module) -> float:
            scores.append(task.scored(trained, limit=None if full else self._limit, examples=self._keep))
            return float(scores[-1])

        train_and_score(
            task,
            network,
            score,
            epochs=self._epochs,
            seed=seed,
            lr=self._lr,
            watch=watch,
            scores_epochs=True,
            teacher=self._factory.model,
        )
        return scores[-1]


def _check(setting: str, given: object, wanted: str, holds: Callable[[float], bool]) -> None:
    number = isinstance(given, int | float) and not isinstance(given, bool) and math.isfinite(given)
    if not number or not holds(given):  # type: ignore[arg-type]
        raise ConfigError(f"evaluator 'fbs': {setting} must be a number {wanted}, got {given!r}")
