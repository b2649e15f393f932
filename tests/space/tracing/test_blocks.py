"""Residual blocks: which are offered, and that a network without one is the network whose block passes its input."""

from __future__ import annotations

import copy
from collections.abc import Callable, Iterable
from typing import Any

import numpy as np
import pytest
import torch
from nets import conv
from torch import Tensor, nn

from autoprune.config.space import SpaceOptions
from autoprune.errors import SpaceError
from autoprune.importance.members import channel_scores, rank_channels
from autoprune.space.cutting.slicing import random_ranking, slice_model
from autoprune.space.groups import SearchSpace, WidthGroup, Widths, with_all_blocks
from autoprune.space.serial import from_json, to_json
from autoprune.space.tracing.blocks import Skip, without
from autoprune.space.tracing.trace import Traced, trace
from autoprune.space.verification.verify import verify
from autoprune.testing.masking import outputs, randomised
from autoprune.zoo import build_model


class Basic(nn.Module):
    """As in torchvision: in-place activations and sum, a convolution on the way past where shapes differ."""

    def __init__(self, before: int, after: int, stride: int = 1) -> None:
        super().__init__()
        self.conv1, self.bn1 = conv(before, after, stride=stride, bias=False), nn.BatchNorm2d(after)
        self.conv2, self.bn2 = conv(after, after, bias=False), nn.BatchNorm2d(after)
        self.relu = nn.ReLU(inplace=True)
        self.downsample = conv(before, after, 1, stride=stride) if (before, stride) != (after, 1) else None

    def forward(self, x: Tensor) -> Tensor:
        identity = x if self.downsample is None else self.downsample(x)
        y = self.bn2(self.conv2(self.relu(self.bn1(self.conv1(x)))))
        y += identity
        return self.relu(y)  # type: ignore[no-any-return]


class PreNorm(nn.Module):
    """Two sums in one module: heads that attend to each other, then two layers."""

    def __init__(self, dim: int = 16, heads: int = 4) -> None:
        super().__init__()
        self.norm1, self.norm2 = nn.LayerNorm(dim), nn.LayerNorm(dim)
        self.qkv, self.proj = nn.Linear(dim, 3 * dim), nn.Linear(dim, dim)
        self.fc1, self.fc2 = nn.Linear(dim, 2 * dim), nn.Linear(2 * dim, dim)
        self.num_heads, self.head_dim = heads, dim // heads

    def forward(self, x: Tensor) -> Tensor:
        n, length, _ = x.shape
        q, k, v = self.qkv(self.norm1(x)).reshape(n, length, 3, self.num_heads, self.head_dim).permute(2, 0, 3, 1, 4)
        attended = (q @ k.transpose(-2, -1) / self.head_dim**0.5).softmax(-1) @ v
        x = x + self.proj(attended.transpose(1, 2).reshape(n, length, -1))
        return x + self.fc2(torch.relu(self.fc1(self.norm2(x))))  # type: ignore[no-any-return]


class Between(nn.Module):
    """Something between a first and a last layer, on images or on sequences."""

    def __init__(self, *blocks: nn.Module, sequence: bool = False) -> None:
        super().__init__()
        self.stem = nn.Linear(6, 16) if sequence else conv(3, 8)
        self.blocks = nn.ModuleList(blocks)
        self.fc = nn.LazyLinear(5)

    def forward(self, x: Tensor) -> Tensor:
        x = self.stem(x)
        for block in self.blocks:
            x = self.call(block, x)
        return self.fc(x.mean(1) if x.ndim == 3 else x.mean((2, 3)))  # type: ignore[no-any-return]

    def call(self, block: nn.Module, x: Tensor) -> Tensor:
        return block(x)  # type: ignore[no-any-return]


def example(net: nn.Module) -> Tensor:
    sequence = isinstance(getattr(net, "stem", None), nn.Linear)
    generator = torch.Generator().manual_seed(0)
    return torch.randn(2, 5, 6, generator=generator) if sequence else torch.randn(2, 3, 8, 8, generator=generator)


