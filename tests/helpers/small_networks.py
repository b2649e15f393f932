"""Three small traced networks of different kinds, and a made-up device profile; each is traced once per process."""

from __future__ import annotations

from functools import cache
from pathlib import Path

import numpy as np
import torch
from torch import Tensor, nn

import autoprune
from autoprune.config.space import SpaceOptions
from autoprune.cost.latency.device_profile import Conditions, DeviceProfile, Grid, KernelTable, cpu_name
from autoprune.cost.latency.kernels import DeviceKernel, distinct_kernels, timed_calls
from autoprune.cost.latency.latency_ms import FEATURES
from autoprune.cost.latency.wider_kernels import full_sizes
from autoprune.space.groups import SearchSpace
from autoprune.zoo import build_model

NETWORKS = ("resnet20", "mobilenetv2", "transformer")


class TransformerLayer(nn.Module):
    """Attention and MLP, each with a norm before it and added to its input."""

    def __init__(self, dim: int, heads: int) -> None:
        super().__init__()
        self.norm1, self.norm2 = nn.LayerNorm(dim), nn.LayerNorm(dim)
        self.attention = nn.MultiheadAttention(dim, heads, batch_first=True)
        self.mlp = nn.Sequential(nn.Linear(dim, 4 * dim), nn.GELU(), nn.Linear(4 * dim, dim))

    def forward(self, x: Tensor) -> Tensor:
        y = self.norm1(x)
        x = x + self.attention(y, y, y, need_weights=False)[0]
        out: Tensor = x + self.mlp(self.norm2(x))
        return out


class Transformer(nn.Module):
    """Patches of 4 x 4 pixels, three layers of four heads, mean over tokens, classifier."""

    def __init__(self) -> None:
        super().__init__()
        self.embed = nn.Conv2d(3, 32, 4, stride=4)
        self.layers = nn.ModuleList(TransformerLayer(32, 4) for _ in range(3))
        self.norm, self.head = nn.LayerNorm(32), nn.Linear(32, 10)

    def forward(self, x: Tensor) -> Tensor:
        x = self.embed(x).flatten(2).transpose(1, 2)
        for layer in self.layers:
            x = layer(x)
        out: Tensor = self.head(self.norm(x).mean(1))
        return out


@cache
def network(name: str) -> nn.Module:
    """One of `NETWORKS`, or of the zoo at half its width."""
    with torch.random.fork_rng():
        torch.manual_seed(0)
        return (
            Transformer() if name == "transformer" else build_model(name, {"width": 0.5 if name != "resnet20" else 1})
        )


@cache
def space_of(name: str, options: SpaceOptions | Path | None = None) -> SearchSpace:
    """Its space for an image of 16 x 16."""
    return autoprune.trace(network(name), torch.zeros(1, 3, 16, 16), options=options, verify=False).search_space


@cache
def profile_of(name: str) -> DeviceProfile:
    """A profile of the network as it is, nothing tied: a kernel takes a microsecond for each unit of its shapes."""
    space, tables = space_of(name), dict[str, KernelTable | None]()
    for kernel_name, (kernel, calls) in distinct_kernels(timed_calls(space)).items():
        few = kernel.axes <= 2
        axes = tuple(np.array([1.0, n / 2, n]) for n in full_sizes(kernel, calls, space)) if few else ()
        tables[kernel_name] = KernelTable(1, (Grid(axes, _times(kernel, axes)),)) if few else None
    weights = tuple(np.linspace(0.5, 1.5, len(FEATURES)))
    return DeviceProfile(Conditions(batch=1), cpu_name(), {"torch": "2"}, "2026-01-01", tables, FEATURES, weights)


def _times(kernel: DeviceKernel, axes: tuple[np.ndarray, ...]) -> np.ndarray:
    """The sum of all sizes of all operands, in microseconds: the same however many of them are one axis."""
    total = np.zeros([len(axis) for axis in axes])
    grid = np.meshgrid(*axes, indexing="ij") if axes else []
    for operand in kernel.operands:
        for size in operand.dimensions:
            total = total + (size if isinstance(size, int) else size[1] * grid[size[0]])
    return 1e-3 * total
