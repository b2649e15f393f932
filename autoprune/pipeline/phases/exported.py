"""The network that a run exports: the very one that was scored."""

from __future__ import annotations

from pathlib import Path

from torch import nn

from autoprune.evaluators.candidates import CandidateFactory
from autoprune.space.cutting.masks import masks_from_zeros
from autoprune.space.cutting.rounded import keep_bits
from autoprune.space.groups import Widths
from autoprune.zoo import load_weights


def exported_network(factory: CandidateFactory, widths: Widths, weights: Path | None) -> nn.Module:
    """The network of these widths.

    Args:
        factory: what it is made from.
        widths: of the winner.
        weights: of its final training; None: it was only scored, with inherited weights as all networks at the end, or
            (where the evaluator trains its own) it would have been.
    """
    if weights is None:
        return factory.heirs("final")(widths)
    network = factory.candidate(widths)
    load_weights(network, weights)
    masks_from_zeros(network)  # a training may have chosen other ones
    keep_bits(network)
    return network
