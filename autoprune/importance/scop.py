"""Channels against a control: after Tang et al. 2020, SCOP, arXiv 2010.10732, section 3."""

from __future__ import annotations

from typing import Any

import numpy as np
import torch
from torch import Tensor
from torch.utils import _pytree as pytree

from autoprune.errors import ConfigError
from autoprune.importance.evidence import criterion
from autoprune.importance.examples import ExampleBatch
from autoprune.importance.group import group_evidence
from autoprune.importance.network import NetworkEvidence
from autoprune.importance.reads import Change, Read
from autoprune.space.kinds import KINDS
from autoprune.space.options.ties import set_ranges


@criterion("losses", zeros_last=False)
def scop(
    network: NetworkEvidence,
    rng: np.random.Generator,
    *,
    epochs: int = 20,
    lr: float = 0.004,
    examples: int | None = 1024,
) -> Tensor:
    """(channels,) |γ| (s - (1 - s)), shifted so that the least of all is 0; s in [0, 1] is learned.

    What the readers of a channel get is s a + (1 - s) ã, a the true values and ã a knockoff that says nothing about the
    example; s starts at 1/2 and is trained to lower the loss, weights and running statistics as they are (Adam with
    β = (0.5, 0.9), as the authors' code). γ are the scales of the group's batch norms (mean of their sizes; 1 where
    there are none). SCOP-like: the paper makes ã from images of a generative network, here it is a of other
    examples of the batch, a new order each time, the same for all channels; it mixes ahead of the norm, here after it.

    Labelled data; batches of one example are joined in pairs. `epochs` passes over them, forward and backward.

    Args:
        network: the network.
        rng: of the orders.
        epochs: how often the examples are gone through.
        lr: learning rate of s.
        examples: how many examples to use at most; None: all.

    Raises:
        ConfigError: a number that is not above 0, or one example only.
        EvaluationError: channels whose readers cannot be seen.
    """
    if epochs < 1 or not lr > 0:
        raise ConfigError(f"epochs and lr must be above 0, got epochs={epochs} and lr={lr}")
    batches = _several(network.examples(examples))
    if not batches:
        raise ConfigError("scop compares with other examples, and there is one only: give more")
    network.run(batches[0], network.ones())  # all readers must be seen
    network.model.requires_grad_(False)
    share = (0.5 * network.ones()).requires_grad_(True)
    optimizer = torch.optim.Adam([share], lr=lr, betas=(0.5, 0.9))
    for batch in [batch for _ in range(epochs) for batch in batches]:
        optimizer.zero_grad()
        outputs = network.run_changed(batch, _mixed(share, batch, rng))
        network.loss_of(outputs, batch).backward()  # type: ignore[no-untyped-call]
        optimizer.step()
        with torch.no_grad():
            share.clamp_(0, 1)
    raw = _scales(network) * (2 * share.detach() - 1)
    return raw - raw.min()


def _several(batches: list[ExampleBatch]) -> list[ExampleBatch]:
    """Those of more than one example; of single ones pairs."""
    single = [batch for batch in batches if batch.number == 1]

    def joined(one: Any, other: Any) -> Any:
        return torch.cat([one, other]) if isinstance(one, Tensor) and one.ndim else one

    pairs = []
    for a, b in zip(single[::2], single[1::2], strict=False):
        inputs, targets = pytree.tree_map(joined, (a.inputs, a.targets), (b.inputs, b.targets))
        pairs.append(ExampleBatch(inputs, targets, 2))
    return [batch for batch in batches if batch.number > 1] + pairs


def _mixed(share: Tensor, batch: ExampleBatch, rng: np.random.Generator) -> Change:
    """What readers get: their share of the values, and for the rest those of other examples."""
    order = torch.from_numpy(rng.permutation(batch.number)).to(share.device)
    factors = torch.cat([share, torch.ones_like(share[:1])])[None]

    def change(read: Read) -> Tensor:
        part = read.spread(factors)
        return read.inputs * part + read.permuted(order) * (1 - part)

    return change


def _scales(network: NetworkEvidence) -> Tensor:
    found = []
    for index, group in enumerate(network.space.groups):
        for number, (_, width) in enumerate(set_ranges(group)) if KINDS[group.kind].ranked else ():
            scales = group_evidence(network.model, network.space, index, number).norm_scales
            sizes = [scale.double().abs() for scale in scales] or [network.ones()[:width]]
            found.append(torch.stack(sizes).mean(dim=0))
    return torch.cat(found)
