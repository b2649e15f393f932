"""Evidence of every kind, made up at random, for the contract of criteria; and what a change of channels does to it."""

from __future__ import annotations

import copy
from collections.abc import Callable
from dataclasses import fields, replace
from typing import Any

import torch
from torch import Tensor

from autoprune.importance.evidence import Activations, Curvature, Gradients, GroupEvidence, InputMoments

WIDTH = 12


def example_group(*, norms: int = 2, dtype: torch.dtype = torch.float32) -> GroupEvidence:
    """Evidence of every kind on twelve channels: two convolutions, a bias and some batch norms, all of it random."""
    generator = torch.Generator().manual_seed(0)

    def draw(*shape: int) -> Tensor:
        return torch.randn(*shape, generator=generator).to(dtype)

    shapes = ((WIDTH, 27), (WIDTH, 1), (WIDTH, 144))
    filters = tuple(draw(*shape) for shape in shapes)
    scales = tuple(draw(WIDTH) for _ in range(norms))
    readers = (draw(WIDTH, 18), draw(WIDTH, 45))
    share = torch.rand(WIDTH, generator=generator).double()
    mean, second = draw(WIDTH).double().abs(), draw(WIDTH).double().square()
    products = tuple(draw(*shape).double() for shape in shapes)
    gradients = Gradients(mean, mean.square() + second, products, tuple(p.square() for p in products), mean)
    return GroupEvidence(
        WIDTH,
        filters,
        scales,
        readers,
        Activations(mean, second, share, mean + share),
        gradients,
        Curvature(second),
        ("first", "first", "second"),
        tuple(draw(*rows.shape).double().square() for rows in readers),
        draw(WIDTH, 300),
        (_maps(generator, 7, 5).to(dtype), _maps(generator, 6, 8).to(dtype)),
        (_moments(generator, 2, 9), _moments(generator, 7, 1)),
    )


def _maps(generator: torch.Generator, height: int, width: int) -> Tensor:
    """(channels, examples, height, width) maps of rank 2 in as many examples as there are channels before."""
    left = torch.randn(WIDTH, WIDTH, height, 2, generator=generator)
    left[..., 1] *= (torch.arange(WIDTH) < torch.arange(WIDTH)[:, None])[..., None]
    return left @ torch.randn(WIDTH, WIDTH, 2, width, generator=generator)


def _moments(generator: torch.Generator, outputs: int, kernel: int) -> InputMoments:
    """A weight that reads the channels with a kernel, and two elements that no channel owns."""
    channel = torch.cat([torch.arange(WIDTH).repeat_interleave(kernel), torch.tensor([-1, -1])])
    rows = torch.randn(400, len(channel), generator=generator).double()
    rows = rows @ torch.randn(len(channel), len(channel), generator=generator).double()
    weight = torch.randn(1, outputs, len(channel), generator=generator).double()
    return InputMoments(weight, (rows.T @ rows / 400)[None], rows.mean(dim=0)[None], channel[None], 400)


def tensors_of(value: Any) -> list[Tensor]:
    """All tensors in evidence."""
    if isinstance(value, Tensor):
        return [value]
    if isinstance(value, tuple):
        return [tensor for entry in value for tensor in tensors_of(entry)]
    if value is None or isinstance(value, int | str | dict):
        return []
    return [tensor for item in fields(value) for tensor in tensors_of(getattr(value, item.name))]


def reordered(evidence: GroupEvidence, order: Tensor) -> GroupEvidence:
    """The same evidence with the channels in another order."""
    place = torch.argsort(order)

    def moved(moments: InputMoments) -> InputMoments:
        channel = torch.where(moments.channel < 0, -1, place[moments.channel.clamp(min=0)])
        return replace(moments, channel=channel)

    return _changed(evidence, lambda tensor: tensor[order], moved)


def without_channel(evidence: GroupEvidence, channel: int) -> GroupEvidence:
    """What a channel leaves that is zero everywhere: nothing, and all of its values are zeros."""

    def quiet(tensor: Tensor) -> Tensor:
        changed = tensor.clone()
        changed[channel] = 0.0
        return changed

    def without(moments: InputMoments) -> InputMoments:
        kept = (moments.channel != channel).double()
        second = moments.second * kept[:, :, None] * kept[:, None]
        return replace(
            moments, weight=moments.weight * kept[:, None], second=second, mean=moments.mean * kept, inverses={}
        )

    found = _changed(copy.deepcopy(evidence), quiet, without)
    if found.activations is not None:
        found.activations.zeros[channel] = 1.0
    return found


def _changed(
    evidence: GroupEvidence, change: Callable[[Tensor], Tensor], of_moments: Callable[[InputMoments], InputMoments]
) -> GroupEvidence:
    """The same evidence with each tensor of rows changed, and moments in their own way."""

    def changed(value: Any) -> Any:
        if isinstance(value, Tensor):
            return change(value)
        if isinstance(value, tuple):
            return tuple(map(changed, value))
        if isinstance(value, InputMoments):
            return of_moments(value)
        if value is None or isinstance(value, int | str):
            return value
        return replace(value, **{item.name: changed(getattr(value, item.name)) for item in fields(value)})

    found: GroupEvidence = changed(evidence)
    return found
