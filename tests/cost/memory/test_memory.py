"""Sizes and peak memory against networks really built and what PyTorch's allocator reports, and by hand."""

from __future__ import annotations

from collections.abc import Callable
from functools import cache
from typing import Any

import numpy as np
import pytest
import torch
from torch import Tensor, nn
from torch.profiler import ProfilerActivity, profile

from autoprune.config.space import SpaceOptions
from autoprune.cost.memory.peak_memory_mb import peak_memory_mb
from autoprune.cost.memory.size_mb import size_mb
from autoprune.cost.pricing import make_metric
from autoprune.cost.unpriced import UnpricedError
from autoprune.errors import ConfigError
from autoprune.space.cutting.slicing import random_ranking, slice_model
from autoprune.space.groups import SearchSpace, Widths
from autoprune.space.tracing.shapes import with_shapes
from autoprune.space.tracing.trace import trace
from autoprune.space.verification.verify import verify
from autoprune.testing.spaces import chain_space
from autoprune.zoo import build_model

IMAGE = torch.zeros(1, 3, 32, 32)
BLOCKED = pytest.mark.skipif(
    torch.backends.cpu.get_cpu_capability() != "AVX512", reason="oneDNN's blocks are of another size here"
)


class SmallViT(nn.Module):
    """Patches, a class token, three encoder layers."""

    def __init__(self, width: int = 96) -> None:
        super().__init__()
        self.patches = nn.Conv2d(3, width, 4, 4)
        self.token = nn.Parameter(torch.randn(1, 1, width))
        self.positions = nn.Parameter(torch.randn(1, 65, width))
        layer = nn.TransformerEncoderLayer(width, 4, 4 * width, batch_first=True, dropout=0.0, norm_first=True)
        self.layers = nn.TransformerEncoder(layer, 3, enable_nested_tensor=False)
        self.head = nn.Linear(width, 10)

    def forward(self, x: Tensor) -> Tensor:
        x = self.patches(x).flatten(2).transpose(1, 2)
        x = torch.cat([self.token.expand(len(x), -1, -1), x], 1) + self.positions
        out: Tensor = self.head(self.layers(x)[:, 0])
        return out