def made(net: nn.Module) -> nn.Module:
    net(example(net))  # gives the last layer its size
    return randomised(net)


def traced(net: nn.Module, **options: Any) -> Traced:
    return trace(net, example(net), options=SpaceOptions(**{"blocks": True, **options}))


def names(net: nn.Module) -> list[str]:
    return [block.name for block in traced(made(net)).space.blocks]


def switched(space: SearchSpace, off: Iterable[str], widths: Widths | None = None) -> Widths:
    gone = {f"block:{name}" for name in off}
    return tuple(0 if g.name in gone else w for g, w in zip(space.groups, widths or space.full, strict=True))


def passing(net: nn.Module, paths: Iterable[str]) -> nn.Module:
    """The oracle: a copy in which these modules run, and then return what they were given."""
    clone = copy.deepcopy(net)
    for path in paths:
        given: list[Tensor] = []  # a copy: what runs in place changes the input
        module = clone.get_submodule(path)
        module.register_forward_pre_hook(lambda _, args, given=given: given.append(args[0].clone()))  # type: ignore[misc]
        module.register_forward_hook(lambda _, args, made, given=given: given.pop())  # type: ignore[misc]
    return clone


NETS: dict[str, Callable[[], nn.Module]] = {
    "resnet20": lambda: build_model("resnet20", {"width": 0.25}),
    "basic": lambda: Between(Basic(8, 8), Basic(8, 8), Basic(8, 12, 2), Basic(12, 12)),
    "prenorm": lambda: Between(PreNorm(), PreNorm(), PreNorm(), sequence=True),
    "encoder": lambda: Between(*(encoder_layer() for _ in range(3)), sequence=True),
}


def encoder_layer() -> nn.Module:
    return nn.TransformerEncoderLayer(16, 4, 24, batch_first=True)


@pytest.mark.parametrize("name", NETS)
def test_a_network_without_blocks_is_one_whose_blocks_pass_their_input(name: str) -> None:
    net = made(NETS[name]())
    result = verify(net, traced(net))
    space, x = result.space, example(net)
    ranking = random_ranking(space, np.random.default_rng(0))
    paths = [block.name for block in space.blocks]
    assert space.form == ("graph" if name == "encoder" else "module")
    assert len(space.presence.blocks) == len(paths) >= 3
    for off in ([], paths[:1], paths[-1:], paths[:2], paths):
        found = slice_model(result.network, space, switched(space, off), ranking)
        close(outputs(found, x), outputs(passing(net, off), x))
        assert not any(key.startswith(f"{path}.") for key in found.state_dict() for path in off)


@pytest.mark.parametrize("name", [name for name in NETS if name != "encoder"])
def test_blocks_go_from_a_network_that_is_cut_elsewhere_too(name: str) -> None:
    net = made(NETS[name]())
    space, rng, x = traced(net).space, np.random.default_rng(0), example(net)
    for _ in range(3):
        widths = tuple(int(rng.choice(group.choices)) for group in space.groups)
        ranking = random_ranking(space, rng)
        off = [block.name for block in space.left_out(widths)]
        with_blocks = slice_model(net, space, with_all_blocks(space, widths), ranking)
        close(outputs(slice_model(net, space, widths, ranking), x), outputs(passing(with_blocks, off), x))


def close(found: list[Tensor], expected: list[Tensor]) -> None:
    assert len(found) == len(expected)
    for f, e in zip(found, expected, strict=True):
        torch.testing.assert_close(f, e, rtol=1e-4, atol=1e-5)


def test_blocks_are_listed_but_not_offered_unless_asked_for() -> None:
    net = made(NETS["basic"]())
    space = traced(net, blocks=False).space
    assert [block.name for block in space.blocks] == ["blocks.0", "blocks.1", "blocks.3"]  # one changes the shape
    assert space.presence.blocks == {}
    assert all(group.kind == "channels" for group in space.groups)
    offered = traced(net).space
    assert offered.groups[: len(space.groups)] == space.groups
    assert [group.name for group in offered.groups[len(space.groups) :]] == [f"block:blocks.{i}" for i in (0, 1, 3)]
    assert {group.choices for group in offered.groups[len(space.groups) :]} == {(0, 1)}
    assert offered.fingerprint != space.fingerprint


