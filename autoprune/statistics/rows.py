"""A call as a matrix product: rows of inputs at sampled positions, and its weight as one matrix for each group.

y[n] = W u[n] + b holds exactly for all kinds of calls. A transposed convolution is a convolution of stride 1 over
inputs with zeros between them, its kernel flipped.
"""

from __future__ import annotations

import math
import zlib

import torch
import torch.nn.functional as F
from torch import Tensor

from autoprune.statistics.calls import WeightCall

POSITIONS = 32
"""How many positions of each image (tokens of each sequence) are looked at; He et al. 2017 take 10 of 5,000 images."""


def weight_matrix(call: WeightCall, weight: Tensor) -> Tensor:
    """(groups, outputs of one, D) view or copy of a weight; D is channel-major: (channels of one group, kernel)."""
    if call.kind == "product":
        return (weight.T if call.by_columns else weight)[None]
    if call.kind == "convolution":
        return weight.reshape(call.groups, weight.shape[0] // call.groups, -1)
    flipped = weight.flip(tuple(range(2, weight.ndim))).flatten(2)  # (C, O / g, K)
    parts = flipped.reshape(call.groups, -1, *flipped.shape[1:])
    return parts.transpose(1, 2).flatten(2)


def matrix_weight(call: WeightCall, matrix: Tensor, like: Tensor) -> Tensor:
    """The weight, of the shape of `like`, whose `weight_matrix` this is."""
    if call.kind == "product":
        return matrix[0].T if call.by_columns else matrix[0]
    if call.kind == "convolution":
        return matrix.reshape(like.shape)
    parts = matrix.reshape(call.groups, like.shape[1], -1, math.prod(call.kernel)).transpose(1, 2)
    return parts.reshape(like.shape).flip(tuple(range(2, like.ndim)))


def input_rows(call: WeightCall, examples: int, *, positions: int = POSITIONS, taps: bool = True) -> Tensor:
    """(n, groups, D) what sampled outputs are computed from, in the dtype of the inputs.

    Args:
        call: the call.
        examples: in the batch.
        positions: how many positions of each example at most.
        taps: of a convolution, all that its kernel covers; without, sampled pixels of its inputs (D is channels alone).
    """
    if call.kind == "product":
        tokens = _tokens(call.inputs, examples)
        return _at(tokens.transpose(1, 2), _sampled(call.name, tokens.shape[:2], positions))[:, None]
    x = call.inputs if call.inputs.ndim == len(call.kernel) + 2 else call.inputs[None]
    n, channels = x.shape[:2]
    if not taps:
        sampled = _at(x.flatten(2), _sampled(call.name, (n, math.prod(x.shape[2:])), positions))
        return sampled.reshape(-1, call.groups, channels // call.groups)
    x, stride = _surrounded(call, x)
    out = [
        (size - d * (k - 1) - 1) // s + 1
        for size, d, k, s in zip(x.shape[2:], call.dilation, call.kernel, stride, strict=True)
    ]
    chosen = _sampled(call.name, (n, math.prod(out)), positions).to(x.device)
    steps = [math.prod(x.shape[3 + d :]) for d in range(len(out))]
    starts, left = torch.zeros_like(chosen), chosen
    for d in reversed(range(len(out))):
        starts += left % out[d] * (stride[d] * steps[d])
        left = left // out[d]
    offsets = torch.zeros(1, dtype=torch.int64, device=x.device)
    for d, size in enumerate(call.kernel):
        along = torch.arange(size, device=x.device) * (call.dilation[d] * steps[d])
        offsets = (offsets[:, None] + along).flatten()
    places = (starts[:, :, None] + offsets).flatten(1)[:, None].expand(n, channels, -1)
    found = x.flatten(2).gather(2, places).reshape(n, channels, -1, len(offsets))
    return found.transpose(1, 2).reshape(-1, call.groups, channels // call.groups * len(offsets))


def output_rows(call: WeightCall, outputs: Tensor, examples: int, *, positions: int = POSITIONS) -> Tensor:
    """(n, outputs) of the call, or of whatever has its shape, at the positions of `input_rows`."""
    if call.kind == "product":
        tokens = _tokens(outputs, examples)
        return _at(tokens.transpose(1, 2), _sampled(call.name, tokens.shape[:2], positions))
    return map_rows(call.name, outputs if outputs.ndim == len(call.kernel) + 2 else outputs[None], positions=positions)


def map_rows(name: str, maps: Tensor, *, positions: int = POSITIONS) -> Tensor:
    """(n, channels) of (N, channels, *spatial) at sampled positions, the same ones for the same name and sizes."""
    pixels = maps.reshape(*maps.shape[:2], -1)
    return _at(pixels, _sampled(name, (pixels.shape[0], pixels.shape[2]), positions))


def _tokens(values: Tensor, examples: int) -> Tensor:
    """(examples, positions, channels); where rows do not divide among the examples, each is an example."""
    rows = values.reshape(-1, values.shape[-1])
    return rows.reshape(examples if len(rows) % examples == 0 else len(rows), -1, rows.shape[1])


def _sampled(name: str, shape: tuple[int, ...] | torch.Size, positions: int) -> Tensor:
    """(N, P) positions, the same ones each time for the same name and sizes: dense and cut networks agree."""
    n, available = shape
    if available <= positions:
        return torch.arange(available).expand(n, available)
    generator = torch.Generator().manual_seed(zlib.crc32(name.encode()))
    return torch.rand(n, available, generator=generator).topk(positions, dim=1).indices


def _at(values: Tensor, places: Tensor) -> Tensor:
    """(N * P, C) of (N, C, L)."""
    n, channels, _ = values.shape
    places = places.to(values.device)
    return values.gather(2, places[:, None].expand(n, channels, -1)).transpose(1, 2).reshape(-1, channels)


def _surrounded(call: WeightCall, x: Tensor) -> tuple[Tensor, tuple[int, ...]]:
    """Inputs with the zeros around (and between) them, and the stride with which the kernel goes over them."""
    around, stride = call.padding, call.stride
    if call.kind == "transposed":
        apart = [(size - 1) * s + 1 for size, s in zip(x.shape[2:], stride, strict=True)]
        between = x.new_zeros(*x.shape[:2], *apart)
        between[(slice(None), slice(None), *(slice(None, None, s) for s in stride))] = x
        reach = [d * (k - 1) for d, k in zip(call.dilation, call.kernel, strict=True)]
        more = call.output_padding
        around = tuple((r - p, r - p + m) for r, (p, _), m in zip(reach, around, more, strict=True))
        x, stride = between, (1,) * len(stride)
    return F.pad(x, [size for pair in reversed(around) for size in pair]), stride