class WrittenOut(nn.Module):
    """Two attentions of plain products, one projection for queries, keys and values or three."""

    def __init__(self, width: int = 48, heads: int = 4, *, fused: bool = False) -> None:
        super().__init__()
        self.heads, self.fused = heads, fused
        self.embed, self.head = nn.Linear(24, width), nn.Linear(width, 10)
        self.norms = nn.ModuleList(nn.LayerNorm(width) for _ in range(2))
        parts = 1 if fused else 3
        self.inner = nn.ModuleList(nn.Linear(width, 3 * width // parts) for _ in range(2 * parts))
        self.out = nn.ModuleList(nn.Linear(width, width) for _ in range(2))

    def split(self, x: Tensor, layer: int) -> tuple[Tensor, ...]:
        b, n, c = x.shape
        if self.fused:
            q, k, v = self.inner[layer](x).reshape(b, n, 3, self.heads, c // self.heads).permute(2, 0, 3, 1, 4).unbind()
            return q, k, v
        parts = self.inner[3 * layer : 3 * layer + 3]
        return tuple(part(x).view(b, n, self.heads, c // self.heads).transpose(1, 2) for part in parts)

    def forward(self, x: Tensor) -> Tensor:
        x = self.embed(x)
        for layer, (norm, out) in enumerate(zip(self.norms, self.out, strict=True)):
            q, k, v = self.split(norm(x), layer)
            scores = (q @ k.transpose(-2, -1)) * q.shape[-1] ** -0.5
            mixed = scores.softmax(-1) @ v
            x = x + out(mixed.transpose(1, 2).flatten(2))
        result: Tensor = self.head(x.mean(1))
        return result


@cache
def network(name: str, *, blocks: bool = False) -> tuple[nn.Module, SearchSpace]:
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(0)
        model = SmallViT() if name == "vit" else build_model(name)
    traced = trace(model, IMAGE, options=SpaceOptions(blocks=blocks))
    if name != "vit":
        return model, with_shapes(traced.space, traced.program, model)
    verified = verify(model, traced)
    return verified.network, with_shapes(verified.space, traced.program, model)


def members(space: SearchSpace) -> list[Widths]:
    rng = np.random.default_rng(0)
    drawn = [tuple(int(rng.choice(group.choices)) for group in space.groups) for _ in range(2)]
    return [space.full, space.uniform(0.5), *drawn]


def allocated(model: nn.Module, inputs: Tensor) -> int:
    """Bytes at the highest point of a forward pass, those of inputs and weights included."""
    with torch.no_grad():
        model(inputs)
        with profile(activities=[ProfilerActivity.CPU], profile_memory=True) as recorded:
            model(inputs)
    held = highest = 0
    for event in recorded.profiler.kineto_results.events():  # type: ignore[union-attr]
        if event.name() == "[memory]":
            held += event.nbytes()
            highest = max(highest, held)
    tensors = (inputs, *model.parameters(), *model.buffers())
    return highest + sum(tensor.numel() * tensor.element_size() for tensor in tensors)


def volumes(**inner: Any) -> nn.Module:
    """Convolutions over three dimensions, the middle one as given."""
    layer = (nn.ConvTranspose3d if inner.pop("transposed", False) else nn.Conv3d)(64, 48, **inner)
    ends = nn.Conv3d(2, 64, 3, padding=1), nn.Conv3d(48, 8, 1)
    return nn.Sequential(ends[0], nn.ReLU(), layer, nn.ReLU(), ends[1])


@BLOCKED
@pytest.mark.parametrize("batch", [1, 4])
@pytest.mark.parametrize(
    "inner",
    [
        {"kernel_size": 3, "padding": 1},
        {"kernel_size": 3, "stride": 2},
        {"kernel_size": (3, 1, 1), "padding": (1, 0, 0)},
        {"kernel_size": (1, 3, 3), "padding": (0, 1, 1)},
        {"kernel_size": 1},
        {"kernel_size": 5, "padding": 2},
        {"kernel_size": 2, "stride": 2, "transposed": True},
    ],
)
def test_peak_memory_of_convolutions_over_three_dimensions(inner: dict[str, Any], batch: int) -> None:
    """PyTorch leaves the last dimension out where it tells small inputs, which get a matrix of patches."""
    model, inputs = volumes(**inner), torch.randn(batch, 2, 6, 16, 20)
    traced = trace(model, inputs)
    space = with_shapes(traced.space, traced.program, model)
    peak, ranking = peak_memory_mb(space, batch=batch), random_ranking(space, np.random.default_rng(0))
    for widths in (space.full, space.uniform(0.75), space.uniform(0.4)):
        built = slice_model(model, space, widths, ranking).eval()
        measured = allocated(built, inputs) / 1e6
        assert peak(np.array([widths]))[0] == pytest.approx(measured, rel=0.03)


@BLOCKED
@pytest.mark.parametrize("batch", [1, 8])
@pytest.mark.parametrize("name", ["resnet20", "mobilenetv2", "vgg16", "densenet40", "vit"])
def test_peak_memory_is_what_the_allocator_reports(name: str, batch: int) -> None:
    model, space = network(name)
    peak, ranking = peak_memory_mb(space, batch=batch), random_ranking(space, np.random.default_rng(0))
    for widths in members(space):
        built = slice_model(model, space, widths, ranking).eval()
        measured = allocated(built, torch.randn(batch, 3, 32, 32)) / 1e6
        assert peak(np.array([widths]))[0] == pytest.approx(measured, rel=0.02)


@BLOCKED
def test_blocks_that_are_off_take_no_memory() -> None:
    model, space = network("resnet20", blocks=True)
    peak, rng = peak_memory_mb(space, batch=8), np.random.default_rng(0)
    rows = [tuple(int(rng.choice(group.choices)) for group in space.groups) for _ in range(4)]
    rows += [tuple(0 if i in space.presence.blocks else w for i, w in enumerate(space.full))]
    for widths in rows:
        built = slice_model(model, space, widths, random_ranking(space, rng)).eval()
        measured = allocated(built, torch.randn(8, 3, 32, 32)) / 1e6
        assert peak(np.array([widths]))[0] == pytest.approx(measured, rel=0.05)


@pytest.mark.parametrize("fused", [False, True])
@pytest.mark.parametrize("traced", [1, 2])
def test_products_of_transposed_heads_copy_them_in_a_batch(fused: bool, traced: int) -> None:
    torch.manual_seed(0)
    model = WrittenOut(fused=fused)
    found = trace(model, torch.zeros(traced, 9, 24))
    verified = verify(model, found)
    space = with_shapes(verified.space, found.program, model)
    smallest = tuple(group.choices[0] for group in space.groups)
    assert any(group.kind == "heads" for group in space.groups)
    for batch in (1, 3):
        peak, ranking = peak_memory_mb(space, batch=batch), random_ranking(space, np.random.default_rng(0))
        graph = peak_memory_mb(space, batch=batch, device="any")
        for widths in (*members(space), smallest):
            built = slice_model(verified.network, space, widths, ranking).eval()
            measured = allocated(built, torch.randn(batch, 9, 24)) / 1e6
            assert peak(np.array([widths]))[0] == pytest.approx(measured, rel=0.01)
        rows = np.array([*members(space), smallest])
        assert (peak(rows) > 1.03 * graph(rows)).any() == (batch > 1), "what the copies add"


class Lines(nn.Module):
    """Linear layers of 4, 6 and 2 on 3 rows; what is alive at once can be counted by hand."""

    def __init__(self) -> None:
        super().__init__()
        self.first, self.second, self.last = nn.Linear(4, 4), nn.Linear(4, 6), nn.Linear(6, 2)

    def forward(self, x: Tensor) -> Tensor:
        x = self.first(x)
        x = torch.relu_(x)
        x = self.second(x) * 2
        out: Tensor = self.last(x)
        return out


def test_peak_memory_by_hand() -> None:
    model = Lines()
    traced = trace(model, torch.zeros(3, 4))
    space = with_shapes(traced.space, traced.program, model)
    weights = 4 * (4 * 5 + 6 * 5 + 2 * 7)
    # at `* 2`: the input, x of the line before (a variable), what second gave, and the product
    full = 3 * 4 * (4 + 4 + 6 + 6)
    cost = peak_memory_mb(space)
    assert cost(np.array([space.full]))[0] * 1e6 == pytest.approx(full + weights)
    narrow, wide = 3 * 4 * (4 + 1 + 6 + 6), 4 * (1 * 5 + 6 * 2 + 2 * 7)
    assert cost(np.array([[1, 6]]))[0] * 1e6 == pytest.approx(narrow + wide)
    assert peak_memory_mb(space, batch=6)(np.array([space.full]))[0] * 1e6 == pytest.approx(2 * full + weights)
    half = peak_memory_mb(space, dtype="float16")(np.array([space.full]))[0]
    assert half * 1e6 == pytest.approx((full + weights) / 2)


@pytest.mark.parametrize("name", ["resnet20", "densenet40", "vit"])
def test_many_rows_are_each_what_they_are_alone_and_more_channels_never_take_less(name: str) -> None:
    _, space = network(name)
    cost, rng = peak_memory_mb(space, batch=4), np.random.default_rng(1)
    rows = np.stack([rng.choice(group.choices, 200) for group in space.groups], axis=1)
    together = cost(rows)
    assert [cost(row[None])[0] for row in rows[:20]] == pytest.approx(together[:20].tolist())
    wider = np.minimum(rows + rng.integers(0, 5, rows.shape), np.array(space.full))
    assert (cost(wider) >= together).all()
    graph = peak_memory_mb(space, batch=4, device="any")(rows)
    assert (graph <= together).all()


@pytest.mark.parametrize("name", ["resnet20", "mobilenetv2", "vit"])
def test_size_is_that_of_all_tensors_of_the_network(name: str) -> None:
    model, space = network(name)
    for widths in members(space):
        built = slice_model(model, space, widths, random_ranking(space, np.random.default_rng(0)))
        tensors = [*built.parameters(), *built.buffers()]
        row = np.array([widths])
        assert size_mb(space)(row)[0] == sum(t.numel() * t.element_size() for t in tensors) / 1e6
        floating = sum(t.numel() * (2 if t.is_floating_point() else t.element_size()) for t in tensors)
        assert size_mb(space, dtype="bfloat16")(row)[0] == floating / 1e6


def test_size_of_a_network_without_a_block() -> None:
    model, space = network("resnet20", blocks=True)
    widths = tuple(0 if index in space.presence.blocks else width for index, width in enumerate(space.full))
    built = slice_model(model, space, widths, random_ranking(space, np.random.default_rng(0)))
    tensors = [*built.parameters(), *built.buffers()]
    assert size_mb(space)(np.array([widths]))[0] == sum(t.numel() * t.element_size() for t in tensors) / 1e6


@pytest.mark.parametrize(
    ("make", "message"),
    [
        (lambda s: peak_memory_mb(s, batch=0), "peak_memory_mb: batch must be a whole number of at least 1, got 0"),
        (lambda s: peak_memory_mb(s, threads=True), "threads must be a whole number"),
        (lambda s: peak_memory_mb(s, device="tpu"), "device 'tpu' is unknown; choose cpu or any"),
        (lambda s: peak_memory_mb(s, dtype="float61"), "dtype 'float61' is unknown.*Did you mean 'float64'"),
        (lambda s: size_mb(s, dtype="half"), "dtype 'half' is unknown; choose one of float64"),
    ],
)
def test_settings_out_of_range(make: Callable[[SearchSpace], object], message: str) -> None:
    with pytest.raises(ConfigError, match=message):
        make(network("resnet20")[1])


def test_a_space_without_its_graph_has_no_peak_memory() -> None:
    with pytest.raises(UnpricedError, match=r"needs the calls of the model's graph.*trace the model anew"):
        peak_memory_mb(chain_space((8, 8)))
    assert make_metric("params", chain_space((8, 8)), {})(np.array([[8, 8]]))[0] > 0
