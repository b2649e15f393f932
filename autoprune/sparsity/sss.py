"""Sparse Structure Selection: Huang & Wang 2018, arXiv 1707.01213."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, final

import torch
from torch import Tensor, nn

from autoprune.sparsity.base import SparsityTraining, Subject, check_number
from autoprune.sparsity.gates import GatedNetwork, PlainGates
from autoprune.sparsity.proximal import accelerated_step


@final
class SparseStructureSelection(SparsityTraining):
    """A scale on each channel, trained by accelerated proximal gradient with an L1 penalty (section 3.3).

    z = S(λ - lr·g, lr·weight), v' = z - λ + μv, λ' = z + μv'; learning rate and μ are those of the weights' training,
    without weight decay on the scales. The paper also scales whole blocks; here blocks stay.

    Args:
        weight: of the L1 penalty; the paper chooses it for each network.
        momentum: μ.
    """

    def __init__(self, *, weight: float = 0.01, momentum: float = 0.9) -> None:
        check_number("sss", "weight", weight)
        check_number("sss", "momentum", momentum, most=0.9999)
        self._weight, self._mu = weight, momentum

    def set_up(self, subject: Subject) -> nn.Module:
        """See `SparsityTraining.set_up`."""
        gates = PlainGates(subject.channels)
        self.subject, self._z = subject, gates.values.detach().clone()
        self._momentum = torch.zeros_like(self._z)
        self._gradient: Tensor | None = None
        return GatedNetwork(subject.network, gates)

    def after_backward(self, model: nn.Module, *, done: float) -> None:
        """The optimizer of the weights is not to move the scales."""
        values = _values(model)
        self._gradient, values.grad = values.grad, None

    def after_step(self, model: nn.Module, *, done: float) -> None:
        """See `Term.after_step`."""
        if self._gradient is None or not self._gradient.isfinite().all():
            return
        values, lr = _values(model), self.subject.lr(done)
        self._z, self._momentum, moved = accelerated_step(
            values.detach(), self._gradient, self._momentum, lr=lr, weight=self._weight, mu=self._mu
        )
        values.copy_(moved)

    def scores(self, model: nn.Module) -> Tensor:
        """|z|: with exact zeros, where λ' has not come to rest."""
        return self._z.abs()

    def settle(self, model: nn.Module) -> nn.Module:
        """See `SparsityTraining.settle`."""
        with torch.no_grad():
            _values(model).copy_(self._z)
        return super().settle(model)

    def state_dict(self) -> dict[str, Any]:
        """See `Term.state_dict`."""
        return {"z": self._z, "momentum": self._momentum}

    def load_state_dict(self, state: Mapping[str, Any]) -> None:
        """See `Term.load_state_dict`."""
        device = self._z.device
        self._z, self._momentum = state["z"].to(device), state["momentum"].to(device)


def _values(model: nn.Module) -> nn.Parameter:
    values: nn.Parameter = model.gates.values  # type: ignore[union-attr, assignment]
    return values
