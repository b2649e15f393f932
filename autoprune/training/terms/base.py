"""The interface of terms."""

from __future__ import annotations

from abc import ABC
from collections.abc import Mapping, Sequence
from typing import Any

from torch import Tensor, nn

from autoprune.config.parts import ChosenPart, NamedPart
from autoprune.config.settings import bind
from autoprune.errors import ConfigError, blame
from autoprune.training.terms import TERMS


class Term(ABC):  # noqa: B024 - each of its methods may be left out
    """Takes part in each step of a training; made anew for each one, as `Part(**settings)`.

    In each step the order is: gradients of the loss and the penalties, `after_backward` (before gradients are clipped),
    the optimizer's step, `after_step` (before weights are averaged). Everywhere `done` is the share of the training
    that is over, at the middle of the step. Single weights that a mask leaves out have gradients in `after_backward`
    alone, and are 0 after the step whatever was done to them.
    """

    def begin(self, model: nn.Module) -> None:  # noqa: B027
        """The training begins; the model is on its device.

        Raises:
            ConfigError: the term can do nothing with it.
        """

    def penalty(self, model: nn.Module, *, done: float) -> Tensor | None:
        """A scalar to add to the loss of this step, None for nothing."""
        return None

    def after_backward(self, model: nn.Module, *, done: float) -> None:  # noqa: B027
        """Change gradients in place; those of parameters that took no part are None."""

    def after_step(self, model: nn.Module, *, done: float) -> None:  # noqa: B027
        """Change weights in place, inside `torch.no_grad()`."""

    def state_dict(self) -> dict[str, Any]:
        """All that the term has gathered over the steps: tensors, numbers, texts, and lists and dicts of them."""
        return {}

    def load_state_dict(self, state: Mapping[str, Any]) -> None:  # noqa: B027
        """Go on from a state, after `begin`; its tensors are on the CPU."""


def make_terms(chosen: Sequence[ChosenPart]) -> tuple[Term, ...]:
    """Build terms.

    Raises:
        RegistryError: no such term.
        ConfigError: a setting that a term does not have or of a wrong value, or something else than a `Term`.
    """
    made = []
    for given in chosen:
        options = NamedPart.of(given, "training.terms")
        part, what = bind(TERMS, options.name, options.settings), f"term {options.label!r}"
        with blame(ConfigError, f"{what} cannot be made", then="Correct its settings or its code."):
            term = part()
        if not isinstance(term, Term):
            raise ConfigError(f"{what} is a {type(term).__name__}: derive it from Term")
        made.append(term)
    return tuple(made)
