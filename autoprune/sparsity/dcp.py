"""Discrimination-aware channel pruning: Zhuang et al. NeurIPS 2018, arXiv 1810.11809."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from typing import Any, ClassVar, final

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from autoprune.config.parts import NamedPart
from autoprune.cost.budget.repair import BudgetedSpace
from autoprune.data.batch import Batch
from autoprune.errors import ConfigError
from autoprune.importance.evidence import Calibration
from autoprune.importance.members import channel_scores
from autoprune.space.copying import copy_network
from autoprune.space.groups import FloatArray, Widths
from autoprune.sparsity.base import SparsityTraining, Subject, check_number
from autoprune.sparsity.targets import target_widths
from autoprune.training.objectives.answers import Answers
from autoprune.training.objectives.base import Objective
from autoprune.training.objectives.features import observed, stage_ends
from autoprune.training.state import on_cpu

_ROUNDS, _STEPS, _EXAMPLES = 4, 1, 128


@final
class DiscriminationAware(SparsityTraining):
    """Losses at the ends of stages make what is inside tell classes apart; then channels are taken up greedily.

    The loss of the training is that of the task plus Σ_p weight · L_S^p, a classifier on AvgPool(ReLU(features)) at
    each of P places (section 3.2). Afterwards the criterion `dcp` takes channels up by the gradients of the
    reconstruction and the loss. Widths are uniform, as the paper has
    one rate for all layers; the rule `dcp_adapt` stops each layer by itself.

    Args:
        weight: of each loss inside; λ, 1 in the paper.
        places: P, at most so many.
    """

    inherits: ClassVar[bool] = True

    def __init__(self, *, weight: float = 1.0, places: int = 3) -> None:
        check_number("dcp", "weight", weight)
        check_number("dcp", "places", places, least=1, whole=True)
        self._weight, self._places = weight, places

    def objective(self) -> Objective:
        """See `SparsityTraining.objective`."""
        return InnerLosses(self.subject.goal(), self._weight, self._places)

    def scores(self, model: nn.Module) -> Tensor:
        """See `SparsityTraining.scores`."""
        subject, channels = self.subject, self.subject.channels
        examples = [(batch.inputs, batch.targets) for batch in subject.batches(4)]
        chosen = NamedPart(name="dcp", settings={"rounds": _ROUNDS, "steps": _STEPS, "examples": _EXAMPLES})
        calibration = Calibration(examples, subject.loss, channels.slots.device)
        found = channel_scores(model.eval(), subject.space, chosen, seed=subject.seed, calibration=calibration)
        rows = [torch.from_numpy(found[index]) for index, _ in channels.of_groups]
        return torch.cat(rows).to(channels.slots.device) if rows else torch.zeros(0)

    def widths(self, domain: BudgetedSpace, scores: Sequence[FloatArray]) -> Widths:
        """Uniform ones."""
        return target_widths(domain)

    def passes(self, epochs: int) -> float:
        """The training, and for each group forward and backward passes over some examples."""
        subject: Subject | None = getattr(self, "subject", None)
        if subject is None:
            return float(epochs)
        share = min(_EXAMPLES, subject.examples) / subject.examples
        return epochs + len(subject.space.groups) * _ROUNDS * (1 + _STEPS) * share


@final
class InnerLosses(Objective):
    """An objective, and classifiers on what a network gives inside.

    Args:
        goal: the objective of the outputs.
        weight: of each classifier's cross entropy.
        most: so many places at most; those nearest to the inputs are left out first.
    """

    needs_batch = True

    def __init__(self, goal: Objective, weight: float, most: int) -> None:
        self._goal, self._weight, self._most = goal, weight, most
        self.needs_teacher = goal.needs_teacher
        self._heads: dict[str, nn.Linear] = {}

    def begin(self, model: nn.Module, batch: Batch) -> None:
        """Make the classifiers, one at the end of each stage."""
        if self._goal.needs_batch:
            self._goal.teacher = self.teacher
            self._goal.begin(model, batch)
        with torch.no_grad():
            outputs, found = observed(copy_network(model).eval(), batch.first(2), stage_ends(model, batch))
        if not isinstance(outputs, Tensor) or outputs.ndim != 2 or not isinstance(batch.targets, Tensor):
            raise ConfigError(
                "sparsity training 'dcp' needs logits of classes (N, classes) and a label for each example"
            )
        chosen = list(found.items())[-self._most :]
        self._heads = {
            place: nn.Linear(pooled(feature).shape[1], outputs.shape[1]).to(feature.device) for place, feature in chosen
        }

    def __call__(self, model: nn.Module, batch: Batch) -> Tensor:
        """See `Objective.__call__`."""
        outputs, found = observed(model, batch, self.places)
        self._goal.teacher, self._goal.memory = self.teacher, self.memory
        loss = self._goal(Answers(outputs, batch.inputs, "dcp", found), batch)
        for place, head in self._heads.items():
            loss = loss + self._weight * F.cross_entropy(head(pooled(found[place])), batch.targets)
        return loss

    @property
    def places(self) -> tuple[str, ...]:
        """See `Objective.places`; those of the objective inside, too."""
        return tuple(dict.fromkeys((*self._goal.places, *self._heads)))

    def parameters(self) -> Iterable[nn.Parameter]:
        """See `Objective.parameters`."""
        heads = (parameter for head in self._heads.values() for parameter in head.parameters())
        return [*self._goal.parameters(), *heads]

    def state_dict(self) -> dict[str, Any]:
        """See `Objective.state_dict`."""
        heads = {place: on_cpu(head.state_dict()) for place, head in self._heads.items()}
        return {"goal": self._goal.state_dict(), "heads": heads}

    def load_state_dict(self, state: Mapping[str, Any]) -> None:
        """See `Objective.load_state_dict`."""
        self._goal.load_state_dict(state["goal"])
        for place, head in self._heads.items():
            head.load_state_dict(state["heads"][place])


def pooled(feature: Tensor) -> Tensor:
    """(N, C) AvgPool(ReLU(feature)) of maps (N, C, H, W), or of sequences (N, tokens, C)."""
    values = feature.relu().float()
    if values.ndim == 3:
        return values.mean(dim=1)
    return values.flatten(2).mean(dim=2) if values.ndim > 2 else values
