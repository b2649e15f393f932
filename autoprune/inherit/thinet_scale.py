"""ThiNet's scales: one factor for each kept channel of a consumer, by least squares."""

from __future__ import annotations

from typing import ClassVar, TypeAlias, final

import torch
from torch import Tensor, nn

from autoprune.errors import ConfigError
from autoprune.inherit.base import Changes, Inheritance, Statistics
from autoprune.inherit.bn_recalibration import check_batches
from autoprune.inherit.channel_calls import ChannelCall
from autoprune.inherit.gathering import Gathered, gather
from autoprune.inherit.reuse import RIDGE, solve
from autoprune.space.cutting.cut import Cut
from autoprune.space.cutting.slicing import tensor_of

_Samples: TypeAlias = tuple[Tensor, Tensor]
"""(samples, blocks, channels) what each channel contributes to an output; (samples,) which output that is."""


@final
class ThiNetScale(Inheritance):
    """w = argmin sum_i (y_i - sum_c w_c x_ic)² over samples i, folded into the weights: W'[:, c] = w_c W[:, c].

    Luo et al. ICCV 2017, ThiNet, section 3.2.3. A sample is one output channel at one position of one image; y is its
    value in the dense network without the bias, x_c the part of it that comes from input channel c. Only outputs that
    are kept count. ThiNet draws 10 samples from each image, 10 images of each class; here images are training batches.
    A ridge towards 1, as if there were as many more samples as scales in which a scale of 1 is right (see
    `fitting.ridge`), keeps few samples from being fitted exactly; the error on them is never above that of slicing.

    Data: inputs. Cost: one pass, and `samples` backward passes of each consumer alone; a candidate costs a
    factorisation of kept × kept for each. Memory: samples × channels. Left alone are weights that are used elsewhere,
    too.

    Args:
        batches: training batches.
        samples: of each image.
        seed: by which they are drawn.

    Raises:
        ConfigError: fewer than 1 batch or sample, or no calibration inputs.
        EvaluationError: no batch with finite values only.
    """

    changes: ClassVar[Changes] = "weights"

    def __init__(self, *, batches: int = 2, samples: int = 10, seed: int = 0) -> None:
        self._batches, self._seed = check_batches("thinet_scale", batches), seed
        if not isinstance(samples, int) or isinstance(samples, bool) or samples < 1:
            raise ConfigError(f"thinet_scale: samples must be at least 1, a whole number, got {samples!r}")
        self._samples = samples

    def prepare(self, statistics: Statistics) -> None:
        """See `Inheritance.prepare`."""
        statistics.needed("thinet_scale", self._batches)

    def apply(self, cut: Cut, dense: nn.Module, statistics: Statistics) -> None:
        """See `Inheritance.apply`."""
        key = ("contributions", self._batches, self._samples, self._seed)
        gathered = statistics.of_dense(key, dense, lambda: self._gather(cut, dense, statistics))
        self.left_alone = gathered.left_alone(cut)
        with torch.no_grad():
            for consumer, samples in gathered.by_weight(_combine):
                if consumer.lost_inputs(cut) and consumer.weight not in self.left_alone:
                    _scale(consumer, samples, cut)

    def _gather(self, cut: Cut, dense: nn.Module, statistics: Statistics) -> Gathered[_Samples]:
        generator = torch.Generator().manual_seed(self._seed)

        def measure(consumer: ChannelCall, inputs: Tensor, weight: Tensor) -> _Samples:
            return _contributions(consumer, inputs, weight, self._samples, generator)

        return gather(
            dense,
            cut.space,
            statistics.needed("thinet_scale", self._batches),
            device=statistics.device,
            measure=measure,
            combine=_combine,
            tensors=lambda samples: samples[:1],
        )


def _combine(one: _Samples, other: _Samples) -> _Samples:
    return torch.cat([one[0], other[0]]), torch.cat([one[1], other[1]])


def _contributions(
    consumer: ChannelCall, inputs: Tensor, weight: Tensor, samples: int, generator: torch.Generator
) -> _Samples:
    """An output is linear in its inputs: what comes from each is the input times the derivative by it."""
    batched = inputs.ndim > 1 + consumer.spatial
    given = inputs if batched else inputs[None]
    found, outputs_of = [], []
    with torch.enable_grad():
        leaf = given.detach().clone().requires_grad_()
        outputs = consumer.call.run(leaf, weight)
        by_channel = outputs.movedim(outputs.ndim - 1 - consumer.spatial, -1)
        each = by_channel.reshape(len(by_channel), -1)
        for _ in range(samples):
            chosen = torch.randint(each.shape[1], (len(each), 1), generator=generator).to(each.device)
            (slope,) = torch.autograd.grad(each.gather(1, chosen).sum(), leaf, retain_graph=True)
            parts = (slope * leaf.detach()).double().movedim(leaf.ndim - 1 - consumer.spatial, -1)
            parts = parts.reshape(len(parts), -1, parts.shape[-1]).sum(dim=1)
            parts = parts.reshape(len(parts), consumer.blocks, -1)
            found.append(consumer.channels.apart(parts, 2).sum(dim=2))
            outputs_of.append(chosen.flatten() % by_channel.shape[-1])
    return torch.cat(found), torch.cat(outputs_of)


def _scale(consumer: ChannelCall, samples: _Samples, cut: Cut) -> None:
    """Outputs of one block of a grouped convolution read nothing of the others: their scales do not meet."""
    parts, outputs_of = samples
    inputs, written = consumer.kept(cut), cut.kept[consumer.weight][consumer.writes]
    if inputs is None:
        return
    target, channels = tensor_of(cut.network, consumer.weight), consumer.channels
    if written is not None:
        of_axis = outputs_of % consumer.outputs
        parts = parts[torch.isin(of_axis, written.to(of_axis.device))]
    kept = channels.kept(inputs)[0].to(parts.device)
    own = parts[:, :, kept].flatten(1)
    missing = parts.flatten(1).sum(dim=1) - own.sum(dim=1)
    ridge = max(RIDGE, own.shape[1] / max(len(own), 1))
    change = solve(own.mT @ own, (own.mT @ missing)[:, None], ridge=ridge)[:, 0]
    scales = (1 + change).reshape(consumer.blocks, 1, len(kept)).expand(-1, channels.places, -1)
    scales = channels.together(scales, 1, inputs)
    target.copy_(consumer.weights(consumer.matrix(target).to(scales) * scales[..., None], target))
