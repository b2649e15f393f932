"""Sparse Structure Selection: Huang & Wang 2018, arXiv 1707.01213."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, final

import torch
from torch import Tensor, nn

from autoprune.errors import ConfigError
from autoprune.sparsity.base import SparsityTraining, Subject, check_number
from autoprune.sparsity.block_gates import BlockGates, branch_ends
from autoprune.sparsity.factors import FactorSteps
from autoprune.sparsity.gates import GatedNetwork, PlainGates


@final
class SparseStructureSelection(SparsityTraining):
    """A scale on each channel, trained by accelerated proximal gradient with an L1 penalty (section 3.3).

    z = S(λ - lr·g, lr·weight), v' = z - λ + μv, λ' = z + μv'; learning rate and μ are those of the weights' training,
    without weight decay on the scales. With `blocks` residual blocks have a scale, too, on what they add to the stream
    (section 3.4): one whose scale falls below the threshold of all is left out.

    Args:
        weight: of the L1 penalty; the paper chooses it for each network.
        momentum: μ.
        blocks: scale whole blocks as well, where the space offers them (`blocks: true`); false: blocks stay.
    """

    def __init__(self, *, weight: float = 0.01, momentum: float = 0.9, blocks: bool = False) -> None:
        check_number("sss", "weight", weight)
        check_number("sss", "momentum", momentum, most=0.9999)
        if not isinstance(blocks, bool):
            raise ConfigError(f"sparsity training 'sss': blocks must be true or false, got {blocks!r}")
        self._weight, self._mu, self._blocks = weight, momentum, blocks

    def set_up(self, subject: Subject) -> nn.Module:
        """See `SparsityTraining.set_up`."""
        self.subject = subject
        gates: PlainGates | BlockGates = PlainGates(subject.channels)
        if self._blocks:
            batch = next(iter(subject.batches(1)), None)
            if batch is None:
                raise ConfigError(
                    "sparsity training 'sss' finds the ends of blocks by examples, and the task has no inputs: give it "
                    "some, or set the method's blocks to false"
                )
            ends = branch_ends(subject.network, subject.space, batch, method="sss")
            gates = BlockGates(subject.channels, ends)
        self._steps = FactorSteps(gates.values, weight=self._weight, momentum=self._mu, lr=subject.lr)
        return GatedNetwork(subject.network, gates)

    def after_backward(self, model: nn.Module, *, done: float) -> None:
        """See `Term.after_backward`."""
        self._steps.take(model.gates.values)  # type: ignore[arg-type]

    def after_step(self, model: nn.Module, *, done: float) -> None:
        """See `Term.after_step`."""
        self._steps.step(model.gates.values, done)  # type: ignore[arg-type]

    def scores(self, model: nn.Module) -> Tensor:
        """|z|: with exact zeros, where λ' has not come to rest."""
        return self._steps.z[: self.subject.channels.number].abs()

    def block_scores(self, model: nn.Module) -> dict[int, float]:
        """See `SparsityTraining.block_scores`."""
        if not self._blocks:
            return {}
        scales = self._steps.z[self.subject.channels.number :].abs().tolist()
        return dict(zip(model.gates.groups, scales, strict=True))  # type: ignore[arg-type, union-attr]

    def settle(self, model: nn.Module) -> nn.Module:
        """See `SparsityTraining.settle`."""
        with torch.no_grad():
            model.gates.values.copy_(self._steps.z)  # type: ignore[union-attr, operator]
        return super().settle(model)

    def state_dict(self) -> dict[str, Any]:
        """See `Term.state_dict`."""
        return self._steps.state_dict()

    def load_state_dict(self, state: Mapping[str, Any]) -> None:
        """See `Term.load_state_dict`."""
        self._steps.load_state_dict(state)
