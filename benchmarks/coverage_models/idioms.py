"""About sixty small models, one for each idiom: operators, broadcasts, attention, weights that are computed, forms."""

from __future__ import annotations

import warnings
from collections.abc import Callable
from typing import Any, TypeAlias

import torch
from torch import Tensor, nn
from torch.nn import functional as F
from torch.nn.utils import parametrizations, prune

from coverage_models.catalogue import Entry, Example
from coverage_models.idiom_networks import (
    HEADS,
    KAN,
    LENGTH,
    WIDTH,
    Attention,
    Encoder,
    Experts,
    GraphAttention,
    Layers,
    Maps,
    OwnNorm,
    SegNet,
    Sequence,
)
from coverage_models.published import published

SOURCE = "idiom"
Made: TypeAlias = Callable[[], nn.Module]
_PLACES = torch.tensor([0, 1])


def idioms() -> list[Entry]:
    """All idioms, by kind."""
    entries = [
        *(_entry("operator", name, lambda step=step: Maps(step), _image) for name, step in _OPERATORS.items()),
        *(_entry("broadcast", name, lambda step=step: Maps(step), _image) for name, step in _BROADCASTS.items()),
        *(_entry("attention", name, make, _sequence) for name, make in _ATTENTION.items()),
        *(_entry("computed weight", name, make, _image) for name, make in _WEIGHTS.items()),
        *(_entry("form", name, make, example) for name, (make, example) in _FORMS.items()),
    ]
    return [*entries, *published(SOURCE)]


def _entry(kind: str, name: str, make: Made, example: Callable[[], Example]) -> Entry:
    def build() -> tuple[nn.Module, Example]:
        torch.manual_seed(0)
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            return make().eval(), example()

    return Entry(SOURCE, name, kind, "", build)


def _image() -> Tensor:
    return torch.randn(2, 3, 8, 8)


def _sequence() -> Tensor:
    return torch.randn(2, LENGTH, 12)


def _tokens() -> Tensor:
    return torch.randint(1, 50, (2, LENGTH))


def _graph() -> tuple[Tensor, Tensor]:
    return torch.randn(9, 12), torch.stack([torch.arange(9), (torch.arange(9) * 4 + 1) % 9])


def _zeroed(y: Tensor) -> Tensor:
    y = y.clone()
    y[y < 0] = 0
    return y


_OPERATORS: dict[str, Callable[[Any, Tensor], Tensor]] = {
    "where with a number": lambda n, y: torch.where(y > 0, y, 0.0),
    "write at a mask": lambda n, y: _zeroed(y),
    "topk over pixels": lambda n, y: y * y.flatten(2).topk(8)[0].mean(-1)[..., None, None],
    "sort over pixels": lambda n, y: y.flatten(2).sort(-1)[0].view(y.shape),
    "median over pixels": lambda n, y: y - y.flatten(2).median(-1)[0][..., None, None],
    "cummax over pixels": lambda n, y: y.cummax(-1)[0],
    "index_add over pixels": lambda n, y: y.flatten(2).index_add(2, _PLACES, y.flatten(2)[:, :, :2]).view(y.shape),
    "roll and flip": lambda n, y: y.roll(1, 3).flip(2),
    "FFT over pixels": lambda n, y: torch.fft.irfft2(torch.fft.rfft2(y), s=y.shape[-2:]),
    "cosine similarity of channels": lambda n, y: y * F.cosine_similarity(y, y.flip(3), dim=1)[:, None],
    "cdist over pixels": lambda n, y: y + torch.cdist(y.flatten(2), y.flatten(2)).mean(-1)[..., None, None],
    "max_unpool2d": lambda n, y: F.max_unpool2d(*F.max_pool2d(y, 2, return_indices=True), 2),
    "every second channel": lambda n, y: torch.cat([y[:, ::2], y[:, 1::2]], 1),
    "Gram matrix of channels": lambda n, y: (torch.bmm(y.flatten(2), y.flatten(2).mT).softmax(-1) @ y.flatten(2)).view(
        y.shape
    ),
    "channel shuffle": lambda n, y: y.view(len(y), 2, -1, 8, 8).transpose(1, 2).reshape(len(y), -1, 8, 8),
    "chunk and gate": lambda n, y: torch.cat([(p := y.chunk(2, 1))[0] * p[1].sigmoid(), p[1]], 1),
    "grid_sample": lambda n, y: F.grid_sample(
        y, F.affine_grid(torch.eye(2, 3).expand(len(y), 2, 3), list(y.shape), align_corners=False), align_corners=False
    ),
}
_BROADCASTS: dict[str, Callable[[Any, Tensor], Tensor]] = {
    "implicit": lambda n, y: y * y.mean(1, keepdim=True).sigmoid(),
    "expand": lambda n, y: y * y.mean(1, keepdim=True).expand(-1, y.shape[1], -1, -1).sigmoid(),
    "expand_as": lambda n, y: y * y.amax((1, 2, 3), keepdim=True).expand_as(y).sigmoid(),
    "repeat": lambda n, y: y + torch.linspace(0, 1, 8).view(1, 1, 1, 8).repeat(len(y), y.shape[1], 8, 1),
    "repeat_interleave": lambda n, y: y + torch.linspace(0, 1, 8).view(1, 1, 8).repeat_interleave(y.shape[1], 0)[None],
    "one filter for all": lambda n, y: F.conv2d(
        y, torch.ones(1, 1, 3, 3).repeat(y.shape[1], 1, 1, 1) / 9, padding=1, groups=y.shape[1]
    ),
}


