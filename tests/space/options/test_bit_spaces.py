"""Spaces of bits: rounding against a quantiser in numpy, sizes against what packing takes, widths beside them."""

from __future__ import annotations

import json
from typing import Any

import numpy as np
import numpy.typing as npt
import pytest
import torch
from torch import Tensor, nn

import autoprune
from autoprune.allocation import ALLOCATIONS
from autoprune.api.space import Space
from autoprune.cost import METRICS
from autoprune.cost.budget.repair import BudgetedSpace
from autoprune.errors import ConfigError, SpaceError
from autoprune.importance.members import channel_scores
from autoprune.space.cutting.rounded import bits_of, keep_bits, rounded
from autoprune.space.serial import from_json, to_json


class Small(nn.Module):
    """Plain, transposed and depthwise convolutions, and a layer whose scales take as much as its weights."""

    def __init__(self) -> None:
        super().__init__()
        self.stem, self.norm = nn.Conv2d(3, 12, 3, padding=1), nn.BatchNorm2d(12)
        self.down, self.deep = nn.Conv2d(12, 16, 3, stride=2, bias=False), nn.Conv2d(16, 16, 3, padding=1, groups=16)
        self.up = nn.ConvTranspose2d(16, 8, 2, stride=2)
        self.each = nn.Conv2d(8, 8, 1, groups=8)
        self.head = nn.Linear(8, 10)

    def forward(self, x: Tensor) -> Tensor:
        x = torch.relu(self.deep(torch.relu(self.down(torch.relu(self.norm(self.stem(x)))))))
        return self.head(torch.relu(self.each(torch.relu(self.up(x)))).mean((2, 3)))  # type: ignore[no-any-return]


EXAMPLE = torch.randn(1, 3, 8, 8, generator=torch.Generator().manual_seed(0))
Numbers = npt.NDArray[np.float32]


def small() -> nn.Module:
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(0)
        return Small().eval()


def traced(**bits: Any) -> Space:
    return autoprune.trace(small(), EXAMPLE, options={"bits": bits})


def by_hand(weight: Numbers, bits: int) -> tuple[Numbers, npt.NDArray[np.int64], Numbers]:
    """Numbers, whole numbers and scales, one row of the weights after the other."""
    levels = 2 ** (bits - 1) - 1
    made, codes, scales = np.zeros_like(weight), np.zeros(weight.shape, dtype=np.int64), []
    for at, row in enumerate(weight):
        best = None
        for sixteenths in range(16, 3, -1):
            scale = np.float32(sixteenths / 16) * (np.abs(row).max() / np.float32(levels))
            scale = (np.float32(scale).view(np.int32) & ~np.int32(255)).view(np.float32)
            code = np.clip(np.round(row / scale), -levels, levels)
            error = np.square((code * scale).astype(np.float32) - row, dtype=np.float32).sum()
            if best is None or error < best[0] * (1 - 1e-5):
                best = error, code, scale
        assert best is not None
        codes[at], made[at] = best[1], best[1].astype(np.float32) * best[2]
        scales.append(best[2])
    return made, codes, np.array(scales, dtype=np.float32)


@pytest.mark.parametrize("bits", range(2, 9))
def test_rounding_is_that_of_a_quantiser_in_numpy_and_of_torch(bits: int) -> None:
    weight = torch.randn(7, 30, generator=torch.Generator().manual_seed(bits))
    found = rounded(weight, bits)
    made, codes, scales = by_hand(weight.numpy(), bits)
    assert np.array_equal(found.numpy(), made)
    levels = 2 ** (bits - 1) - 1
    assert np.abs(codes).max(axis=1).tolist() == [levels] * 7
    zero = torch.zeros(7, dtype=torch.int32)
    theirs = torch.fake_quantize_per_channel_affine(weight, torch.from_numpy(scales), zero, 0, -levels, levels)
    torch.testing.assert_close(found, theirs, rtol=1e-6, atol=0)
    assert torch.equal(rounded(found, bits), found)  # to the bit
    largest = weight.abs().amax(1, keepdim=True) / levels
    assert (
        (found - weight).square().sum() <= ((weight / largest).round() * largest - weight).square().sum() + 1e-6
    ).all()


def test_outputs_have_scales_of_their_own_along_their_axis() -> None:
    weight = torch.randn(5, 4, 3, 3, generator=torch.Generator().manual_seed(1))
    weight[:, 2] *= 100.0
    found = rounded(weight, 3, 1)
    rows = by_hand(weight.transpose(0, 1).flatten(1).numpy(), 3)[0]
    assert np.array_equal(found.transpose(0, 1).flatten(1).numpy(), rows)
    dead = torch.zeros(2, 3)
    assert torch.equal(rounded(dead, 4), dead)


def test_sizes_are_what_packed_weights_scales_and_the_rest_take() -> None:
    model, space = small(), traced()
    rng = np.random.default_rng(0)
    assert space.cost(space.full)["size_mb"] == pytest.approx(sum(t.nbytes for t in model.state_dict().values()) / 1e6)
    for _ in range(5):
        widths = tuple(int(rng.choice(group.choices)) for group in space.groups)
        network, bits = space.slice(model, widths), 0
        with_bits = bits_of(network)
        for name, tensor in network.state_dict().items():
            if name not in with_bits:
                bits += 8 * tensor.nbytes
                continue
            laid = tensor.transpose(0, 1) if name == "up.weight" else tensor
            codes = by_hand(laid.flatten(1).numpy(), with_bits[name])[1] + 2 ** (with_bits[name] - 1)
            packed = (codes.reshape(-1, 1) >> np.arange(with_bits[name])) & 1
            assert np.array_equal((packed << np.arange(with_bits[name])).sum(1), codes.ravel())  # they fit
            bits += packed.size + 32 * len(laid)
        costs = space.cost(widths)
        assert costs["size_mb"] == pytest.approx(bits / 8e6, abs=1e-12)
        assert costs["flops"] == space.cost(space.full)["flops"]
        assert costs["params"] == sum(p.numel() for p in model.parameters())
        assert costs["peak_memory_mb"] == space.cost(space.full)["peak_memory_mb"]


