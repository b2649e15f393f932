"""The interface of sparsity trainings."""

from __future__ import annotations

import copy
import math
from abc import ABC, abstractmethod
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from functools import cached_property
from typing import Any, ClassVar, final

import torch
from torch import Tensor, nn

from autoprune.allocation.parts.path import kept_counts, repaired, widest_inside
from autoprune.config.parts import ChosenPart, NamedPart
from autoprune.config.settings import bind
from autoprune.config.training import Recipe
from autoprune.cost.budget.repair import BudgetedSpace
from autoprune.data.batch import Batch
from autoprune.errors import ConfigError, blame
from autoprune.space.copying import copy_network
from autoprune.space.groups import FloatArray, SearchSpace, Widths
from autoprune.sparsity import SPARSITY
from autoprune.sparsity.channels import GroupChannels, weights_of
from autoprune.sparsity.gates import GatedNetwork, inner
from autoprune.training.objectives.base import Objective
from autoprune.training.objectives.cross_entropy import CrossEntropy
from autoprune.training.objectives.distillation import Distillation
from autoprune.training.schedules.base import learning_rate
from autoprune.training.terms.base import Term


@final
@dataclass(frozen=True, eq=False)
class Subject:
    """What a sparsity training works on.

    Attributes:
        network: a copy of the base network, in the form of the space, on the device; trained in place.
        space: its space.
        target: uniform widths on the budget.
        recipe: of this training.
        seed: of all randomness.
        batches: (how many) -> training examples on the device.
        examples: how many there are for training.
        loss: (outputs, targets) -> mean loss; None where the task has none that can be called.
        goal: what the task trains for, made anew.
        taught: the same, learning from the base network, too.
    """

    network: nn.Module
    space: SearchSpace
    target: Widths
    recipe: Recipe
    seed: int
    batches: Callable[[int], list[Batch]]
    examples: int = 1
    loss: Callable[[Any, Any], Tensor] | None = None
    goal: Callable[[], Objective] = CrossEntropy
    taught: Callable[[], Objective] = Distillation

    def __deepcopy__(self, memo: dict[int, Any]) -> Subject:
        """With a network of its own, and what belongs to the task, from which data hang, as it is."""
        shared = ("batches", "loss", "goal", "taught")
        copied = object.__new__(Subject)
        memo[id(self)] = copied
        memo.setdefault(id(self.network), copy_network(self.network))
        for name, value in vars(self).items():
            vars(copied)[name] = value if name in shared else copy.deepcopy(value, memo)
        return copied

    @cached_property
    def channels(self) -> GroupChannels:
        """Where the channels lie."""
        return GroupChannels(self.network, self.space)

    @cached_property
    def lr(self) -> Callable[[float], float]:
        """Share of the training that is over -> learning rate."""
        return learning_rate(self.recipe)


class SparsityTraining(Term, ABC):
    """A training that finds widths: a term of the loop, from whose end the importance of each channel is read.

    It is made anew for each training, as `Part(**settings)`, and called in this order: `recipe`, `set_up`, `objective`,
    the steps as those of every `Term`, `scores`, `settle`. `widths` is asked of another one, that was not set up.

    Attributes:
        inherits: whether the network that is compared goes on from the weights that this training left, where the job
            does not say; else only the widths are taken.
        subject: what it works on, from `set_up` on.
    """

    inherits: ClassVar[bool] = False
    subject: Subject

    def recipe(self, recipe: Recipe) -> Recipe:
        """The recipe of this training, given that of the job over its epochs."""
        return recipe

    def set_up(self, subject: Subject) -> nn.Module:
        """The network that is trained: that of the subject, or one with gates around it.

        Raises:
            ConfigError: the method can do nothing with it.
        """
        self.subject = subject
        return subject.network

    def objective(self) -> Objective | None:
        """What is trained for in place of the recipe's objective; None: that."""
        return None

    @abstractmethod
    def scores(self, model: nn.Module) -> Tensor:
        """(number of channels,) importances, at least 0, that compare between groups.

        Args:
            model: as `set_up` gave it, trained; only read.
        """

    def block_scores(self, model: nn.Module) -> dict[int, float]:
        """Index of the group of a block -> its importance, on the scale of those of channels; others stay.

        Args:
            model: as for `scores`.
        """
        return {}

    def settle(self, model: nn.Module) -> nn.Module:
        """The network in its own form, as its cut may inherit from it; gates become part of the weights."""
        return model.settle() if isinstance(model, GatedNetwork) else model

    def widths(self, domain: BudgetedSpace, scores: Sequence[FloatArray]) -> Widths:
        """The widths on the budget: those of the lowest threshold for all channels that keeps it, repaired.

        Args:
            domain: the space under its budget.
            scores: per group, (width,) importances.
        """
        return widest_inside(domain, kept_counts(list(scores)))

    def passes(self, epochs: int) -> float:
        """What the training costs, in passes over the training data."""
        return float(epochs)


