"""Importance of the last responses, traced back: Yu et al. 2018, NISP, arXiv 1711.05908, equations 8 and 12."""

from __future__ import annotations

from typing import Literal, TypeAlias

import numpy as np
import torch
from torch import Tensor

from autoprune.errors import ConfigError, EvaluationError
from autoprune.importance.checks import check_choice
from autoprune.importance.evidence import criterion
from autoprune.importance.examples import ExampleBatch
from autoprune.importance.inf_fs import infinite_feature_selection
from autoprune.importance.network import NetworkEvidence
from autoprune.importance.positive import WeightedCalls, last_calls, make_positive, ones_like_inputs
from autoprune.importance.reads import Read

Responses: TypeAlias = Literal["inf_fs", "uniform"]


@criterion("outputs", zeros_last=False)
def nisp(
    network: NetworkEvidence,
    rng: np.random.Generator,
    *,
    responses: Responses = "inf_fs",
    alpha: float = 0.5,
    examples: int | None = 256,
) -> Tensor:
    """(channels,) s_l = |W_{l+1}|ᵀ s_{l+1}, summed over the positions of a channel, from the last responses back.

    The last responses are the inputs of the last weights (of each head), their importance s that of infinite feature
    selection on unlabelled data (`inf_fs.infinite_feature_selection`), or 1 for all. Tracing back through |W| is the
    derivative of Σ s · responses in the network with the sizes of its weights, its nonlinear functions taken for
    identities (the paper bounds their slopes by 1), batch norms for |γ| / σ, layer and group norms for |γ|; so sums,
    concatenations, pooling, depthwise and grouped convolutions need no rule of their own. Softmax stays: channels that
    only shape attention (queries, keys) get what little flows through its slopes.

    Unlabelled data: one pass over the examples, and one forward and backward pass of a single example. What writes a
    channel does not count, only what reads it.

    Args:
        network: the network.
        rng: not used.
        responses: "inf_fs" or "uniform".
        alpha: weight of deviations against correlations in infinite feature selection, 0 to 1.
        examples: how many examples to use at most; None: all.

    Raises:
        ConfigError: a setting out of range.
        EvaluationError: the network has no weights whose inputs could be told apart.
    """
    check_choice("responses", responses, Responses)
    batches = network.examples(examples)
    if not 0 <= alpha <= 1:
        raise ConfigError(f"alpha must be from 0 to 1, got {alpha}")
    values = [_recorded(network, batch) for batch in batches] if responses == "inf_fs" else []
    network.model.double()
    make_positive(network.model)
    first = batches[0]
    single = ExampleBatch(ones_like_inputs(first.inputs, first.number), None, 1)
    added = torch.zeros(1, network.slots.number, dtype=torch.float64, device=network.slots.device, requires_grad=True)

    def change(read: Read) -> Tensor:
        return read.inputs + read.spread(added)

    calls = WeightedCalls(positive=True)
    with calls:
        network.run_changed(single, change)
    if not any(call.inputs.requires_grad for call in calls.calls):
        raise EvaluationError("no weight was seen that reads channels: choose another criterion")
    total = torch.zeros((), dtype=torch.float64, device=network.slots.device)
    for index in last_calls(calls.calls):
        call = calls.calls[index]
        weight = _importance([of_batch[index] for of_batch in values], alpha).to(total.device)
        shape = [1] * call.inputs.ndim
        shape[call.dim] = call.inputs.shape[call.dim]
        total = total + (call.inputs * weight.reshape(shape) if len(weight) > 1 else call.inputs).sum()
    (found,) = torch.autograd.grad(total, [added])
    return found[0, :-1].abs()


def _recorded(network: NetworkEvidence, batch: ExampleBatch) -> list[Tensor | None]:
    """Of each call with a weight the (examples, F) means of what it reads."""
    calls = WeightedCalls(positive=False)
    with torch.no_grad(), calls:
        network.run(batch)
    return [call.features(batch.number) for call in calls.calls]


def _importance(features: list[Tensor | None], alpha: float) -> Tensor:
    """(F,) importances, or (1,) where all count the same."""
    there = [values for values in features if values is not None]
    if not there or there[0].shape[1] < 2:
        return torch.ones(1, dtype=torch.float64)
    values = torch.cat(there).cpu().numpy()
    return torch.from_numpy(infinite_feature_selection(values, alpha=alpha))