def test_a_block_with_an_excluded_layer_is_not_offered() -> None:
    space = traced(made(NETS["basic"]()), exclude=("blocks.0.conv1",)).space
    assert [block.name for block in space.presence.blocks.values()] == ["blocks.1", "blocks.3"]


def test_where_no_block_is_found_a_note_says_so() -> None:
    space = traced(made(Between(conv(8, 8), conv(8, 8)))).space
    assert space.blocks == ()
    assert any(note.startswith("blocks:") for note in space.notes)


class Gate(nn.Module):
    """Multiplies what it is given, and sums nothing."""

    def __init__(self) -> None:
        super().__init__()
        self.conv = conv(8, 8, 1)

    def forward(self, x: Tensor) -> Tensor:
        return x * self.conv(x.mean((2, 3), keepdim=True)).sigmoid()  # type: ignore[no-any-return]


class Projected(Gate):
    """A sum of two convolutions: nothing passes by."""

    def __init__(self) -> None:
        super().__init__()
        self.other = conv(8, 8)

    def forward(self, x: Tensor) -> Tensor:
        return self.conv(x) + self.other(x)  # type: ignore[no-any-return]


class Shifted(Gate):
    """Adds a parameter, not what comes out of a product, and then multiplies."""

    def __init__(self) -> None:
        super().__init__()
        self.shift = nn.Parameter(torch.randn(8, 1, 1))

    def forward(self, x: Tensor) -> Tensor:
        return self.conv(x + self.shift)  # type: ignore[no-any-return]


@pytest.mark.parametrize("kind", [Gate, Projected, Shifted])
def test_only_residual_sums_make_a_block(kind: type[nn.Module]) -> None:
    assert names(Between(kind(), kind())) == []


def test_a_module_that_runs_twice_is_no_block() -> None:
    shared = Basic(8, 8)
    assert names(Between(shared, Basic(8, 8), shared)) == ["blocks.1"]


class Twice(Between):
    """Runs every block twice."""

    def call(self, block: nn.Module, x: Tensor) -> Tensor:
        return block(block(x))  # type: ignore[no-any-return]


def test_a_module_that_runs_twice_under_one_name_is_no_block() -> None:
    assert names(Twice(Basic(8, 8))) == []


class Last(Basic):
    """Sums first, and ends with a convolution that nothing passes by."""

    def __init__(self) -> None:
        super().__init__(8, 8)
        self.last = conv(8, 8)

    def forward(self, x: Tensor) -> Tensor:
        return self.last(super().forward(x))  # type: ignore[no-any-return]


class Around(Between):
    """Adds what a block is given to what it returns."""

    def call(self, block: nn.Module, x: Tensor) -> Tensor:
        return x + block(x)  # type: ignore[no-any-return]


def test_a_sum_before_the_last_product_is_not_enough() -> None:
    assert names(Around(Last())) == []


def test_the_innermost_module_is_the_block() -> None:
    wrapped = nn.Sequential(nn.Sequential(Basic(8, 8)), Basic(8, 8))
    assert names(Between(wrapped)) == ["blocks.0.0.0", "blocks.0.1"]


class Leaky(Between):
    """Reads a block's weight outside the block."""

    def call(self, block: nn.Module, x: Tensor) -> Tensor:
        return block(x) + block.conv1.weight.mean()  # type: ignore[no-any-return, union-attr]


def test_a_block_whose_tensors_others_read_is_not_offered() -> None:
    assert names(Leaky(Basic(8, 8))) == []


def test_blocks_that_share_a_tensor_are_not_offered() -> None:
    net = Between(Basic(8, 8), Basic(8, 8))
    net.blocks[1].bn1.weight = net.blocks[0].bn1.weight  # type: ignore[union-attr]
    assert names(net) == []