def counted(domain: BudgetedSpace, scores: Sequence[FloatArray], least: float) -> Widths:
    """The widths of all channels that score above a threshold of the method's own, repaired onto the budget."""
    kept = [max(int((s > least).sum()), low) for s, low in zip(scores, domain.space.smallest, strict=True)]
    return repaired(domain, kept)


def make_sparsity(chosen: ChosenPart) -> SparsityTraining:
    """Build a sparsity training.

    Raises:
        RegistryError: there is none of this name.
        ConfigError: a setting that it does not have or of a wrong value, or something else than a `SparsityTraining`.
    """
    options = NamedPart.of(chosen, "sparsity.methods")
    part, what = bind(SPARSITY, options.name, options.settings), f"sparsity training {options.label!r}"
    with blame(ConfigError, f"{what} cannot be made", then="Correct its settings or its code."):
        made = part()
    if not isinstance(made, SparsityTraining):
        raise ConfigError(f"{what} is a {type(made).__name__}: derive it from SparsityTraining")
    return made


def check_number(
    method: str, setting: str, value: object, *, least: float = 0.0, most: float = math.inf, whole: bool = False
) -> None:
    """Check a setting: a finite number inside closed bounds, above 0 where `least` is 0.

    Raises:
        ConfigError: it is none.
    """
    number = isinstance(value, int if whole else int | float) and not isinstance(value, bool)
    if not number or not least <= value <= most or value == math.inf or (not least and not value):  # type: ignore[operator]
        kind = "a whole number" if whole else "a finite number"
        low = f"of at least {least:g}" if least else "above 0"
        high = f" and at most {most:g}" if most < math.inf else ""
        raise ConfigError(f"sparsity training {method!r}: {setting} must be {kind} {low}{high}, got {value!r}")


def check_nothing_frozen(method: str, subject: Subject) -> None:
    """Check that all weights are trained, for a method that moves them itself.

    Raises:
        ConfigError: the recipe freezes some.
    """
    frozen = subject.recipe.freeze
    if frozen:
        twice = {f"network.{name}" for name in frozen}  # as gates around the network need them
        said = [name for name in frozen if name not in twice]
        raise ConfigError(
            f"sparsity training {method!r} moves weights beside their training, and training.freeze keeps "
            f"{', '.join(said)}; leave freeze out, or choose one that trains gates: sss, bar"
        )


def parameters(model: nn.Module) -> dict[str, Tensor]:
    """The parameters of the network by its own names, also where gates are around it."""
    return weights_of(inner(model))


def scale_magnitudes(channels: GroupChannels, weights: dict[str, Tensor], method: str) -> Tensor:
    """(number,) sum of |gamma| over the batch norms of each channel, as `bn_scale` ranks.

    Channels that no norm scales are ranked by the L2 norm of what writes them, and stand at the same quantiles as all
    others, so that one threshold cuts the same share of them.

    Raises:
        ConfigError: no batch norm scales any channel.
    """
    with torch.no_grad():
        scales = channels.sums({axis.name: weights[axis.name].abs() for axis in channels.scales}, channels.scales)
        without = channels.without_scale
        if bool(without.all()):
            raise ConfigError(
                f"sparsity training {method!r}: no batch norm scales a channel of this network; choose one that needs "
                f"none: sss, bar, group_lasso"
            )
        known = scales[~without].double().sort().values
        norms = channels.norms(weights, channels.written)
        for part in channels.parts:
            inside = without[part]
            if bool(inside.any()):
                ranks = norms[part].argsort(stable=True).argsort(stable=True).double()
                at = torch.quantile(known, (ranks + 0.5) / len(ranks)).to(scales.dtype)
                scales[part] = torch.where(inside, at, scales[part])
    return scales
