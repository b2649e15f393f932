"""Shared weights that were trained for all widths: Yu and Huang, AutoSlim, 2019, arXiv 1903.11728, section 3."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path
from typing import Any, Literal, final

import numpy as np
import torch
from safetensors.torch import load_file, save_file
from torch import nn

from autoprune.errors import ConfigError, EvaluationError
from autoprune.evaluators.base import Evaluator, check_counts, check_flags
from autoprune.evaluators.candidates import CandidateFactory
from autoprune.evaluators.sandwich import SharedWeights
from autoprune.inherit.bn_recalibration import CALIBRATION_BATCHES
from autoprune.space.copying import copy_network
from autoprune.space.cutting.slicing import Ranking
from autoprune.space.groups import Widths
from autoprune.tasks.score import Score
from autoprune.training.protocols import reinitialise
from autoprune.training.watch import Watch

_FILE = "supernet.safetensors"
_SIDES, _WEIGHTS = ("left", "both"), ("inherited", "fresh")


@final
class Supernet(Evaluator):
    """Train one network for all widths, once; a candidate is a slice of it with recalibrated norms.

    The training is the task's own, with the sandwich rule and in-place distillation beside it (see `sandwich`). What it
    gives is kept in the run and serves every budget.

    Args:
        factory: what candidates are made from.
        epochs: of the one training; the learning-rate schedule is compressed to it.
        lr_share: learning rate, as a share of the task's own; None: a tenth from inherited weights, as in fine-tuning,
            and all of it from fresh ones.
        weights: what the training starts from, "inherited" or "fresh".
        sides: "left": candidates keep the channels that rank first. "both": also those that rank last, and a score is
            the mean of the two, so that every channel is trained as often (BCNet: Su et al. 2021, arXiv 2105.10533,
            section 3.1).
        narrowest: ratio of width below which nothing is trained; as in AutoSlim 0.15, or what the space allows.
        drawn: networks of random widths in each step, beside the full and the narrowest one.
        calibration_batches: on how many batches norms are recalibrated.
        validation_limit: score on this many validation examples (None: all of them).
        keep_examples: see `Inherited`; only with one side.

    Raises:
        ConfigError: a number out of range, or a task that cannot train.
    """

    def __init__(
        self,
        factory: CandidateFactory,
        *,
        epochs: int = 10,
        lr_share: float | None = None,
        weights: Literal["inherited", "fresh"] = "inherited",
        sides: Literal["left", "both"] = "left",
        narrowest: float = 0.15,
        drawn: int = 2,
        calibration_batches: int = CALIBRATION_BATCHES,
        validation_limit: int | None = None,
        keep_examples: bool = False,
    ) -> None:
        if factory.space.densities or factory.space.factors or factory.space.bits or factory.space.resolution:
            raise ConfigError(
                "evaluator 'supernet' trains narrower networks within one, and a space of densities, ranks, bits or "
                "resolutions has none; choose inherited or short_training"
            )
        check_counts("supernet", least=1, epochs=epochs, validation_limit=validation_limit)
        check_flags("supernet", keep_examples=keep_examples)
        check_counts("supernet", least=0, drawn=drawn, calibration_batches=calibration_batches)
        _check_choice("sides", sides, _SIDES)
        _check_choice("weights", weights, _WEIGHTS)
        for name, value, most in (("lr_share", lr_share, 1e6), ("narrowest", narrowest, 1.0)):
            number = isinstance(value, int | float) and not isinstance(value, bool) and 0 < value <= most
            if not (number or (name == "lr_share" and value is None)):
                raise ConfigError(
                    f"evaluator 'supernet': {name} must be a number above 0 and at most {most:g}, got {value!r}"
                )
        if not factory.task.trains:
            raise ConfigError(f"evaluator 'supernet' trains networks, but {factory.task.why_untrained}")
        self._given, self._epochs, self._fresh = factory, epochs, weights == "fresh"
        self._lr_share = lr_share if lr_share is not None else 1.0 if self._fresh else 0.1
        rankings = (factory.ranking, reverse(factory.ranking))[: 2 if sides == "both" else 1]
        smallest = factory.space.uniform(narrowest)
        self._shared = SharedWeights(factory.space, rankings, smallest, drawn)
        self._batches, self._limit = calibration_batches, validation_limit
        self._keep = keep_examples and sides == "left"
        self._factories: list[CandidateFactory] = []

    def prepare(self, directory: Path, *, seed: int) -> None:
        """Train the shared weights and write them to `directory`."""
        task, network = self._given.task, copy_network(self._given.model)
        if self._fresh:
            reinitialise(network, seed=seed)
        network.to(task.device)
        recipe = task.recipe
        lr = None if recipe is None or self._lr_share == 1 else self._lr_share * recipe.lr
        taught: dict[str, Any] = {"teacher": self._given.model} if task.needs_teacher else {}
        with self._shared.trained_with(network):
            task.train(network, epochs=self._epochs, seed=seed, lr=lr, **taught)
        save_file({name: t.contiguous().cpu() for name, t in _tensors(network).items()}, directory / _FILE)

    def load(self, directory: Path) -> None:
        """Take in the shared weights."""
        network, read = copy_network(self._given.model), load_file(directory / _FILE)
        with torch.no_grad():
            for name, tensor in _tensors(network).items():
                tensor.copy_(read[name])
        chain = ({"name": "bn_recalibration", "settings": {"batches": self._batches}},) if self._batches else ()
        self._factories = [
            replace(self._given, model=network.eval(), ranking=ranking, inherit=chain, final_inherit=None)
            for ranking in self._shared.rankings
        ]

    def evaluate(self, widths: Widths, *, seed: int, full: bool = False, watch: Watch | None = None) -> Score:
        """See `Evaluator.evaluate`; the seed changes nothing, as nothing is random.

        Raises:
            EvaluationError: the shared weights were never loaded.
        """
        if not self._factories:
            raise EvaluationError(
                "evaluator 'supernet' has no weights yet: call prepare and load, as a run does, first"
            )
        limit = None if full else self._limit
        scores = [
            self._given.task.scored(factory.heirs("search")(widths), limit=limit, examples=self._keep)
            for factory in self._factories
        ]
        if len(scores) == 1:
            return scores[0]
        return Score(float(np.mean([float(score) for score in scores])))


def reverse(ranking: Ranking) -> Ranking:
    """The channels that rank last first."""
    return tuple(rank.max() - rank for rank in ranking)


def _tensors(network: nn.Module) -> dict[str, torch.Tensor]:
    """Name -> parameter or buffer, each once."""
    return {**dict(network.named_parameters()), **dict(network.named_buffers())}


def _check_choice(name: str, given: object, allowed: tuple[str, ...]) -> None:
    if given not in allowed:
        raise ConfigError(f"evaluator 'supernet': {name} must be one of {', '.join(allowed)}, got {given!r}")