def _causal() -> Tensor:
    return torch.zeros(LENGTH, LENGTH).masked_fill(torch.ones(LENGTH, LENGTH).triu(1).bool(), -1e4)[None, None]


def _twice(n: Any, scores: Tensor) -> Tensor:
    batch = _causal().expand(len(scores), 1, LENGTH, LENGTH)
    return scores + torch.where(batch < 0, -1e4, torch.zeros(1, n.num_heads, LENGTH, LENGTH))


_ATTENTION: dict[str, Made] = {
    "written out": Attention,
    "fused": lambda: Attention(fused=True),
    "grouped queries": lambda: Attention(shared=2),
    "norm of queries and keys": lambda: Attention(norm=nn.RMSNorm, fused=True),
    "norm of queries and keys, written out": lambda: Attention(norm=OwnNorm, fused=True),
    "gate for each head": lambda: Attention(gated=True),
    "mask": lambda: Attention(mask=lambda n, s: s + _causal()),
    "mask spread over heads": lambda: Attention(mask=lambda n, s: s + _causal().expand(len(s), n.num_heads, -1, -1)),
    "mask spread over batch, then heads": lambda: Attention(mask=_twice),
    "nn.MultiheadAttention": lambda: Sequence(
        nn.TransformerEncoderLayer(WIDTH, HEADS, 64, batch_first=True, norm_first=True)
    ),
    "LSTM": lambda: Sequence(nn.LSTM(WIDTH, 24, batch_first=True), lambda made: made[0], 24),
    "GRU of two directions": lambda: Sequence(
        nn.GRU(WIDTH, 24, batch_first=True, bidirectional=True), lambda made: made[0], 48
    ),
    "experts, all at once": lambda: Sequence(Experts(grouped=False)),
    "experts, grouped_mm": lambda: Sequence(Experts(grouped=True)),
}


def _layers(norm: Callable[[nn.Module], nn.Module]) -> Made:
    return lambda: Layers(norm(nn.Conv2d(3, 16, 3)), norm(nn.Conv2d(16, 24, 3)), nn.Conv2d(24, 4, 1))


def _equalised(layer: nn.Module) -> nn.Module:
    weight = layer._parameters.pop("weight")
    layer.register_parameter("weight_orig", weight)
    layer.register_forward_pre_hook(lambda module, _: setattr(module, "weight", module.weight_orig * 0.5))
    layer.weight = layer.weight_orig.detach() * 0.5
    return layer


def _quantised() -> nn.Module:
    quantisation: Any = torch.ao.quantization
    model = nn.Sequential(nn.Conv2d(3, 16, 3), nn.ReLU(), nn.Conv2d(16, 8, 3)).train()
    model.qconfig = quantisation.get_default_qat_qconfig("qnnpack")
    model = quantisation.prepare_qat(model)
    model(_image())
    model.apply(quantisation.disable_observer)
    return model


_WEIGHTS: dict[str, Made] = {
    "weight norm, parametrization": _layers(parametrizations.weight_norm),
    "weight norm, hook": _layers(nn.utils.weight_norm),
    "spectral norm, parametrization": _layers(parametrizations.spectral_norm),
    "spectral norm, hook": _layers(nn.utils.spectral_norm),
    "pruning mask, hook": _layers(lambda layer: prune.l1_unstructured(layer, "weight", 0.3)),
    "a hook of one's own": _layers(_equalised),
    "quantisation-aware training": _quantised,
    "KAN": lambda: nn.Sequential(nn.AvgPool2d(4), nn.Flatten(), KAN(12, 16), KAN(16, 12), KAN(12, 3)),
}
_FORMS: dict[str, tuple[Made, Callable[[], Example]]] = {
    "sizes baked into view": (
        lambda: Maps(lambda n, y: y.view(-1, 16, 64).view(-1, 16, 8, 8)),
        _image,
    ),
    "chunk of a layer (C2f)": (
        lambda: Maps(
            lambda n, y: torch.cat([*(p := y.chunk(2, 1)), p[1] + n.inner(p[1])], 1), width=24, inner=nn.Conv2d(8, 8, 1)
        ),
        _image,
    ),
    "SegNet": (SegNet, _image),
    "graph attention by index_add": (GraphAttention, _graph),
    "encoder": (Encoder, _tokens),
    "encoder, causal mask": (lambda: Encoder(causal=True), _tokens),
    "encoder, padding mask": (lambda: Encoder(padding=True), _tokens),
}
