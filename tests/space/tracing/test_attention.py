"""Attention in every form: whole heads, or the dimensions inside them, are cut; and other products of activations."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from attention_nets import (
    DIM,
    BatchedProducts,
    Cross,
    Einsum,
    FusedProjection,
    GroupedQueries,
    Masked,
    Multihead,
    NormedQueries,
    Tokens,
    UnitNorm,
    Vision,
    WindowAttention,
    tokens,
)
from torch import nn

from autoprune.config.space import SpaceOptions
from autoprune.cost import METRICS
from autoprune.space.cutting.slicing import random_ranking, slice_model
from autoprune.testing.rules import Build, RuleCase, RuleContract, tried


def around(part: nn.Module, **expected: object) -> RuleCase:
    return RuleCase(Tokens(part), tokens(), **expected)  # type: ignore[arg-type]


def layer(**settings: object) -> nn.TransformerEncoderLayer:
    return nn.TransformerEncoderLayer(DIM, 4, 24, batch_first=True, **settings)  # type: ignore[arg-type]


INSIDE = SpaceOptions(attention="head_dim")
CASES: dict[str, Build] = {
    "fused projection": lambda: around(FusedProjection()),
    "fused projection, products written out": lambda: around(FusedProjection(fused=False)),
    "norms inside heads": lambda: around(FusedProjection(norm=True)),
    "norms inside heads, written out": lambda: around(NormedQueries()),
    "unit queries, a temperature per head": lambda: around(NormedQueries(UnitNorm)),
    "a gate per head": lambda: around(NormedQueries(gated=True)),
    "a padding mask, spread over heads": lambda: around(Masked("padding")),
    "a mask for heads folded into the batch": lambda: around(Masked("folded")),
    "a mask added to zeros for every head": lambda: around(Masked("numbers")),
    "a causal mask of the model, spread over heads": lambda: around(Masked("kept")),
    "a mask spread over the batch, then over heads": lambda: around(Masked("twice")),
    "a mask spread over heads, then over the batch": lambda: around(Masked("heads first")),
    "a mask chosen by one of the batch, from zeros for every head": lambda: around(Masked("chosen")),
    "a mask beside itself for every head": lambda: around(Masked("stacked")),
    "a mask repeated for heads folded into the batch": lambda: around(Masked("folded twice")),
    "relative position bias": lambda: around(WindowAttention(5)),
    "heads folded into the batch": lambda: around(BatchedProducts(bias=False)),
    "scores with a bias": lambda: around(BatchedProducts(bias=True)),
    "einsum": lambda: around(Einsum()),
    "grouped queries, rotary": lambda: around(GroupedQueries()),
    "grouped queries, expanded": lambda: around(GroupedQueries(fused=False)),
    "learned queries": lambda: around(Cross()),
    "torch, batch first": lambda: around(Multihead(batch_first=True)),
    "torch, batch second": lambda: around(Multihead()),
    "torch, without weights": lambda: around(Multihead(batch_first=True, need_weights=False)),
    "torch, batch second, without weights": lambda: around(Multihead(need_weights=False)),
    "torch, without biases": lambda: around(Multihead(batch_first=True, bias=False)),
    "torch, other widths of keys": lambda: around(Multihead(batch_first=True, kdim=16, vdim=16)),
    "torch, bias for keys": lambda: around(Multihead(batch_first=True, add_bias_kv=True)),
    "encoder layer": lambda: around(layer()),
    "encoder layer, norm first": lambda: around(layer(norm_first=True)),
    "encoder layer, gelu": lambda: around(layer(activation="gelu", dropout=0.0)),
    "encoder": lambda: around(nn.TransformerEncoder(layer(norm_first=True), 2, nn.LayerNorm(DIM), False)),
    "vision transformer": lambda: RuleCase(Vision(), torch.randn(2, 3, 6, 6)),
    "inside heads: fused projection": lambda: around(FusedProjection(), options=INSIDE),
    "inside heads: written out": lambda: around(FusedProjection(fused=False), options=INSIDE),
    "inside heads: torch": lambda: around(Multihead(batch_first=True), options=INSIDE),
    "inside heads: grouped queries": lambda: around(GroupedQueries(), options=INSIDE),
    "inside heads: einsum": lambda: around(Einsum(), options=INSIDE),
    "inside heads: vision transformer": lambda: RuleCase(Vision(), torch.randn(2, 3, 6, 6), options=INSIDE),
}


class TestAttention(RuleContract):
    cases = CASES


APART = {"fused projection": "qkv", "heads folded into the batch": "q", "torch, batch first": "attention"}


@pytest.mark.parametrize(("name", "layer"), APART.items())
def test_by_default_whole_heads_go(name: str, layer: str) -> None:
    (group,) = (g for g in tried(CASES[name]).space.groups if g.name == f"part.{layer}")
    assert (group.kind, group.width) == ("heads", 4)


WRITTEN_OUT = [name for name in CASES if "per head" in name or "mask" in name or "written out" in name]


@pytest.mark.parametrize("name", [name for name in WRITTEN_OUT if "inside heads:" not in name])
def test_what_has_one_value_for_each_head_goes_with_it(name: str) -> None:
    groups = {g.name: (g.kind, g.width) for g in tried(CASES[name]).space.groups}
    assert groups == {"embed": ("channels", DIM), "part.qkv": ("heads", 4), "part.proj": ("channels", DIM)}


@pytest.mark.parametrize("name", ["inside heads: fused projection", "inside heads: torch"])
def test_on_demand_every_head_gets_narrower(name: str) -> None:
    groups = {g.name.removeprefix("part."): (g.kind, g.width) for g in tried(CASES[name]).space.groups}
    assert ("channels", 4) in groups.values()
    assert all(kind == "channels" for kind, _ in groups.values())


def test_query_heads_go_with_the_key_head_they_share() -> None:
    t = tried(CASES["grouped queries, rotary"])
    sizes = [t.space.full]
    for widths in (t.space.full, tuple(1 if g.kind == "heads" else g.width for g in t.space.groups)):
        cut = slice_model(t.network, t.space, widths, random_ranking(t.space, np.random.default_rng(0)))
        sizes.append(tuple(len(cut.get_parameter(f"part.{name}_proj.weight")) for name in "qkv"))
    assert sizes[1:] == [(16, 8, 8), (8, 4, 4)]


def test_multiply_adds_of_attention_by_hand() -> None:
    """Scores and means of values, two images of five tokens; fvcore counts fused attention as zero."""
    space = tried(CASES["fused projection"]).space
    flops = METRICS.get("flops")(space)
    for heads, width in ((4, 16), (1, 4)):
        widths = tuple(heads if group.kind == "heads" else group.width for group in space.groups)
        layers = 2 * 5 * (12 * 16 + 16 * 3 * width + width * 16) + 2 * 16 * 5
        assert flops(np.array([widths]))[0] == layers + 2 * (2 * 5 * 5 * width)
