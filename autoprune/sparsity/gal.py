"""GAL: Lin et al. CVPR 2019, Towards Optimal Structured CNN Pruning via Generative Adversarial Learning."""

from __future__ import annotations

from collections.abc import Mapping
from itertools import pairwise
from typing import Any, ClassVar, final

import torch
import torch.nn.functional as F
from torch import Tensor, nn
from torch.utils import _pytree as pytree

from autoprune.data.batch import Batch
from autoprune.errors import ConfigError
from autoprune.sparsity.base import SparsityTraining, Subject, check_number
from autoprune.sparsity.factors import FactorSteps
from autoprune.sparsity.gates import GatedNetwork, PlainGates
from autoprune.training.objectives.base import Objective
from autoprune.training.state import on_cpu

_LAYERS = (128, 256, 128)
"""Of the discriminator (section 3.3)."""


@final
class GenerativeAdversarialLearning(SparsityTraining):
    """Soft masks on channels, trained without labels: a discriminator is not to tell whose outputs it sees.

    The network with masks minimises -log D(f_g) + mse/2 · ‖f_b - f_g‖² / N + weight · ‖m‖₁ over weights and m; the
    discriminator, a perceptron of 128, 256 and 128 units on the outputs, log D(f_b) + log(1 - D(f_g)) (equations 1 to
    7; arXiv 1903.09291). m takes FISTA's steps, the accelerated proximal ones, with the learning rate of the weights.
    The paper cuts where m is 0, so that its λ decides how much goes; here one threshold for |m| meets the budget.
    Departure: the generator's adversarial loss is the one that does not saturate.

    Args:
        weight: λ, of the L1 norm of the masks.
        mse: of the squared difference of the outputs.
        adversarial: of the adversarial loss.
        momentum: of FISTA.
        lr: of the discriminator, by Adam.
    """

    inherits: ClassVar[bool] = True

    def __init__(
        self,
        *,
        weight: float = 0.01,
        mse: float = 1.0,
        adversarial: float = 1.0,
        momentum: float = 0.9,
        lr: float = 1e-3,
    ) -> None:
        given = {"weight": weight, "mse": mse, "adversarial": adversarial, "lr": lr}
        for name, value in given.items():
            check_number("gal", name, value)
        check_number("gal", "momentum", momentum, most=0.9999)
        self._weight, self._mse, self._adversarial, self._mu, self._lr = weight, mse, adversarial, momentum, lr

    def set_up(self, subject: Subject) -> nn.Module:
        """See `SparsityTraining.set_up`."""
        self.subject, gates = subject, PlainGates(subject.channels)
        self._steps = FactorSteps(gates.values, weight=self._weight, momentum=self._mu, lr=subject.lr)
        batch = next(iter(subject.batches(1)), None)
        if batch is None:
            raise ConfigError("sparsity training 'gal' needs training inputs, and the task gives none")
        with torch.no_grad():
            features = flat_outputs(batch.first(2).outputs(subject.network.eval()))
        sizes = (features.shape[1], *_LAYERS, 1)
        layers = [m for a, b in pairwise(sizes) for m in (nn.Linear(a, b), nn.ReLU())]
        self._discriminator = nn.Sequential(*layers[:-1]).to(features.device)
        self._adam = torch.optim.Adam(self._discriminator.parameters(), lr=self._lr)
        self._goal = _Imitation(self._discriminator, self._mse, self._adversarial)
        return GatedNetwork(subject.network, gates)

    def objective(self) -> Objective:
        """See `SparsityTraining.objective`; no labels are read."""
        return self._goal

    def after_backward(self, model: nn.Module, *, done: float) -> None:
        """See `Term.after_backward`."""
        self._steps.take(model.gates.values)  # type: ignore[arg-type]

    def after_step(self, model: nn.Module, *, done: float) -> None:
        """One step of the masks, one of the discriminator."""
        self._steps.step(model.gates.values, done)  # type: ignore[arg-type]
        if self._goal.last is None:
            return
        base, masked = self._goal.last
        with torch.enable_grad():
            self._adam.zero_grad()
            loss = discriminator_loss(self._discriminator(base), self._discriminator(masked))
            loss.backward()  # type: ignore[no-untyped-call]
            self._adam.step()

    def scores(self, model: nn.Module) -> Tensor:
        """See `SparsityTraining.scores`."""
        return self._steps.z.abs()

    def settle(self, model: nn.Module) -> nn.Module:
        """See `SparsityTraining.settle`."""
        with torch.no_grad():
            model.gates.values.copy_(self._steps.z)  # type: ignore[union-attr, operator]
        return super().settle(model)

    def passes(self, epochs: int) -> float:
        """Training, and as many passes of the base network alone, which cost a third of one of training."""
        return epochs * 4 / 3

    def state_dict(self) -> dict[str, Any]:
        """See `Term.state_dict`."""
        return {
            "steps": self._steps.state_dict(),
            "discriminator": on_cpu(self._discriminator.state_dict()),
            "adam": on_cpu(self._adam.state_dict()),
        }

    def load_state_dict(self, state: Mapping[str, Any]) -> None:
        """See `Term.load_state_dict`."""
        self._steps.load_state_dict(state["steps"])
        self._discriminator.load_state_dict(state["discriminator"])
        self._adam.load_state_dict(dict(state["adam"]))


@final
class _Imitation(Objective):
    """What the network with masks is trained for."""

    needs_teacher = True

    def __init__(self, discriminator: nn.Module, mse: float, adversarial: float) -> None:
        self._discriminator, self._mse, self._adversarial = discriminator, mse, adversarial
        self.last: tuple[Tensor, Tensor] | None = None

    def __call__(self, model: nn.Module, batch: Batch) -> Tensor:
        masked = flat_outputs(batch.outputs(model))
        base = masked.detach() if self.teacher is None else flat_outputs(self.teach(batch, lambda t, b: b.outputs(t)))
        self.last = base.detach(), masked.detach()
        fooled = F.binary_cross_entropy_with_logits(self._discriminator(masked), masked.new_ones(len(masked), 1))
        loss: Tensor = self._adversarial * fooled + self._mse * (base - masked).square().sum(dim=1).mean() / 2
        return loss


def discriminator_loss(base: Tensor, masked: Tensor) -> Tensor:
    """-log D(f_b) - log(1 - D(f_g)), the mean over examples, from logits."""
    return F.softplus(-base).mean() + F.softplus(masked).mean()


def flat_outputs(outputs: Any) -> Tensor:
    """(N, n) all floating point outputs of each example; of maps (N, C, …) and sequences (N, tokens, n) their means."""
    leaves = [leaf for leaf in pytree.tree_leaves(outputs) if isinstance(leaf, Tensor) and leaf.is_floating_point()]
    rows = [
        (leaf.flatten(2).mean(2) if leaf.ndim > 3 else leaf.mean(1) if leaf.ndim > 2 else leaf).float()
        for leaf in leaves
        if leaf.ndim > 1
    ]
    return torch.cat(rows, dim=1)