class Second(Basic):
    """Its second input is the one it adds to, and it returns a tuple."""

    def forward(self, scale: Tensor, x: Tensor) -> Any:  # type: ignore[override]
        return super().forward(x) + x * scale, None


class Called(Between):
    def call(self, block: nn.Module, x: Tensor) -> Tensor:
        return block(x.mean((1, 2, 3), keepdim=True), x=x)[0]  # type: ignore[no-any-return]


def test_a_block_may_take_other_inputs_first_and_return_a_tuple() -> None:
    net = made(Called(Second(8, 8), Second(8, 8)))
    result = verify(net, traced(net))
    assert result.space.form == "module"
    assert [(block.argument, block.outputs) for block in result.space.blocks] == [("x", 2)] * 2
    widths = switched(result.space, ["blocks.0"])
    found = slice_model(net, result.space, widths, random_ranking(result.space, np.random.default_rng(0)))
    assert isinstance(found.blocks[0], Skip)  # type: ignore[index]
    expected = copy.deepcopy(net)
    expected.blocks[0].forward = lambda scale, x: (x, None)  # type: ignore[index, union-attr]
    close(outputs(found, example(net)), outputs(expected, example(net)))


class Remembered(Between):
    """Writes into what a block returns, and reads what the block was given after that."""

    def forward(self, x: Tensor) -> Tensor:
        x = self.stem(x)
        y = self.blocks[0](x)
        y.mul_(2)
        return self.fc((x + y).mean((2, 3)))  # type: ignore[no-any-return]


def test_a_block_is_not_offered_where_its_input_would_be_written_into() -> None:
    assert names(Remembered(Basic(8, 8))) == []


class Asked(Between):
    """Asks a block for one of its attributes."""

    def call(self, block: nn.Module, x: Tensor) -> Tensor:
        return block(x) / block.bn1.num_features  # type: ignore[no-any-return, union-attr]


def test_the_graph_takes_over_where_the_model_misses_its_block() -> None:
    net = made(Asked(Basic(8, 8), Basic(8, 8)))
    result = verify(net, traced(net))
    assert result.space.form == "graph"
    assert len(result.space.presence.blocks) == 2


def test_the_graph_without_blocks_keeps_its_names_and_loses_their_tensors() -> None:
    found = traced(made(NETS["basic"]()))
    less = without(found.program, found.space.blocks[:2])
    names_left = [node.name for node in less.nodes]
    assert names_left == [node.name for node in found.program.nodes if node.name in set(names_left)]
    assert not any(name.startswith(("blocks.0.", "blocks.1.")) for name, _ in less.tensors.values())
    assert any(name.startswith("blocks.3.") for name, _ in less.tensors.values())
    assert without(found.program, ()) is found.program


def test_a_space_with_blocks_comes_back_from_json() -> None:
    space = traced(made(NETS["basic"]())).space
    again = from_json(to_json(space))
    assert again.blocks == space.blocks
    assert again.fingerprint == space.fingerprint
    assert again.left_out(again.smallest) == space.blocks


def test_uniform_widths_keep_every_block() -> None:
    space = traced(made(NETS["basic"]())).space
    assert all(space.uniform(0.1)[index] == 1 for index in space.presence.blocks)


def test_only_blocks_can_be_off_and_every_switch_has_a_block() -> None:
    with pytest.raises(SpaceError, match="at least 1"):
        WidthGroup("layer", 1, (0, 1))
    with pytest.raises(SpaceError, match="must name a block"):
        SearchSpace((WidthGroup("block:layer", 1, (0, 1), kind="blocks"),))


def test_blocks_have_a_score_and_a_rank_of_their_own() -> None:
    net = made(NETS["basic"]())
    space = traced(net).space
    scores, ranking = channel_scores(net, space, "l1"), rank_channels(net, space, "l1")
    for index in space.presence.blocks:
        assert scores[index].tolist() == [1.0]
        assert ranking[index].tolist() == [0]
