"""Implicit filter sparsity: Mehta et al. 2019, arXiv 1811.12495."""

from __future__ import annotations

from typing import Any, final

from torch import Tensor, nn

from autoprune.config.parts import NamedPart
from autoprune.config.training import Recipe
from autoprune.config.validation import validated
from autoprune.errors import ConfigError
from autoprune.sparsity.base import SparsityTraining, Subject, check_number, parameters, scale_magnitudes

_ADAPTIVE = ("adam", "adagrad", "rmsprop", "adamax")


@final
class ImplicitSparsity(SparsityTraining):
    """Nothing but an adaptive optimizer with L2 in the gradient: with batch norm and ReLU, scales of channels go to 0.

    Section 3: the optimizer divides the gradient of the loss, which fades for selective channels, and that of the
    penalty alike. Decoupled weight decay (AdamW) and SGD do it far less. Importance is |gamma|, as in
    `network_slimming`; the paper cuts what is below 1e-3, here one quantile meets the budget.

    Args:
        optimizer: adam, adagrad, rmsprop or adamax, with torch's own settings.
        lr: its learning rate; 1e-3 in the paper.
        weight_decay: of the L2 penalty, in the range of the paper's 1e-4 to 1e-3.
    """

    def __init__(self, *, optimizer: str = "adam", lr: float = 1e-3, weight_decay: float = 5e-4) -> None:
        if optimizer not in _ADAPTIVE:
            raise ConfigError(
                f"sparsity training 'implicit': optimizer must be one of {', '.join(_ADAPTIVE)}, got {optimizer!r}: "
                f"others leave out what makes channels sparse"
            )
        check_number("implicit", "lr", lr)
        check_number("implicit", "weight_decay", weight_decay)
        self._changed: dict[str, Any] = {"lr": lr, "weight_decay": weight_decay, "momentum": 0.0, "nesterov": False}
        self._changed["optimizer"] = NamedPart(name=optimizer)

    def recipe(self, recipe: Recipe) -> Recipe:
        """See `SparsityTraining.recipe`; weight decay is on scales and shifts, too."""
        given = {name: getattr(recipe, name) for name in type(recipe).model_fields}
        return validated(Recipe, {**given, **self._changed, "decay_norms": True}, "sparsity training 'implicit'")

    def set_up(self, subject: Subject) -> nn.Module:
        """See `SparsityTraining.set_up`."""
        scale_magnitudes(subject.channels, parameters(subject.network), "implicit")
        return super().set_up(subject)

    def scores(self, model: nn.Module) -> Tensor:
        """See `SparsityTraining.scores`."""
        return scale_magnitudes(self.subject.channels, parameters(model), "implicit")
