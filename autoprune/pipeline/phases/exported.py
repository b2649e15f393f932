"""The network that a run exports: the very one that was scored."""

from __future__ import annotations

from pathlib import Path

from torch import nn

from autoprune.evaluators.base import CandidateFactory
from autoprune.evaluators.inherited import Inherited
from autoprune.pipeline.prepare import Prepared
from autoprune.space.groups import Widths
from autoprune.zoo import load_weights


def exported_network(prepared: Prepared, factory: CandidateFactory, widths: Widths, weights: Path | None) -> nn.Module:
    """The network of these widths.

    Args:
        prepared: names the evaluator.
        factory: what it is made from.
        widths: of the winner.
        weights: of its final training; None: it was only scored, with inherited weights and recalibrated norms, or
            (where the evaluator trains its own) it would have been.
    """
    if weights is not None:
        network = factory.candidate(widths)
        load_weights(network, weights)
        return network
    chosen = prepared.run_inputs.job.search.evaluator  # the one that is made is guarded
    evaluator = Inherited(factory, **chosen.settings) if chosen.name == "inherited" else Inherited(factory)
    return evaluator.network(widths)