def test_bits_and_widths_share_one_closed_form() -> None:
    model, space = small(), traced(widths=True, choices=[4, 8])
    kinds = {group.kind for group in space.groups}
    assert kinds == {"channels", "bits"}
    domain = BudgetedSpace(space.search_space, {"size_mb": "12%"})
    rows = domain.sample(20, np.random.default_rng(0))
    for row in (*rows, np.array(domain.uniform())):
        widths = tuple(int(w) for w in row)
        network, bits = space.slice(model, widths), 0
        number = bits_of(network)
        for name, tensor in network.state_dict().items():
            outputs = tensor.shape[1] if name == "up.weight" else tensor.shape[0] if tensor.ndim else 1
            bits += number[name] * tensor.numel() + 32 * outputs if name in number else 8 * tensor.nbytes
            if name in number:
                assert torch.equal(rounded(tensor, number[name], int(name == "up.weight")), tensor)
        assert space.cost(widths)["size_mb"] == pytest.approx(bits / 8e6, abs=1e-12)
        assert bits / 8e6 <= 0.12 * space.cost(space.full)["size_mb"]
    assert len(np.unique(rows, axis=0)) > 10
    fitted = space.slice(model, tuple(int(w) for w in rows[0]), inherit=["least_squares"], calibration=EXAMPLE)
    before = {name: tensor.clone() for name, tensor in fitted.state_dict().items()}
    keep_bits(fitted)
    assert all(torch.equal(tensor, before[name]) for name, tensor in fitted.state_dict().items())


def test_uniform_is_one_number_of_bits_and_the_next_in_some_layers() -> None:
    space = traced().search_space
    for share in ("16%", "19%", "24%"):
        domain = BudgetedSpace(space, {"size_mb": share})
        uniform = sorted(set(domain.uniform()))
        assert len(uniform) <= 2
        assert uniform[-1] - uniform[0] <= 1
        for rule in ("erk", "global_threshold", "uniform_all", "isomorphic"):
            widths = ALLOCATIONS.get(rule)(domain, channel_scores(small(), space, "l2"))
            assert domain.feasible(np.array([widths]))[0]


def test_scores_are_the_errors_that_bits_save() -> None:
    model, space = small(), traced().search_space
    for group, found in zip(space.groups, channel_scores(model, space, "l2"), strict=True):
        weight = model.get_submodule(group.name).weight.detach()
        laid = (weight.transpose(0, 1) if group.name == "up" else weight).flatten(1).numpy()
        assert found.shape == (32,)
        assert (np.diff(found) <= 0).all()
        assert found.sum() == pytest.approx(np.square(laid).sum(), rel=1e-4)
        for bits in (3, 5, 8):
            error = np.square(by_hand(laid, bits)[0] - laid).sum()
            assert found[bits:].sum() == pytest.approx(error, rel=1e-3)


def test_what_cannot_have_bits_says_why() -> None:
    space = traced()
    assert {part.name: part.reason for part in space.frozen} == {"each": "scales would take what bits save"}
    with pytest.raises(SpaceError, match=r"bits.layers: 'stm' matches no layer.*Did you mean 'stem'"):
        traced(layers=["stm"])
    with pytest.raises(SpaceError, match=r"no layer of this model can have bits .*float64, not float32"):
        autoprune.trace(small().double(), EXAMPLE.double(), options={"bits": {}})
    with pytest.raises(ConfigError, match="bits is searched at full widths, so that per would say nothing"):
        autoprune.trace(small(), EXAMPLE, options={"bits": {}, "per": "stage"})
    with pytest.raises(ConfigError, match="bits cannot be searched together with blocks"):
        autoprune.trace(small(), EXAMPLE, options={"bits": {"widths": True}, "blocks": True})
    with pytest.raises(ConfigError, match="choices"):
        traced(choices=[1, 4])
    with pytest.raises(ConfigError, match="least_squares makes up for what is cut, and bits cut nothing"):
        space.slice(small(), space.search_space.smallest, inherit=["least_squares"], calibration=EXAMPLE)
    with pytest.raises(ConfigError, match="'float16' would store weights otherwise than their bits say"):
        METRICS.get("size_mb")(space.search_space, dtype="float16")


@pytest.mark.parametrize("widths", [False, True])
def test_a_space_goes_through_json_and_damage_is_found(widths: bool) -> None:
    space = traced(widths=widths).search_space
    data = json.loads(json.dumps(to_json(space)))
    again = from_json(data)
    assert again.bits == space.bits
    assert again.fingerprint == space.fingerprint
    for key, value in (("shape", [3, 3]), ("tensor", "other"), ("group", "other"), ("full", 16)):
        broken = json.loads(json.dumps(data))
        broken["bits"][0][key] = value
        with pytest.raises(SpaceError, match="bits"):
            from_json(broken)
