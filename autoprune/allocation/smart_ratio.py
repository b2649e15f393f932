"""Smart ratios: Su et al. 2020, Sanity-Checking Pruning Methods, NeurIPS, arXiv 2009.11094."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence

from autoprune.allocation.parts.path import at_ratios
from autoprune.allocation.parts.scores import one_of
from autoprune.allocation.parts.shapes import layers, ratios_of_shares
from autoprune.cost.budget.repair import BudgetedSpace
from autoprune.space.groups import FloatArray, SearchSpace, Widths

FORMS: Mapping[str, Callable[[int, int], float]] = {
    "quadratic": lambda layer, left: left**2 + left,
    "vgg": lambda layer, left: (left**2 + left) / layer**2,
    "linear": lambda layer, left: left,
    "cubic": lambda layer, left: left**3,
    "ascending": lambda layer, left: layer**2 + layer,
}
"""(number of the layer from 1, layers from this one to the last) -> share of its weights that it keeps, to scale."""


def smart_ratio(domain: BudgetedSpace, scores: Sequence[FloatArray] = (), *, form: str = "quadratic") -> Widths:
    """Keep a share of every layer's weights that falls with its depth: (L - l + 1)² + (L - l + 1) for layer l of L.

    The share is at most 1, and a common factor on all meets the budget (section 4.3; the authors' code hands what a
    full layer leaves over to the next one instead, and keeps 0.3 of the last linear layer, whose outputs are not cut
    here). As for `erk`, a group keeps the square root of the share that its writing layers keep together. Layers count
    in the order of the state dict, as in the authors' code. Needs shapes only; scores are not looked at.

    Args:
        domain: the space under its budget.
        scores: not looked at.
        form: "quadratic", "vgg" (divided by l², which the authors use for VGG networks), and their ablations "linear"
            (L - l + 1), "cubic" (its third power) and "ascending" (quadratic from the other end).

    Raises:
        ConfigError: an unknown form.
    """
    one_of("smart_ratio", "form", form, FORMS)
    return at_ratios(domain, ratios_of_shares(domain.space, shares(domain.space, form)))


def shares(space: SearchSpace, form: str = "quadratic") -> dict[str, float]:
    """Name of each layer's weights -> the share that it keeps, before scaling."""
    names = [tensor.name for tensor in layers(space)]
    return {name: float(FORMS[form](layer, len(names) - layer + 1)) for layer, name in enumerate(names, start=1)}
